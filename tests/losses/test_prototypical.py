"""The loss of prototypical networks against a loop over queries."""

from __future__ import annotations

import contextlib

import pytest
import torch

from ltr.data.sampling.per_class import PerClass
from ltr.data.sampling.samplers import Instance
from ltr.errors import ConfigError
from ltr.losses.prototypical import Prototypical


def episode(way: int, each: int, width: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3, 3 + way).repeat_interleave(each)
    return torch.randn(way * each, width, generator=generator, dtype=torch.float64), labels


def loop(points: torch.Tensor, labels: torch.Tensor, shot: int) -> torch.Tensor:
    members = {int(label): (labels == label).nonzero().flatten() for label in labels.unique()}
    prototypes = torch.stack([points[rows[:shot]].mean(0) for rows in members.values()])
    costs = []
    for target, rows in enumerate(members.values()):
        for query in rows[shot:]:
            distances = (points[query] - prototypes).square().sum(1)
            costs.append(-(-distances).log_softmax(0)[target])
    return torch.stack(costs).mean()


@pytest.mark.parametrize(("way", "each", "shot"), [(2, 2, 1), (5, 4, 1), (3, 7, 5)])
def test_the_loss_is_the_mean_over_queries(way, each, shot):
    points, labels = episode(way, each)
    points.requires_grad_()
    cost, expected = Prototypical([1], shot=shot)(points, labels), loop(points, labels, shot)
    torch.testing.assert_close(cost, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, points)[0] for loss in (cost, expected)))


def test_the_first_images_of_each_class_are_its_support():
    points, labels = episode(4, 5)
    order = torch.arange(20).reshape(4, 5).T.flatten()  # one image of each class after the other
    loss = Prototypical([1], shot=2)
    torch.testing.assert_close(loss(points[order], labels[order]), loss(points, labels))


def test_the_loss_is_invariant_to_shifts_even_in_float32():
    points, labels = episode(4, 5)
    loss = Prototypical([1])
    torch.testing.assert_close(loss((points + 100).float(), labels), loss(points, labels).float(), rtol=1e-3, atol=1e-4)


def test_a_batch_without_queries_has_zero_loss():
    points, labels = episode(4, 1)
    points.requires_grad_()
    cost = Prototypical([1])(points, labels)
    cost.backward()
    assert cost.detach() == 0
    assert points.grad.abs().max() == 0


@pytest.mark.parametrize(
    ("sampler", "batch_size", "message"),
    [
        (Instance(), 20, "sampler=episodes"),
        (PerClass(images_per_class=5, batch_size=20), 20, "images_per_class=5 with loss.shot=5: an episode would"),
        (PerClass(images_per_class=6, batch_size=20), 20, r"batch_size=20.*Use batch_size=18 for 3"),
        (PerClass(images_per_class=6, batch_size=60), 60, r"batch_size=60.*classes, from 2 to 4.*batch_size=24 for 4"),
        (PerClass(images_per_class=6, batch_size=7), 7, r"batch_size=7.*Use batch_size=12 for 2"),
    ],
)
def test_batches_that_are_not_episodes_are_refused(sampler, batch_size, message):
    with pytest.raises(ConfigError, match=message):
        Prototypical([1], shot=5).check_batches(sampler, batch_size, classes=4)


@pytest.mark.parametrize(("classes", "is_accepted"), [(4, True), (3, True), (2, False)])
def test_episodes_of_existing_classes_are_accepted(classes, is_accepted):
    refusal = contextlib.nullcontext() if is_accepted else pytest.raises(ConfigError, match="batch_size=18")
    with refusal as refused:
        Prototypical([1], shot=5).check_batches(PerClass(images_per_class=6, batch_size=18), 18, classes=classes)
    assert (refused is None) is is_accepted


def test_mixed_images_and_no_shot_are_refused():
    points, labels = episode(2, 2)
    with pytest.raises(ConfigError, match="mixup"):
        Prototypical([1])(points, labels, (labels, torch.ones(4)))
    with pytest.raises(ConfigError, match="shot=0"):
        Prototypical([1], shot=0)
