"""Fused convolutions: agreement with float32, and the passes that compute as before."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ltr.models import fused
from ltr.models.backbones import Backbone
from ltr.models.cifar_resnet import CifarResNet
from ltr.models.classifier32 import Classifier32
from ltr.models.digits_net import DigitsNet
from ltr.models.fused import FusedConvolution, fused_convolutions, fused_graph
from ltr.models.timm_backbone import TimmBackbone
from ltr.models.torchvision_backbone import TorchvisionBackbone

BF16 = {"device_type": "cpu", "dtype": torch.bfloat16}


def with_statistics(backbone: Backbone) -> Backbone:
    """Return the backbone in eval mode, with statistics and weights of BatchNorm that are not the initial ones."""
    numbers = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.1, generator=numbers)
                module.running_var.uniform_(0.5, 1.5, generator=numbers)
                module.weight.uniform_(0.5, 1.5, generator=numbers)
                module.bias.normal_(0, 0.1, generator=numbers)
    return backbone.eval().to(memory_format=torch.channels_last)


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=torch.channels_last)


def relative_error(features: Tensor, expected: Tensor) -> float:
    return float((features.double() - expected.double()).norm() / expected.double().norm())


@pytest.fixture(scope="module")
def resnet20() -> Backbone:
    return with_statistics(CifarResNet(3, depth=20))


BACKBONES = {  # backbone, shape of its images, number of operations that remain of its convolutions and BatchNorms
    "resnet20": (lambda: CifarResNet(3, depth=20), (3, 32, 32), 19),
    "resnet20, padded after": (lambda: CifarResNet(3, depth=20, shortcut_padding="after"), (3, 32, 32), 19),
    "classifier32": (lambda: Classifier32(3), (3, 32, 32), 9),
    "digits_net": (lambda: DigitsNet(1), (1, 8, 8), 3),
    "torchvision's resnet18": (lambda: TorchvisionBackbone(3, name="resnet18"), (3, 64, 64), 20),
    "torchvision's mobilenet_v2": (lambda: TorchvisionBackbone(3, name="mobilenet_v2"), (3, 64, 64), 52),
    "timm's resnet18": (lambda: TimmBackbone(3, name="resnet18"), (3, 64, 64), 20),
    "timm's efficientnet_b0": (lambda: TimmBackbone(3, name="efficientnet_b0"), (3, 64, 64), 49),
    "timm's tf_efficientnet_lite0": (lambda: TimmBackbone(3, name="tf_efficientnet_lite0"), (3, 64, 64), 44),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_fused_features_are_as_near_to_float32_as_bf16_is(name):
    build, shape, operations = BACKBONES[name]
    backbone, batch = with_statistics(build()), images(4, *shape)
    with torch.no_grad():
        expected = backbone(batch)
        with torch.autocast(**BF16):
            separate = backbone(batch)
            graph = fused_graph(backbone)
            assert graph is not None
            together = graph(batch)
    assert sum(isinstance(module, FusedConvolution) for module in graph.modules()) == operations
    assert relative_error(together, expected) < max(1.5 * relative_error(separate, expected), 0.01)


def test_a_block_fuses_and_afterwards_features_have_their_earlier_bits(resnet20):
    batch = images(4, 3, 32, 32)
    with torch.no_grad(), torch.autocast(**BF16):
        before = resnet20(batch)
        with fused_convolutions(resnet20):
            within = resnet20(batch)
            assert torch.equal(within, fused_graph(resnet20)(batch))
        assert torch.equal(resnet20(batch), before)
    assert not torch.equal(within, before)
    assert "forward" not in vars(resnet20)


def test_passes_in_float32_with_gradients_or_in_training_are_not_fused(resnet20):
    batch = images(4, 3, 32, 32)
    expected = resnet20(batch)
    with torch.autocast(**BF16):
        expected_bf16 = resnet20(batch)
    with fused_convolutions(resnet20):
        with torch.no_grad():
            assert torch.equal(resnet20(batch), expected)
        with torch.autocast(**BF16):
            features = resnet20(batch)
        assert torch.equal(features, expected_bf16)
        assert features.requires_grad
    training = with_statistics(CifarResNet(3, depth=8)).train()
    with torch.no_grad(), torch.autocast(**BF16), fused_convolutions(training):
        training(batch)
    assert training.bn1.num_batches_tracked == 1


def test_each_block_folds_the_current_weights():
    backbone, batch = with_statistics(CifarResNet(3, depth=8)), images(4, 3, 32, 32)
    with torch.no_grad(), torch.autocast(**BF16):
        with fused_convolutions(backbone):
            first = backbone(batch)
        backbone.bn1.weight.mul_(2)
        with fused_convolutions(backbone):
            assert not torch.equal(backbone(batch), first)


def test_large_batches_are_computed_in_parts(resnet20, monkeypatch):
    batch = images(10, 3, 32, 32)
    with torch.no_grad(), torch.autocast(**BF16):
        graph = fused_graph(resnet20)
        monkeypatch.setattr(fused, "PIXELS_OF_PART", 4 * 32 * 32)
        monkeypatch.setattr(fused, "SMALLEST_PART", 1)
        with fused_convolutions(resnet20):
            features = resnet20(batch)
        assert torch.equal(features, torch.cat([graph(batch[:4]), graph(batch[4:8]), graph(batch[8:])]))


def test_a_backbone_with_hooks_is_not_fused(resnet20):
    calls: list[nn.Module] = []
    handle = resnet20.layer1[0].conv1.register_forward_hook(lambda module, *_: calls.append(module))
    with torch.no_grad(), torch.autocast(**BF16), fused_convolutions(resnet20):
        resnet20(images(4, 3, 32, 32))
    handle.remove()
    assert len(calls) == 1


def test_a_compiled_backbone_is_left_alone():
    backbone = CifarResNet(3, depth=8)
    backbone.compile(backend="eager")
    with fused_convolutions(backbone):
        assert "forward" not in vars(backbone)


def test_an_exception_within_the_block_restores_the_network(resnet20):
    def fail() -> None:
        with fused_convolutions(nn.ModuleList([resnet20])):
            assert "forward" in vars(resnet20)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert "forward" not in vars(resnet20)


def test_maps_narrower_than_a_stride(resnet20):
    batch = images(4, 3, 1, 1)
    with torch.no_grad():
        expected = resnet20(batch)
        with torch.autocast(**BF16), fused_convolutions(resnet20):
            assert relative_error(resnet20(batch), expected) < 0.02


class Toy(Backbone):
    """A convolution and BatchNorm whose forward a test replaces."""

    num_features, map_channels, map_strides = 4, (), ()

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)


class Shared(Toy):
    """Sum of a convolution's output with and without BatchNorm."""

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        return (self.bn(maps) + maps).mean((2, 3))


