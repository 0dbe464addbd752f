"""Strided convolutions of narrow maps in bf16 on a CPU have the weight gradient of fp32."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ltr.models.narrow_maps import guard_narrow_maps


def weight_gradient(convolution: nn.Conv2d, images: torch.Tensor, precision: torch.dtype) -> torch.Tensor:
    junk = [torch.full((1 << 16,), float("nan")) for _ in range(8)]  # what freed memory may hold
    del junk
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        output = convolution(images)
    assert output.dtype == precision
    (gradient,) = torch.autograd.grad(output.float().square().sum(), convolution.weight)
    return gradient


@pytest.mark.parametrize(
    ("kernel", "stride", "height", "width"), [(3, 2, 1, 1), (3, 2, 2, 1), (5, 3, 2, 2), (2, 2, 1, 1)]
)
@pytest.mark.parametrize("groups", [1, 64])
def test_the_weight_gradient_is_that_of_fp32(kernel, stride, height, width, groups):
    torch.manual_seed(0)
    convolution = nn.Conv2d(64, 64, kernel, stride, kernel // 2, bias=False, groups=groups)
    convolution.to(memory_format=torch.channels_last)
    guard_narrow_maps(convolution)
    images = torch.randn(16, 64, height, width).to(memory_format=torch.channels_last)
    expected = weight_gradient(convolution, images, torch.float32)
    for _ in range(5):
        gradient = weight_gradient(convolution, images, torch.bfloat16)
        assert (gradient - expected).abs().max() < 0.03 * expected.abs().max()


@pytest.mark.parametrize("size", [2, 3, 8])
def test_wider_maps_are_computed_as_without_the_guard(size):
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 8, 3, 2, 1)
    guarded = copy.deepcopy(plain)
    guard_narrow_maps(guarded)
    images = torch.randn(4, 8, size, size)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(guarded(images), plain(images))
    assert torch.equal(guarded(images[..., :1]), plain(images[..., :1]))  # narrow, in fp32


def test_the_guard_adds_no_parameter_and_survives_a_copy():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3))
    names = list(network.state_dict())
    guard_narrow_maps(network)
    guard_narrow_maps(network)
    twin = copy.deepcopy(network)
    assert list(twin.state_dict()) == names
    with torch.no_grad():
        twin[0].weight.zero_()
        twin[0].bias.zero_()
    images = torch.ones(1, 3, 1, 1)
    assert twin[0](images).abs().sum() == 0
    assert network[0](images).abs().sum() > 0
