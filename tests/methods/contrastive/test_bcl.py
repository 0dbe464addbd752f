"""BCL: the two branches of its network, its views, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from method_plans import planned, state, step
from view_batches import three_views

from ltr.methods.contrastive.losses import balanced_contrastive
from ltr.methods.contrastive.network import unit_length
from ltr.methods.core.stage import NetworkSpec

BCL = ("method=bcl", "augment=digits", "method.contrast_augment.flip=false")


@pytest.fixture(scope="module")
def plan():
    return planned(*BCL)


def test_the_loss_is_the_sum_of_both_branches(plan):
    network, batch = plan.representation().train(), three_views(plan)
    outcome = network.training_step(batch, 0)
    features = network.features(network.to_unit(torch.cat([batch.images, *batch.views])))
    projections = unit_length(network.projection(features))[64:]
    centres = unit_length(network.centre_projection(network.head.weight))
    contrastive = balanced_contrastive(projections, batch.labels.repeat(2), centres, 0.1).mean()
    class_loss = network.loss(network.head(features[:64]), batch.labels)
    torch.testing.assert_close(outcome["loss"], class_loss + 0.35 * contrastive)
    torch.testing.assert_close(outcome["logs"]["contrastive_loss"], contrastive.detach())


def test_both_branches_have_their_weights(plan):
    batch = three_views(plan)
    stage = plan.stages["representation"]
    spec = NetworkSpec(stage.settings, plan.dataset_info, 0, stage.role)
    network = stage.module(spec, **{**stage.options, "classification_weight": 2.0, "contrastive_weight": 0.6})
    outcome = network.training_step(batch, 0)
    parts = outcome["logs"]
    torch.testing.assert_close(outcome["loss"].detach(), 2.0 * parts["class_loss"] + 0.6 * parts["contrastive_loss"])


def test_an_image_has_three_views_and_they_differ(plan):
    batch = three_views(plan)
    assert [view.shape for view in batch.views] == [batch.images.shape] * 2
    assert all(view.dtype == torch.uint8 for view in batch.views)
    views = (batch.images, *batch.views)
    assert not any(torch.equal(views[a], views[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert all(torch.equal(one, other) for one, other in zip(batch.views, three_views(plan).views))
    assert not torch.equal(batch.views[0], three_views(plan, epoch=1).views[0])


def test_backbone_and_head_start_as_those_of_erm(plan):
    network = plan.stages["representation"].network(plan.dataset_info, 0)
    start = planned("method=erm", "augment=digits").stages["representation"].network(plan.dataset_info, 0)
    for name, tensor in start.state_dict().items():
        if name.startswith(("backbone.", "head.")):
            assert torch.equal(network.state_dict()[name], tensor), name


def test_a_step_trains_every_part_and_reduces_the_loss(plan):
    network, batch = plan.representation().train(), three_views(plan)
    before, first = state(network), float(network.training_step(batch, 0)["loss"].detach())
    step(network, batch, steps=5)
    after = state(network)
    for part in ("backbone", "head", "projection", "centre_projection"):
        names = [name for name in before if name.startswith(f"{part}.") and name.endswith("weight")]
        assert names
        assert all(not torch.equal(before[name], after[name]) for name in names), part
    assert float(network.training_step(batch, 0)["loss"].detach()) < first


def test_without_class_complement_there_are_no_centres():
    plan = planned(*BCL, "method.class_complement=false", "method.class_averaging=false")
    network = plan.representation()
    assert network.centres() is None
    assert list(network.parameter_modules()) == ["projection"]
    assert torch.isfinite(network.train().training_step(three_views(plan), 0)["loss"])


def test_the_hidden_layer_may_have_the_width_of_the_features():
    network = planned(*BCL, "method.hidden_dim=null").representation()
    assert network.projection[0].out_features == network.num_features


def test_the_loss_is_adjusted_for_the_prior_unless_another_is_chosen(plan):
    assert plan.config["loss"]["_target_"].endswith("LogitAdjusted")
    assert planned(*BCL, "loss=cross_entropy").config["loss"]["_target_"].endswith("CrossEntropy")


def test_views_are_part_of_the_key(plan):
    other = planned(*BCL, "method.contrast_augment.greyscale=0.5")
    assert other.keys != plan.keys
    assert "views" in plan.stages["representation"].settings.to_dict()
    assert "views" not in planned("method=erm").stages["representation"].settings.to_dict()


@pytest.mark.slow
def test_a_decoupled_method_starts_from_it(ltr_train):
    done = ltr_train(
        "method=crt", "method.representation=bcl", "trainer.max_epochs=1", "trainer.limit_train_batches=2",
        "method.classifier.epochs=1", "augment=digits",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert [stage["name"] for stage in done.result["stages"]] == ["representation", "classifier"]


@pytest.mark.slow
def test_it_learns_from_image_files(ltr_train, small_sources):
    done = ltr_train(
        "method=bcl", "method.contrast_augment=simaugment_files", "augment=imagenet", "dataset=tiny_imagenet",
        "backbone.name=resnet18", "dataset.image_size=32", "trainer.precision=fp32", "trainer.num_workers=0",
        "debug=fast", "trainer.max_epochs=1", "dataset.val=none", "evaluation.batch_size=200",
    )  # fmt: skip
    assert done.code == 0, done.err