class Branching(Toy):
    """Operations that depend on values, so that they cannot be traced."""

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        return (self.bn(maps) if maps.mean() > 0 else maps).mean((2, 3))


class Aliased(Toy):
    """Output that a later operation in place changes, which the traced graph does not see."""

    def forward(self, images: Tensor) -> Tensor:
        maps = self.bn(self.conv(images))
        total = maps.flatten(2)
        maps += 5.0
        return total.mean(2)


class Broadcast(Toy):
    """Sum with a term of another shape."""

    def forward(self, images: Tensor) -> Tensor:
        maps = self.bn(self.conv(images))
        return (maps + images.mean((1, 2, 3), keepdim=True)).mean((2, 3))


@pytest.mark.parametrize("kind", [Shared, Branching, Aliased])
def test_other_forwards_compute_as_before(kind):
    torch.manual_seed(0)
    toy = with_statistics(kind())
    batch = images(4, 3, 8, 8)
    with torch.no_grad(), torch.autocast(**BF16):
        expected = toy(batch)
        with fused_convolutions(toy):
            assert torch.equal(toy(batch), expected)
            assert torch.equal(toy(batch), expected)


def test_a_residual_of_another_shape_is_broadcast():
    torch.manual_seed(0)
    toy = with_statistics(Broadcast())
    batch = images(4, 3, 8, 8)
    with torch.no_grad():
        expected = toy(batch)
        with torch.autocast(**BF16), fused_convolutions(toy):
            assert relative_error(toy(batch), expected) < 0.02


def test_a_backbone_whose_shapes_onednn_refuses_computes_as_before(resnet20, monkeypatch):
    def refuse(*arguments: Tensor) -> Tensor:
        raise RuntimeError

    monkeypatch.setattr(FusedConvolution, "forward", refuse)
    with torch.no_grad(), torch.autocast(**BF16):
        expected = resnet20(images(4, 3, 32, 32))
        with fused_convolutions(resnet20):
            assert torch.equal(resnet20(images(4, 3, 32, 32)), expected)


def test_the_input_of_a_convolution_that_changes_before_the_sum_is_read_in_time():
    class Changing(Toy):
        def forward(self, images: Tensor) -> Tensor:
            maps = self.bn(self.conv(images))
            other = torch.relu_(images[:, :1])
            return (maps + other).mean((2, 3))

    torch.manual_seed(0)
    toy = with_statistics(Changing())
    with torch.no_grad(), torch.autocast(**BF16):
        expected = toy(images(4, 3, 8, 8))
        graph = fused_graph(toy)
        assert relative_error(graph(images(4, 3, 8, 8)), expected) < 0.02
