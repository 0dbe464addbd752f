"""Every pure loss against a formula written out image by image and class by class in float64, and its identities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr.errors import ConfigError
from ltr.losses import functional
from ltr.losses.weights import class_balanced_weights, ldam_margins, log_prior

COUNTS = [60, 17, 5, 1]
WEIGHTS = class_balanced_weights(COUNTS, 0.95)
MARGINS = ldam_margins(COUNTS, 0.5)
PRIOR = log_prior(COUNTS)


def a_batch(scale: float = 3.0, classes: int = 4, images: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 logits [B, C] and labels [B] in which every class occurs."""
    numbers = np.random.default_rng(7).normal(0.0, scale, (images, classes))
    return torch.from_numpy(numbers), torch.arange(images) % classes


# The formulas. z is one image's list of logits, y its label.


def probability(z, y):
    return math.exp(z[y]) / sum(math.exp(value) for value in z)


def naive_cross_entropy(z, y):
    return -math.log(probability(z, y))


def naive_focal_softmax(z, y, gamma):
    p = probability(z, y)
    return -((1 - p) ** gamma) * math.log(p)


def naive_focal_softmax_weight_inside(z, y, gamma):
    p = probability(z, y) ** WEIGHTS[y]
    return -((1 - p) ** gamma) * math.log(p)


def naive_focal_sigmoid(z, y, gamma, weight=1.0):
    total = 0.0
    for i, value in enumerate(z):
        p = (1 / (1 + math.exp(-value if i == y else value))) ** weight
        total -= (1 - p) ** gamma * math.log(p)
    return total


def naive_ldam(z, y, scale):
    margin = 0.5 * (min(COUNTS) / COUNTS[y]) ** 0.25
    return naive_cross_entropy([value - scale * margin * (i == y) for i, value in enumerate(z)], y)


def naive_balanced_softmax(z, y):
    return -math.log(
        COUNTS[y] * math.exp(z[y]) / sum(count * math.exp(value) for count, value in zip(COUNTS, z, strict=True))
    )


def naive_vs(z, y, gamma, tau):
    moved = [
        (count / max(COUNTS)) ** gamma * value + tau * math.log(count / sum(COUNTS))
        for count, value in zip(COUNTS, z, strict=True)
    ]
    return naive_cross_entropy(moved, y)


def tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


PAIRS = {
    "cross_entropy": (functional.cross_entropy, naive_cross_entropy),
    "cross_entropy, weighted": (
        lambda z, y: functional.cross_entropy(z, y, tensor(WEIGHTS)),
        lambda z, y: WEIGHTS[y] * naive_cross_entropy(z, y),
    ),
    "focal_softmax": (lambda z, y: functional.focal_softmax(z, y, 2.0), lambda z, y: naive_focal_softmax(z, y, 2.0)),
    "focal_softmax, weight outside": (
        lambda z, y: functional.focal_softmax(z, y, 0.5, tensor(WEIGHTS)),
        lambda z, y: WEIGHTS[y] * naive_focal_softmax(z, y, 0.5),
    ),
    "focal_softmax, weight inside": (
        lambda z, y: functional.focal_softmax(z, y, 1.5, tensor(WEIGHTS), weight_inside=True),
        lambda z, y: naive_focal_softmax_weight_inside(z, y, 1.5),
    ),
    "sigmoid_cross_entropy": (
        lambda z, y: functional.sigmoid_cross_entropy(z, y, tensor(WEIGHTS)),
        lambda z, y: WEIGHTS[y] * naive_focal_sigmoid(z, y, 0.0),
    ),
    "sigmoid_cross_entropy, background": (
        lambda z, y: functional.sigmoid_cross_entropy(z, y, background=1),
        lambda z, y: naive_focal_sigmoid([z[0], z[2], z[3]], {0: 0, 1: None, 2: 1, 3: 2}[y], 0.0),
    ),
    "focal_sigmoid": (
        lambda z, y: functional.focal_sigmoid(z, y, 2.0, tensor(WEIGHTS)),
        lambda z, y: WEIGHTS[y] * naive_focal_sigmoid(z, y, 2.0),
    ),
    "focal_sigmoid, weight inside": (
        lambda z, y: functional.focal_sigmoid(z, y, 0.5, tensor(WEIGHTS), weight_inside=True),
        lambda z, y: naive_focal_sigmoid(z, y, 0.5, WEIGHTS[y]),
    ),
    "focal_sigmoid, background": (
        lambda z, y: functional.focal_sigmoid(z, y, 1.0, background=0),
        lambda z, y: naive_focal_sigmoid(z[1:], y - 1, 1.0),
    ),
    "ldam": (
        lambda z, y: functional.ldam(z, y, tensor(MARGINS), 4.0, tensor(WEIGHTS)),
        lambda z, y: WEIGHTS[y] * naive_ldam(z, y, 4.0),
    ),
    "balanced_softmax": (lambda z, y: functional.balanced_softmax(z, y, tensor(PRIOR)), naive_balanced_softmax),
    "logit_adjusted": (
        lambda z, y: functional.logit_adjusted(z, y, tensor(PRIOR), 1.7),
        lambda z, y: naive_vs(z, y, 0.0, 1.7),
    ),
    "vs": (lambda z, y: functional.vs(z, y, tensor(PRIOR), 0.3, 1.2), lambda z, y: naive_vs(z, y, 0.3, 1.2)),
}
EVERY_LOSS = pytest.mark.parametrize("name", PAIRS)
SOFTMAX_LOSSES = [name for name in PAIRS if "sigmoid" not in name and name != "vs"]


