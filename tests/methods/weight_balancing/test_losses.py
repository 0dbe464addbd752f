"""The loss of weight balancing's code against torch's binary cross-entropy of softmax probabilities."""

from __future__ import annotations

import numpy as np
import torch

from ltr.losses.weights import class_balanced_weights
from ltr.methods.weight_balancing.losses import ClassBalancedBCE, softmax_binary_cross_entropy

COUNTS = [60, 17, 5, 1]


def a_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """float64 logits [9, 4] and labels [9] in which every class occurs."""
    return torch.from_numpy(np.random.default_rng(7).normal(0.0, 3.0, (9, 4))), torch.arange(9) % 4


def by_torch(logits, labels, weight):
    target = torch.nn.functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
    probabilities = logits.softmax(1)
    return torch.nn.functional.binary_cross_entropy(probabilities, target, weight[labels][:, None].expand_as(target))


def test_the_loss_is_the_binary_cross_entropy_of_probabilities():
    logits, labels = a_batch()
    weight = torch.from_numpy(class_balanced_weights(COUNTS, 0.9999))
    losses = softmax_binary_cross_entropy(logits, labels, weight)
    torch.testing.assert_close(losses.mean(), by_torch(logits, labels, weight), rtol=1e-10, atol=0)


def test_the_module_weights_by_the_effective_number():
    logits, labels = a_batch()
    weight = torch.from_numpy(class_balanced_weights(COUNTS, 0.9999)).float()
    torch.testing.assert_close(
        ClassBalancedBCE(COUNTS)(logits.float(), labels), by_torch(logits.float(), labels, weight)
    )


def test_gradients_agree_with_torch():
    logits, labels = a_batch()
    weight = torch.ones(4, dtype=torch.float64)
    actual, expected = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    softmax_binary_cross_entropy(actual, labels).mean().backward()
    by_torch(expected, labels, weight).backward()
    torch.testing.assert_close(actual.grad, expected.grad, rtol=1e-9, atol=1e-15)
