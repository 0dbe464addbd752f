"""Data augmentation and multi-task learning on transformed images, against naive loops."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from method_plans import planned, state, step

from ltr.data.augmentation.joint_transforms import TRANSFORMS
from ltr.data.batch import Batch, Mix
from ltr.methods.sla.options import Transform
from resuming import same_bits


def built(method: str, *overrides: str):
    plan = planned(f"method={method}", *overrides)
    stage = plan.stages["representation"]
    network = stage.network(plan.dataset_info, 0)
    network.start_epoch(0)
    return network


def batch(mixed: bool = False) -> Batch:
    actual = planned().batch()
    actual = Batch(actual.images[:6], actual.labels[:6], actual.indices[:6])
    if not mixed:
        return actual
    mix = Mix(actual.labels.flip(0), torch.full((6,), 0.3))
    return actual._replace(images=actual.images.float() / 255, mix=mix)


def naive_class_loss(network, images_and_labels: Batch) -> torch.Tensor:
    total = torch.zeros(())
    for i, image in enumerate(images_and_labels.images):
        for turns in range(4):
            log_p = network(network.to_unit(torch.rot90(image[None], turns, (2, 3)))).log_softmax(1)[0]
            own = -log_p[images_and_labels.labels[i]]
            if images_and_labels.mix is not None:
                own = 0.3 * own - 0.7 * log_p[images_and_labels.mix.labels[i]]
            total = total + own / (4 * len(images_and_labels.images))
    return total


@pytest.mark.parametrize("mixed", [False, True], ids=["plain", "mixed"])
def test_all_views_have_the_label_of_their_image(mixed):
    network, images_and_labels = built("data_augmentation").eval(), batch(mixed)
    torch.testing.assert_close(
        network.training_step(images_and_labels, 0)["loss"], naive_class_loss(network, images_and_labels)
    )


@pytest.mark.parametrize("mixed", [False, True], ids=["plain", "mixed"])
def test_the_second_task_is_the_index_of_the_view(mixed):
    network, images_and_labels = built("multi_task", "method.transform_weight=0.5").eval(), batch(mixed)
    second = torch.zeros(())
    for image in images_and_labels.images:
        for turns in range(4):
            features = network.features(network.to_unit(torch.rot90(image[None], turns, (2, 3))))
            logits = network.transform_head(features)
            second = second + F.cross_entropy(logits, torch.tensor([turns])) / (4 * len(images_and_labels.images))
    outcome = network.training_step(images_and_labels, 0)
    torch.testing.assert_close(outcome["logs"]["transform_loss"], second.detach())
    torch.testing.assert_close(outcome["loss"], naive_class_loss(network, images_and_labels) + 0.5 * second)


@pytest.mark.parametrize("method", ["data_augmentation", "multi_task"])
@torch.no_grad()
def test_aggregated_is_the_mean_over_views_and_single_the_untransformed_image(method):
    network, images_and_labels = built(method).eval(), batch()
    actual = network.predict(images_and_labels.images)
    views = [network(network.to_unit(torch.rot90(images_and_labels.images, turns, (2, 3)))) for turns in range(4)]
    torch.testing.assert_close(actual["single"].logits, views[0])
    torch.testing.assert_close(actual["aggregated"].logits, torch.stack(views).mean(0))
    assert torch.equal(network.predict_headline(images_and_labels.images).logits, actual["single"].logits)


def test_with_one_transformation_data_augmentation_is_erm_to_the_bit():
    networks = [built("data_augmentation", "method.transform=none"), built("erm")]
    for network in networks:
        step(network.train(), batch(), steps=3)
    assert same_bits(*(state(network) for network in networks))


def test_both_heads_of_multi_task_are_trained_and_initialised_from_the_seed():
    network, again = built("multi_task"), built("multi_task")
    assert same_bits(state(network), state(again))
    step(network.train(), batch())
    assert not any(
        torch.equal(a, b) for a, b in zip(network.transform_head.parameters(), again.transform_head.parameters())
    )


def test_class_weights_do_not_affect_the_second_task():
    plain = built("multi_task").eval()
    weighted = built("multi_task", "loss=class_balanced").eval()
    first, second = (network.training_step(batch(), 0)["logs"] for network in (plain, weighted))
    assert torch.equal(first["transform_loss"], second["transform_loss"])
    assert not torch.equal(first["class_loss"], second["class_loss"])


@pytest.mark.parametrize("method", ["data_augmentation", "multi_task"])
def test_activation_checkpointing_trains_to_the_same_bits(method):
    networks = [built(method, f"method.checkpointing={value}") for value in ("false", "true")]
    for network in networks:
        step(network.train(), batch(), steps=2)
    assert same_bits(*(state(network) for network in networks))


@pytest.mark.parametrize("method", ["data_augmentation", "multi_task"])
def test_decoupled_methods_accept_it_as_a_representation(method):
    network = built(method)
    assert network.as_classifier() is network


def test_the_choices_of_transforms_are_the_existing_ones():
    assert set(get_args(Transform)) == set(TRANSFORMS)
