"""The seesaw loss against its definition written out, its identities, and its counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ltr.losses.classification import CrossEntropy
from ltr.losses.seesaw import Seesaw, seesaw

COUNTS = [60, 17, 5, 1]


def a_batch(images: int = 9, seed: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 logits [B, 4] and labels [B] in which every class occurs."""
    numbers = np.random.default_rng(seed).normal(0.0, 3.0, (images, len(COUNTS)))
    return torch.from_numpy(numbers), torch.arange(images) % len(COUNTS)


def by_definition(z, y, counts, p, q):
    """-log(e^z_y / sum_j S_yj e^z_j) of one image, with the factors as products."""
    total = sum(math.exp(value) for value in z)
    probabilities = [math.exp(value) / total for value in z]
    denominator = 0.0
    for j, value in enumerate(z):
        mitigation = 1.0 if counts[y] <= counts[j] else (counts[j] / counts[y]) ** p
        ratio = probabilities[j] / max(probabilities[y], 0.01)
        compensation = ratio**q if ratio > 1 else 1.0
        denominator += math.exp(value) * (1.0 if j == y else mitigation * compensation)
    return -math.log(math.exp(z[y]) / denominator)


@pytest.mark.parametrize(("p", "q"), [(0.8, 2.0), (0.0, 2.0), (0.8, 0.0), (1.5, 0.5)])
def test_each_loss_follows_its_definition(p, q):
    logits, labels = a_batch()
    losses = seesaw(logits, labels, torch.tensor(COUNTS), p, q)
    expected = [by_definition(z, y, COUNTS, p, q) for z, y in zip(logits.tolist(), labels.tolist(), strict=True)]
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-12)


def test_without_both_factors_it_is_cross_entropy():
    logits, labels = a_batch()
    assert torch.equal(Seesaw(COUNTS, p=0, q=0)(logits, labels), CrossEntropy(COUNTS)(logits, labels))


def test_equal_counts_leave_only_the_compensation():
    logits, labels = a_batch()
    equal = seesaw(logits, labels, torch.full((4,), 7), 0.8, 2.0)
    torch.testing.assert_close(equal, seesaw(logits, labels, torch.tensor(COUNTS), 0.0, 2.0))


def test_a_frequent_class_suppresses_a_rare_one_less():
    logits = torch.zeros(1, 4, requires_grad=True)
    pushes = []
    for p in (0.0, 0.8):
        (gradient,) = torch.autograd.grad(seesaw(logits, torch.tensor([0]), torch.tensor(COUNTS), p, 0.0).sum(), logits)
        pushes.append(gradient[0])
    assert (pushes[1][1:] < pushes[0][1:]).all()
    assert pushes[1].sum().item() == pytest.approx(0.0, abs=1e-6)  # the factors are constants


def test_images_are_counted_in_training_only():
    loss = Seesaw(COUNTS)
    logits, labels = a_batch()
    loss.eval()(logits, labels)
    assert loss.seen.sum() == 0
    loss.train()(logits, labels)
    loss(logits, labels)
    assert loss.seen.tolist() == [2 * count for count in torch.bincount(labels).tolist()]


def test_an_image_counts_for_both_labels_that_are_mixed_in_it():
    loss = Seesaw(COUNTS)
    logits, labels = a_batch(images=2)
    loss(logits, labels, (torch.tensor([2, 2]), torch.tensor([0.75, 0.5])))
    torch.testing.assert_close(loss.seen, torch.tensor([0.75, 0.5, 0.75, 0.0], dtype=torch.float64))


def test_after_one_epoch_the_accumulated_counts_are_those_of_the_training_set():
    labels = torch.tensor([label for label, count in enumerate(COUNTS) for _ in range(count)])
    logits = torch.zeros(len(labels), 4)
    loss = Seesaw(COUNTS)
    loss(logits, labels)
    batch = a_batch()
    torch.testing.assert_close(loss.eval()(*batch), Seesaw(COUNTS, counts="training")(*batch))


def test_the_counts_span_all_processes(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda counts: counts.mul_(2))
    loss = Seesaw(COUNTS)
    loss(*a_batch(images=4))
    assert loss.seen.tolist() == [2, 2, 2, 2]


def test_counts_of_the_training_set_correct_the_imbalance():
    assert Seesaw(COUNTS, counts="training").adjusts_prior
    assert not Seesaw(COUNTS).adjusts_prior  # under a balanced sampler nothing is seen more often


def test_a_loss_that_counts_images_is_not_a_function_of_the_logits():
    loss = Seesaw(COUNTS).train()
    logits, labels = a_batch()
    first = loss(logits, labels)
    loss(logits, torch.zeros_like(labels))
    assert loss(logits, labels) != first
    assert not loss.is_deterministic
    assert Seesaw(COUNTS, counts="training").is_deterministic