@EVERY_LOSS
def test_the_loss_equals_its_formula_image_by_image(name):
    loss, formula = PAIRS[name]
    logits, labels = a_batch()
    expected = [formula(z, y) for z, y in zip(logits.tolist(), labels.tolist(), strict=True)]
    torch.testing.assert_close(loss(logits, labels), tensor(expected), rtol=1e-11, atol=1e-13)


@EVERY_LOSS
def test_the_gradient_passes_gradcheck(name):
    logits, labels = a_batch(images=5)
    assert torch.autograd.gradcheck(lambda z: PAIRS[name][0](z, labels), logits.requires_grad_())


@EVERY_LOSS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradient_are_finite_for_logits_of_ten_thousand(name, dtype):
    logits = torch.tensor([[1e4, -1e4, 0, 0], [-1e4, 1e4, 0, 0], [1e4, 1e4, 1e4, 1e4], [0, 0, 0, 0]], dtype=dtype)
    for label in range(4):
        logits = logits.detach().requires_grad_()
        loss = PAIRS[name][0](logits, torch.full((4,), label))
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        assert loss.isfinite().all()
        assert gradient.isfinite().all()


@EVERY_LOSS
def test_bfloat16_logits_are_computed_in_float32(name):
    logits, labels = a_batch()
    rounded = logits.bfloat16()
    loss = PAIRS[name][0](rounded, labels)
    assert loss.dtype in (torch.float32, torch.float64)
    torch.testing.assert_close(loss.double(), PAIRS[name][0](rounded.double(), labels), rtol=2e-5, atol=1e-6)


