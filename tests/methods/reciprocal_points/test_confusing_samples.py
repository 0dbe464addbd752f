"""Generator, discriminator, and the second set of BatchNorm statistics."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ltr.errors import ConfigError
from ltr.methods.reciprocal_points.confusing_samples import AuxiliaryNorms, Discriminator, Generator, first_side
from ltr.models.digits_net import DigitsNet


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 48, 48), (3, 64, 64)])
def test_images_have_the_shape_of_the_data_and_pixels_in_the_unit_interval(shape):
    images = Generator(shape, noise_dim=10, width=2)(torch.randn(3, 10))
    assert images.shape == (3, *shape)
    assert images.min() >= 0
    assert images.max() <= 1
    assert Discriminator(shape, width=2)(images).shape == (3,)


def test_for_32_pixels_the_widths_are_those_of_the_code():
    sizes = [layer.weight.shape[:2] for layer in Generator((3, 32, 32)).layers if hasattr(layer, "output_padding")]
    assert sizes == [(100, 512), (512, 256), (256, 128), (128, 3)]


@pytest.mark.parametrize(("side", "last_map"), [(32, 1), (64, 5)])
def test_the_discriminator_has_the_layers_and_sizes_of_the_code(side, last_map):
    network = Discriminator((3, side, side)).eval()
    sizes = [tuple(layer.weight.shape[:2]) for layer in network.layers if isinstance(layer, nn.Conv2d)]
    assert sizes == [(128, 3), (256, 128), (512, 256), (1024, 512)]
    images = torch.rand(2, 3, side, side)
    maps = network.layers(images)
    assert maps.shape[2:] == (last_map, last_map)
    assert 0 <= maps.min() <= maps.max() <= 1, "a sigmoid ends the convolutions, not the network"
    weight, bias = network.classifier.weight.double(), network.classifier.bias.double()
    expected = maps.double().mean((2, 3)) @ weight[0] + bias
    torch.testing.assert_close(network(images).double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 8, 16), (1, 7, 7), (3, 33, 33), (3, 600, 600), (1, 4, 4)])
def test_image_shapes_that_cannot_be_generated_are_refused(shape):
    with pytest.raises(ConfigError, match=f"{shape[1]}x{shape[2]}"):
        first_side(shape)


def pair() -> tuple[nn.Module, AuxiliaryNorms]:
    backbone = DigitsNet(1).train()
    return backbone, AuxiliaryNorms(backbone)


def statistics(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.named_buffers()}


def test_generated_images_do_not_change_the_backbones_statistics():
    backbone, norms = pair()
    before, own = statistics(backbone), statistics(norms)
    norms(backbone, torch.randn(8, 1, 8, 8))
    assert all(torch.equal(before[name], now) for name, now in backbone.named_buffers())
    assert not any(torch.equal(own[name], now) for name, now in norms.named_buffers())


def test_real_images_do_not_change_the_auxiliary_statistics():
    backbone, norms = pair()
    own = statistics(norms)
    backbone(torch.randn(8, 1, 8, 8))
    assert all(torch.equal(own[name], now) for name, now in norms.named_buffers())


def test_the_second_set_behaves_as_a_second_backbone_with_the_same_convolutions():
    backbone, norms = pair()
    twin = copy.deepcopy(backbone)
    for _ in range(2):
        images = torch.randn(8, 1, 8, 8)
        torch.testing.assert_close(norms(backbone, images), twin(images))
    backbone.eval()
    images = torch.randn(8, 1, 8, 8)
    torch.testing.assert_close(norms(backbone, images), twin.eval()(images))


def test_gradients_reach_shared_convolutions_and_auxiliary_norms_only():
    backbone, norms = pair()
    norms(backbone, torch.randn(8, 1, 8, 8)).sum().backward()
    with_gradient = {name for name, p in backbone.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, p in backbone.named_parameters() if p.ndim == 4}
    assert all(p.grad is not None for p in norms.parameters())


def test_a_backbone_without_batchnorm_is_unchanged():
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    norms = AuxiliaryNorms(backbone)
    images = torch.randn(2, 1, 8, 8)
    assert not list(norms.parameters())
    assert torch.equal(norms(backbone, images), backbone(images))
