"""The equalisation losses against their definitions written out, their identities, and their accumulated gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ltr.losses import gathering
from ltr.losses.classification import ClassBalanced, CrossEntropy
from ltr.losses.equalization import Equalization, EqualizationV2, gradient_weights, softmax_equalization

COUNTS = [600, 170, 5, 1]


def a_batch(images: int = 9, seed: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """Return float64 logits [B, 4] and labels [B] in which every class occurs."""
    numbers = np.random.default_rng(seed).normal(0.0, 3.0, (images, len(COUNTS)))
    return torch.from_numpy(numbers), torch.arange(images) % len(COUNTS)


def test_the_softmax_form_follows_its_definition():
    logits, labels = a_batch()
    ignored = torch.from_numpy(np.random.default_rng(1).random(logits.shape) < 0.5)
    losses = softmax_equalization(logits, labels, ignored)
    for loss, z, y, left_out in zip(losses.tolist(), logits.tolist(), labels.tolist(), ignored.tolist(), strict=True):
        kept = [math.exp(value) for k, value in enumerate(z) if k == y or not left_out[k]]
        assert loss == pytest.approx(-math.log(math.exp(z[y]) / sum(kept)), rel=1e-12)


def test_a_class_that_is_left_out_gets_no_gradient():
    logits = torch.zeros(1, 4, requires_grad=True)
    ignored = torch.tensor([[False, False, True, True]])
    (gradient,) = torch.autograd.grad(softmax_equalization(logits, torch.tensor([0]), ignored).sum(), logits)
    torch.testing.assert_close(gradient, torch.tensor([[-0.5, 0.5, 0.0, 0.0]]))


def test_without_rare_classes_the_softmax_form_is_cross_entropy():
    logits, labels = a_batch()
    expected = CrossEntropy(COUNTS)(logits, labels)
    for options in ({"gamma": 0}, {"threshold": 0}):
        assert torch.equal(Equalization(COUNTS, **options)(logits, labels), expected)
    assert torch.equal(Equalization(COUNTS, gamma=1, threshold=1).eval()(logits, labels), expected)


def test_rare_classes_are_left_out_with_probability_gamma():
    torch.manual_seed(0)
    loss = Equalization(COUNTS, threshold=0.01, gamma=0.9)
    assert loss.rare.tolist() == [False, False, True, True]
    logits = torch.zeros(20_000, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss.per_image(logits, torch.zeros(20_000, dtype=torch.int64)).sum(), logits)
    left_out = (gradient == 0).double().mean(0)
    assert left_out[:2].tolist() == [0, 0]
    assert left_out[2:].tolist() == pytest.approx([0.9, 0.9], abs=0.01)


@pytest.mark.parametrize("rows_per_image", [1, 3])
def test_processes_leave_out_the_classes_that_one_process_leaves_out(monkeypatch, rows_per_image):
    logits, labels = a_batch(12)
    labels = torch.zeros_like(labels)

    def losses(numbers, rows, calls=2):
        loss = Equalization(COUNTS, threshold=1.0, gamma=0.5)
        loss.numbers = numbers
        return torch.stack([loss.per_image(logits[rows], labels[rows]) for _ in range(calls)])

    torch.manual_seed(5)
    alone = losses(None, slice(None))
    images = torch.arange(12).view(-1, rows_per_image)
    for rank in (0, 1):
        monkeypatch.setattr(gathering, "world_size", lambda: 2)
        monkeypatch.setattr(gathering, "rank", lambda rank=rank: rank)
        rows = images[rank::2].flatten()
        share = losses(gathering.BatchNumbers(5, rows_per_image), rows)
        assert torch.equal(share, alone[:, rows])
    assert not torch.equal(alone[0], alone[1])


def weights_by_definition(positive, negative, gamma, mu, alpha):
    pairs = []
    for p, n in zip(positive, negative, strict=True):
        ratio = 100.0 if p + n == 0 else p / (n + 1e-10)
        r = 1 / (1 + math.exp(-gamma * (ratio - mu)))
        pairs.append((1 + alpha * (1 - r), r))
    return pairs


def test_the_weights_of_v2_follow_their_definition():
    positive, negative = [0.0, 3.0, 0.4, 0.0], [0.0, 2.0, 0.9, 5.0]
    of_positives, of_negatives = gradient_weights(torch.tensor(positive), torch.tensor(negative), 12, 0.8, 4)
    expected = weights_by_definition(positive, negative, 12, 0.8, 4)
    assert list(zip(of_positives.tolist(), of_negatives.tolist(), strict=True)) == [
        pytest.approx(pair, rel=1e-4) for pair in expected
    ]


def test_v2_follows_its_definition_over_three_batches():
    loss = EqualizationV2(COUNTS).train()
    positive, negative = [0.0] * 4, [0.0] * 4
    for seed in range(3):
        logits, labels = a_batch(seed=seed)
        pairs = weights_by_definition(positive, negative, 12, 0.8, 4)
        expected = []
        for z, y in zip(logits.tolist(), labels.tolist(), strict=True):
            total = 0.0
            for k, value in enumerate(z):
                probability = 1 / (1 + math.exp(-value))
                if k == y:
                    total -= pairs[k][0] * math.log(probability)
                    positive[k] += pairs[k][0] * (1 - probability)
                else:
                    total -= pairs[k][1] * math.log(1 - probability)
                    negative[k] += pairs[k][1] * probability
            expected.append(total)
        np.testing.assert_allclose(loss.per_image(logits, labels).numpy(), expected, rtol=1e-9)
    np.testing.assert_allclose(loss.positive.numpy(), positive, rtol=1e-9)
    np.testing.assert_allclose(loss.negative.numpy(), negative, rtol=1e-9)


def test_v2_starts_as_the_sum_of_binary_cross_entropies():
    batch = a_batch()
    expected = ClassBalanced(COUNTS, beta=0, base="sigmoid")(*batch)
    torch.testing.assert_close(EqualizationV2(COUNTS)(*batch), expected, rtol=1e-6, atol=0)


def test_v2_accumulates_in_training_only_and_over_all_processes(monkeypatch):
    loss = EqualizationV2(COUNTS).eval()
    loss(*a_batch())
    assert loss.negative.sum() == 0
    loss.train()(*a_batch())
    alone = loss.negative.clone()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda sums: sums.mul_(2))
    together = EqualizationV2(COUNTS)
    together(*a_batch())
    torch.testing.assert_close(together.negative, 2 * alone)


def test_an_image_of_two_equal_labels_counts_as_one_of_that_label():
    logits, labels = a_batch()
    plain, mixed = EqualizationV2(COUNTS), EqualizationV2(COUNTS)
    share = torch.full((len(labels),), 0.3, dtype=torch.float64)
    torch.testing.assert_close(mixed(logits, labels, (labels, share)), plain(logits, labels))
    torch.testing.assert_close(mixed.positive, plain.positive)


def test_v2_restores_its_gradients_from_a_checkpoint():
    trained = EqualizationV2(COUNTS)
    trained(*a_batch())
    restored = EqualizationV2(COUNTS)
    restored.load_state_dict(trained.state_dict())
    assert torch.equal(restored(*a_batch(seed=2)), trained(*a_batch(seed=2)))
