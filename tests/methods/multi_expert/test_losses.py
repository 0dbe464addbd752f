"""Losses of RIDE and SADE against independent formulas in float64, and by identities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from ltr.methods.multi_expert.losses import (
    class_temperatures,
    diversity,
    expertise_losses,
    inverse_log_prior,
    prediction_stability,
    routing_losses,
    routing_targets,
    running_means,
)

COUNTS = np.array([60, 17, 5, 1])
LABELS = torch.arange(9) % 4


def experts(count: int = 3, seed: int = 7) -> torch.Tensor:
    """float64 logits [9, K, 4]."""
    return torch.from_numpy(np.random.default_rng(seed).normal(0.0, 2.0, (9, count, 4)))


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    return float(np.sum(p * (np.log(p) - np.log(q))))


@pytest.mark.parametrize("rule", ["ratio", "shift"])
def test_temperatures_follow_the_frequencies(rule):
    gamma, alpha = 0.1, 2.0
    b = [gamma * 4 * n / 83 + 1 - gamma for n in (60, 17, 5, 1)]
    expected = [alpha * (x / max(b) if rule == "ratio" else x + 1 - max(b)) for x in b]
    np.testing.assert_allclose(class_temperatures(COUNTS, alpha, gamma, rule), expected, rtol=1e-12)


@pytest.mark.parametrize("rule", ["ratio", "shift"])
def test_without_frequencies_all_temperatures_are_alpha(rule):
    np.testing.assert_allclose(class_temperatures(COUNTS, 1.5, 0.0, rule), 1.5)


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match="not above 0"):
        class_temperatures([1000, *[1] * 9], 1.0, 0.9, "shift")


def test_the_divergence_from_the_mean_is_the_sum_over_experts():
    logits, temperatures = experts(), np.array([1.0, 0.9, 0.8, 0.7])
    expected = []
    for image in logits.numpy():
        q = softmax(image.mean(0) / temperatures)
        terms = [divergence(q, softmax(one / temperatures)) for one in image]
        expected.append(temperatures.mean() ** 2 * sum(terms))
    actual = diversity(logits, torch.from_numpy(temperatures))
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-10)


def test_the_divergence_of_pairs_is_the_mean_over_the_other_experts():
    logits, temperatures = experts(), np.array([1.0, 0.9, 0.8, 0.7])
    expected = []
    for image in logits.numpy():
        q = [softmax(one / temperatures) for one in image]
        terms = [divergence(q[i], q[j]) / 2 for i in range(3) for j in range(3) if i != j]
        expected.append(temperatures.mean() ** 2 * sum(terms))
    actual = diversity(logits, torch.from_numpy(temperatures), "pairs")
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("kind", ["mean", "pairs"])
@pytest.mark.parametrize("logits", [experts(1), experts(1).expand(-1, 3, -1)], ids=["one expert", "equal experts"])
def test_experts_that_agree_have_no_divergence(kind, logits):
    torch.testing.assert_close(diversity(logits, torch.ones(4), kind), torch.zeros(9, dtype=torch.float64))


def test_the_mean_prediction_gets_no_gradient():
    logits = experts().requires_grad_()
    diversity(logits, torch.ones(4)).sum().backward()
    # d KL(q || q_i) / d z_i = q_i - q where q does not move
    q, each = logits.detach().mean(1, keepdim=True).softmax(2), logits.detach().softmax(2)
    torch.testing.assert_close(logits.grad, each - q)


def test_half_precision_is_computed_in_float32():
    logits = experts().half()
    torch.testing.assert_close(diversity(logits, torch.ones(4)), diversity(logits.float(), torch.ones(4)))


def test_the_inverse_prior_reverses_the_ranks():
    shares = np.exp(inverse_log_prior([5, 60, 1, 17]))
    np.testing.assert_allclose(shares, np.array([17, 1, 60, 5]) / 83)


def test_the_inverse_of_equal_classes_is_their_prior():
    np.testing.assert_allclose(np.exp(inverse_log_prior([7, 7, 7])), 1 / 3)


def test_the_three_experts_have_softmax_balanced_and_inverse_losses():
    logits, tau = experts(), 2.0
    prior, inverse = COUNTS / COUNTS.sum(), COUNTS[::-1] / COUNTS.sum()
    shifts = [0.0, np.log(prior), np.log(prior) - tau * np.log(inverse)]
    expected = [
        [-log_softmax(image[k] + shifts[k])[label] for k in range(3)]
        for image, label in zip(logits.numpy(), LABELS.numpy())
    ]
    actual = expertise_losses(
        logits, LABELS, torch.from_numpy(np.log(prior)), torch.from_numpy(inverse_log_prior(COUNTS)), tau
    )
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-10)


def test_on_balanced_classes_tau_1_makes_all_three_losses_cross_entropy():
    one = experts(1).expand(-1, 3, -1)
    uniform = torch.full((4,), -np.log(4), dtype=torch.float64)
    losses = expertise_losses(one, LABELS, uniform, uniform, 1.0)
    expected = torch.nn.functional.cross_entropy(one[:, 0], LABELS, reduction="none")
    torch.testing.assert_close(losses, expected[:, None].expand(-1, 3))


def test_another_expert_helps_where_the_mean_is_wrong_and_becomes_right():
    right, wrong = [5.0, 0.0], [0.0, 5.0]
    logits = torch.tensor(
        [
            [right, right, right],
            [wrong, [9.0, 0.0], right],  # right from the second on
            [wrong, wrong, wrong],
            [wrong, wrong, [20.0, 0.0]],  # right with all three
            [right, [0.0, 9.0], [9.0, 0.0]],  # wrong in between
        ]
    )
    expected = [[False, False], [True, False], [False, False], [True, True], [False, True]]
    assert routing_targets(logits, torch.zeros(5, dtype=torch.int64)).tolist() == expected


def test_running_means_are_means_over_the_first_experts():
    logits = experts()
    for count in (1, 2, 3):
        torch.testing.assert_close(running_means(logits)[:, count - 1], logits[:, :count].mean(1))


def test_the_routers_loss_weights_images_that_are_helped():
    scores = torch.from_numpy(np.random.default_rng(3).normal(size=(5, 2)))
    targets = torch.tensor([[True, False], [False, False], [True, True], [False, True], [True, False]])
    p = 1 / (1 + np.exp(-scores.numpy()))
    expected = np.where(targets.numpy(), -7.0 * np.log(p), -np.log(1 - p)).mean(1)
    np.testing.assert_allclose(routing_losses(scores, targets, 7.0).numpy(), expected, rtol=1e-6)


def test_stability_is_the_cosine_of_the_aggregated_predictions():
    first, second = experts(), experts(seed=8)
    weights = np.array([0.2, 0.3, 0.5])
    expected = []
    for one, other in zip(first.numpy(), second.numpy()):
        p, q = softmax(weights @ one), softmax(weights @ other)
        expected.append(p @ q / np.linalg.norm(p) / np.linalg.norm(q))
    actual = prediction_stability(first, second, torch.from_numpy(weights))
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-10)


def test_equal_views_are_perfectly_stable():
    torch.testing.assert_close(
        prediction_stability(experts(), experts(), torch.ones(3, dtype=torch.float64) / 3),
        torch.ones(9, dtype=torch.float64),
    )
