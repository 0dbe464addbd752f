"""Linear and cosine heads."""

from __future__ import annotations

import math

import pytest
import torch

from ltr.errors import ConfigError
from ltr.models.heads import CosineHead, LinearHead
from ltr.models.weights import seeded_construction

heads = pytest.mark.parametrize("head_type", [LinearHead, CosineHead])


def test_cosine_logits_are_scaled_cosines():
    head = CosineHead(5, 3, scale=30.0).double()
    features = torch.randn(4, 5, dtype=torch.float64)
    expected = torch.zeros(4, 3, dtype=torch.float64)
    for row, x in enumerate(features):
        for label, w in enumerate(head.weight.detach()):
            expected[row, label] = 30 * (x @ w) / (math.sqrt(x @ x) * math.sqrt(w @ w))
    torch.testing.assert_close(head(features), expected)


def test_cosine_logits_do_not_depend_on_lengths():
    head = CosineHead(5, 3)
    features = torch.randn(4, 5)
    before = head(features)
    with torch.no_grad():
        head.weight.mul_(7)
    torch.testing.assert_close(head(features * 0.01), before)


def test_cosine_logits_are_float32_under_autocast():
    head, features = CosineHead(64, 10), torch.randn(8, 64).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(features)
    assert logits.dtype is torch.float32
    torch.testing.assert_close(logits, head(features.float()))


def test_cosine_rows_start_at_unit_length():
    torch.testing.assert_close(CosineHead(6, 4).weight.norm(dim=1), torch.ones(4))


def test_a_learned_scale_is_a_parameter_and_a_fixed_one_is_not():
    assert [name for name, _ in CosineHead(4, 2).named_parameters()] == ["weight"]
    learned = CosineHead(4, 2, scale=16.0, learn_scale=True)
    assert {name for name, _ in learned.named_parameters()} == {"weight", "scale"}
    learned(torch.randn(3, 4)).square().sum().backward()
    assert learned.scale.grad.abs() > 0


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan])
def test_a_scale_that_is_not_positive_is_refused(scale):
    with pytest.raises(ConfigError, match=r"head.scale=.*allowed is \(0, inf\)"):
        CosineHead(4, 2, scale=scale)


def test_the_linear_head_is_an_affine_map():
    head, features = LinearHead(5, 3), torch.randn(4, 5)
    torch.testing.assert_close(head(features), features @ head.weight.T + head.bias)


def test_the_linear_head_starts_kaiming_normal_with_a_uniform_bias():
    head = LinearHead(256, 1000)
    assert head.weight.std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.01)
    assert 0.9 / 16 < head.bias.abs().max().item() <= 1 / 16


def test_the_linear_head_may_start_glorot_uniform_without_a_bias():
    head = LinearHead(256, 1000, initial="glorot")
    bound = math.sqrt(6 / 1256)
    assert head.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert 0.99 * bound < head.weight.abs().max().item() <= bound
    assert not head.bias.any()


@heads
def test_reset_depends_on_its_generator_only(head_type):
    head = head_type(6, 4)
    original = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    head.reset(torch.Generator().manual_seed(7))
    first = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    torch.randn(3)
    head.reset(torch.Generator().manual_seed(7))
    assert all(torch.equal(first[name], tensor) for name, tensor in head.state_dict().items())
    assert not any(torch.equal(first[name], tensor) for name, tensor in original.items())


@heads
def test_reset_does_not_advance_the_global_generator(head_type):
    head = head_type(6, 4)
    before = torch.get_rng_state()
    head.reset(torch.Generator().manual_seed(7))
    assert torch.equal(torch.get_rng_state(), before)


@heads
def test_reset_gives_the_weights_of_construction(head_type):
    with seeded_construction(11):
        built = head_type(6, 4)
    head = head_type(6, 4)
    head.reset(torch.Generator().manual_seed(11))
    assert all(torch.equal(a, b) for a, b in zip(built.state_dict().values(), head.state_dict().values(), strict=True))


@pytest.mark.parametrize("value", [-2.5, torch.tensor([1.0, 2.0, 3.0])])
def test_init_bias_sets_a_prior(value):
    head = LinearHead(5, 3)
    head.init_bias(value)
    torch.testing.assert_close(head.bias.detach(), torch.as_tensor(value).expand(3))


@pytest.mark.parametrize("head", [LinearHead(5, 3, bias=False), CosineHead(5, 3)])
def test_init_bias_without_a_bias_is_refused(head):
    assert head.bias is None
    with pytest.raises(ConfigError, match="bias"):
        head.init_bias(0.0)


@heads
def test_a_head_reports_its_kind_and_sizes(head_type):
    head = head_type(6, 4)
    assert (head.head_kind, head.num_features, head.num_classes) == (
        {LinearHead: "linear", CosineHead: "cosine"}[head_type],
        6,
        4,
    )
