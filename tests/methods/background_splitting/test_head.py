"""The head with a constant background logit: what it computes, and what b0 means where rows have a bias."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from ltr.errors import ConfigError
from ltr.methods.background_splitting.head import BackgroundHead, prior_bias
from ltr.models.heads import CosineHead, LinearHead
from ltr.models.weights import seeded_construction


def head(rows: int = 3, b0: float = 0.1, bias: bool = True, width: int = 5) -> BackgroundHead:
    with seeded_construction(0):
        return BackgroundHead(LinearHead(width, rows, bias=bias), b0)


def features(images: int = 7, width: int = 5) -> torch.Tensor:
    return torch.randn(images, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("b0", [-1.0, 0.0, 0.1, 3.0])
def test_the_first_logit_is_b0_and_the_others_are_the_rows(b0):
    actual, x = head(b0=b0), features()
    assert torch.equal(actual(x)[:, 0], torch.full((7,), b0))
    assert torch.equal(actual(x)[:, 1:], actual.rows(x))


def test_a_b0_of_zero_is_a_threshold():
    logits = head(b0=0.0)(features())
    assert logits.shape == (7, 4)
    torch.testing.assert_close(logits.softmax(1)[:, 0], 1 / (1 + logits[:, 1:].exp().sum(1)))


def test_probabilities_sum_to_one_and_equal_the_papers():
    logits = head(b0=0.7)(features())
    z = logits[:, 1:]
    expected = z.exp() / (math.exp(0.7) + z.exp().sum(1, keepdim=True))
    torch.testing.assert_close(logits.softmax(1)[:, 1:], expected)
    torch.testing.assert_close(logits.softmax(1).sum(1), torch.ones(7))


def test_one_foreground_class_is_a_logistic_regression_with_offset_b0():
    logits = head(rows=1, b0=0.4)(features())
    z = logits[:, 1]
    for label, expected in ((0, F.softplus(z - 0.4)), (1, F.softplus(0.4 - z))):
        actual = F.cross_entropy(logits, torch.full((7,), label), reduction="none")
        torch.testing.assert_close(actual, expected)


def test_the_background_has_no_weights():
    actual = head(rows=3)
    assert sorted(name for name, _ in actual.named_parameters()) == ["rows.bias", "rows.weight"]
    assert actual.rows.weight.shape == (3, 5)
    F.cross_entropy(actual(features()), torch.zeros(7, dtype=torch.int64)).backward()
    assert (actual.rows.weight.grad.abs().sum(1) > 0).all()


def test_a_background_image_lowers_every_logit():
    logits = head(rows=2, b0=0.1)(features()).detach().requires_grad_()
    F.cross_entropy(logits, torch.zeros(7, dtype=torch.int64), reduction="sum").backward()
    torch.testing.assert_close(logits.grad[:, 1:], logits.detach().softmax(1)[:, 1:])


def test_with_biases_b0_is_equivalent_to_a_shift_of_them():
    thresholded, shifted, x = head(b0=0.9), head(b0=0.0), features()
    with torch.no_grad():
        shifted.rows.bias -= 0.9
    labels = torch.tensor([0, 1, 2, 3, 0, 0, 1])
    torch.testing.assert_close(thresholded(x).softmax(1), shifted(x).softmax(1))
    for network in (thresholded, shifted):
        F.cross_entropy(network(x), labels).backward()
    torch.testing.assert_close(thresholded.rows.weight.grad, shifted.rows.weight.grad)
    torch.testing.assert_close(thresholded.rows.bias.grad, shifted.rows.bias.grad)


def test_without_biases_b0_changes_the_probabilities():
    x = features()
    first, second = head(b0=0.9, bias=False)(x), head(b0=0.0, bias=False)(x)
    assert not torch.allclose(first.softmax(1), second.softmax(1), atol=1e-3)


def test_b0_keeps_its_value_under_half_precision():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head(b0=0.1)(features())
    assert logits.dtype == torch.float32
    assert logits[0, 0].item() == pytest.approx(0.1, abs=1e-8)


@pytest.mark.parametrize("b0", [math.nan, math.inf, -math.inf])
def test_a_b0_that_is_not_finite_is_refused(b0):
    with pytest.raises(ConfigError, match=r"method\.b0=.*finite number"):
        head(b0=b0)


COUNTS = (900, 60, 40)


def test_prior_biases_give_each_class_its_frequency_with_a_constant_b0():
    actual = head(rows=2, b0=0.3)
    actual.init_bias(prior_bias(COUNTS, 0.3, "softmax"))
    probabilities = actual(torch.zeros(1, 5)).softmax(1)
    torch.testing.assert_close(probabilities, torch.tensor([[0.9, 0.06, 0.04]]))


def test_prior_biases_give_each_class_its_frequency_with_a_learned_background_logit():
    torch.testing.assert_close(prior_bias(COUNTS, None, "softmax").softmax(0), torch.tensor([0.9, 0.06, 0.04]))


@pytest.mark.parametrize("b0", [0.3, None])
def test_prior_biases_of_sigmoids_give_each_class_its_frequency(b0):
    actual = prior_bias(COUNTS, b0, "sigmoid").sigmoid()
    torch.testing.assert_close(actual, torch.tensor([0.9, 0.06, 0.04])[0 if b0 is None else 1 :])


def test_the_prior_bias_of_a_class_without_images_is_finite():
    assert prior_bias((10, 0), 0.1, "softmax").isfinite().all()


def test_a_cosine_head_has_no_bias_for_a_prior():
    with pytest.raises(ConfigError, match="cosine head"):
        BackgroundHead(CosineHead(5, 2), 0.1).init_bias(0.0)