def test_autocast_does_not_lower_the_precision():
    logits, labels = a_batch()
    plain = functional.focal_softmax(logits.float(), labels, 2.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(functional.focal_softmax(logits.float(), labels, 2.0), plain)


@pytest.mark.parametrize("name", SOFTMAX_LOSSES)
@given(shift=st.floats(-50, 50))
@settings(max_examples=20, deadline=None)
def test_softmax_losses_are_invariant_to_a_shift_of_all_logits(name, shift):
    logits, labels = a_batch()
    loss = PAIRS[name][0]
    torch.testing.assert_close(loss(logits + shift, labels), loss(logits, labels), rtol=1e-9, atol=1e-11)


@EVERY_LOSS
def test_the_loss_of_an_image_does_not_depend_on_its_batch(name):
    logits, labels = a_batch()
    loss = PAIRS[name][0]
    alone = torch.cat([loss(logits[i : i + 1], labels[i : i + 1]) for i in range(len(labels))])
    torch.testing.assert_close(alone, loss(logits, labels), rtol=1e-12, atol=0)


PRIOR_32, MARGINS_32 = torch.tensor(PRIOR).float(), torch.tensor(MARGINS).float()
SAME_AS_CROSS_ENTROPY = {
    "focal_softmax, gamma 0": lambda z, y: functional.focal_softmax(z, y, 0.0),
    "focal_softmax, gamma 0, weight 1 inside": lambda z, y: functional.focal_softmax(z, y, 0.0, torch.ones(4), True),
    "ldam, margin 0 and scale 1": lambda z, y: functional.ldam(z, y, torch.zeros(4), 1.0),
    "logit_adjusted, tau 0": lambda z, y: functional.logit_adjusted(z, y, PRIOR_32, 0.0),
    "vs, gamma 0 and tau 0": lambda z, y: functional.vs(z, y, PRIOR_32, 0.0, 0.0),
}


@pytest.mark.parametrize("name", SAME_AS_CROSS_ENTROPY)
def test_the_neutral_setting_is_cross_entropy_to_the_bit(name):
    logits, labels = a_batch()
    logits = logits.float().requires_grad_()
    actual, expected = SAME_AS_CROSS_ENTROPY[name](logits, labels), functional.cross_entropy(logits, labels)
    assert torch.equal(actual, expected)
    assert torch.equal(*(torch.autograd.grad(loss.sum(), logits)[0] for loss in (actual, expected)))


def test_sigmoid_focal_with_gamma_0_is_sigmoid_cross_entropy_to_the_bit():
    logits, labels = a_batch()
    assert torch.equal(functional.focal_sigmoid(logits, labels, 0.0), functional.sigmoid_cross_entropy(logits, labels))


def test_logit_adjustment_with_tau_1_is_balanced_softmax_to_the_bit():
    logits, labels = a_batch()
    assert torch.equal(
        functional.logit_adjusted(logits.float(), labels, PRIOR_32, 1.0),
        functional.balanced_softmax(logits.float(), labels, PRIOR_32),
    )


def test_vs_with_gamma_0_is_logit_adjustment_to_the_bit():
    logits, labels = a_batch()
    assert torch.equal(
        functional.vs(logits.float(), labels, PRIOR_32, 0.0, 1.3),
        functional.logit_adjusted(logits.float(), labels, PRIOR_32, 1.3),
    )


@pytest.mark.parametrize("gamma", [0.1, 0.5, 1.0, 2.0])
def test_the_focal_gradient_is_0_where_the_loss_is_exactly_0(gamma):
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    loss = functional.focal_softmax(logits, torch.tensor([0]), gamma)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.item() == 0.0
    assert torch.equal(gradient, torch.zeros(1, 2))


@pytest.mark.parametrize("name", ["cross_entropy", "sigmoid_cross_entropy", "focal_sigmoid", "ldam"])
def test_a_weight_of_0_excludes_an_image(name):
    logits, _ = a_batch()
    labels, weight = torch.zeros(9, dtype=torch.int64), tensor([0.0, 1.0, 1.0, 1.0])
    losses = {
        "cross_entropy": lambda: functional.cross_entropy(logits, labels, weight),
        "sigmoid_cross_entropy": lambda: functional.sigmoid_cross_entropy(logits, labels, weight),
        "focal_sigmoid": lambda: functional.focal_sigmoid(logits, labels, 1.0, weight),
        "ldam": lambda: functional.ldam(logits, labels, tensor(MARGINS), 1.0, weight),
    }
    assert torch.equal(losses[name](), torch.zeros(9, dtype=torch.float64))


def test_batch_reduction_divides_by_the_number_of_images():
    losses, weights = torch.tensor([2.0, 6.0]), torch.tensor([0.5, 1.5])
    assert functional.reduce(losses, weights, "batch").item() == 4.0


def test_weight_sum_reduction_divides_by_the_sum_of_the_weights_as_torch_does():
    logits, labels = a_batch()
    weight = tensor(WEIGHTS)
    actual = functional.reduce(functional.cross_entropy(logits, labels, weight), weight[labels], "weight_sum")
    torch.testing.assert_close(actual, torch.nn.functional.cross_entropy(logits, labels, weight))


def test_weight_sum_of_a_batch_without_weight_is_0():
    nothing = torch.zeros(3)
    assert functional.reduce(nothing, nothing, "weight_sum").item() == 0.0


def test_an_unknown_reduction_is_an_error():
    with pytest.raises(ConfigError, match="batch, weight_sum"):
        functional.reduce(torch.ones(2), None, "sum")


def test_weight_sum_over_two_processes_averages_to_the_whole_batch(monkeypatch):
    losses, weights = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.5, 0.25, 1.0, 2.25])

    def add_up(total):
        total.copy_(weights.sum())

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", add_up)
    halves = [
        functional.reduce(losses[part], weights[part], "weight_sum", across_processes=True)
        for part in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close(sum(halves) / 2, functional.reduce(losses, weights, "weight_sum"))
