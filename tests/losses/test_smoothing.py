"""Label-aware smoothing against its definition written out, and its identities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ltr.errors import ConfigError
from ltr.losses.classification import CrossEntropy
from ltr.losses.smoothing import LabelAwareSmoothing, label_smoothing, smoothed_cross_entropy

COUNTS = [500, 100, 20, 5]
SHAPES = ("concave", "linear", "convex", "power")


def a_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """float64 logits [9, 4] and labels [9] in which every class occurs."""
    return torch.from_numpy(np.random.default_rng(7).normal(0.0, 3.0, (9, 4))), torch.arange(9) % 4


def by_definition(z, y, smoothing, spread):
    """The cross-entropy between an explicit target distribution and softmax(z)."""
    others = smoothing / (len(z) if spread == "all" else len(z) - 1)
    target = [others] * len(z)
    target[y] = 1 - smoothing + (others if spread == "all" else 0.0)
    assert sum(target) == pytest.approx(1.0)
    total = sum(math.exp(value) for value in z)
    return -sum(share * math.log(math.exp(value) / total) for share, value in zip(target, z, strict=True))


@pytest.mark.parametrize("spread", ["all", "others"])
def test_each_loss_is_the_cross_entropy_with_its_target(spread):
    logits, labels = a_batch()
    smoothing = label_smoothing(COUNTS, 0.4, 0.1)
    losses = smoothed_cross_entropy(logits, labels, torch.from_numpy(smoothing), spread)
    expected = [
        by_definition(z, y, smoothing[y], spread) for z, y in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-12)


def test_the_same_smoothing_for_all_is_label_smoothing():
    logits, labels = a_batch()
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.3)
    torch.testing.assert_close(smoothed_cross_entropy(logits, labels, torch.full((4,), 0.3)).mean(), expected)


def test_no_smoothing_is_cross_entropy():
    logits, labels = a_batch()
    loss = LabelAwareSmoothing(COUNTS, head=0.0, tail=0.0)
    torch.testing.assert_close(loss(logits, labels), CrossEntropy(COUNTS)(logits, labels))


@pytest.mark.parametrize("shape", SHAPES)
def test_smoothing_rises_from_the_smallest_class_to_the_largest(shape):
    smoothing = label_smoothing(COUNTS, 0.4, 0.1, shape, 0.5)
    assert smoothing[0] == pytest.approx(0.4)
    assert smoothing[-1] == pytest.approx(0.1)
    assert (np.diff(smoothing) < 0).all()


def test_concave_and_convex_schedules_lie_on_their_side_of_the_linear_one():
    concave, linear, convex = (label_smoothing(COUNTS, 0.4, 0.1, shape)[1] for shape in SHAPES[:3])
    assert convex < linear < concave
    t = (100 - 5) / (500 - 5)
    assert concave == pytest.approx(0.1 + 0.3 * math.sin(math.pi * t / 2))
    assert convex == pytest.approx(0.4 + 0.3 * math.sin(1.5 * math.pi + math.pi * t / 2))  # as the authors write it
    assert label_smoothing(COUNTS, 0.4, 0.1, "power", 2.0)[1] == pytest.approx(0.1 + 0.3 * t * t)


def test_classes_of_equal_size_have_equal_smoothing():
    assert label_smoothing([7, 7, 7], 0.4, 0.1).tolist() == [0.4] * 3


def test_more_smoothing_for_small_classes_is_refused():
    with pytest.raises(ConfigError, match=r"loss\.tail=0\.5 loss\.head=0\.4.*at most loss\.head"):
        LabelAwareSmoothing(COUNTS, head=0.4, tail=0.5)
