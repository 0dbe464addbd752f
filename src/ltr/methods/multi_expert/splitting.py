"""Backbones cut in two: early stages that all experts share, and late stages of which each expert has its own.

The cut is that of the official codes of RIDE and SADE: after the first of three stages of a CIFAR ResNet, after the
second of four stages of an ImageNet ResNet.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from typing import Any, Literal, NamedTuple

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ltr.errors import ConfigError
from ltr.models.backbones import Backbone, dry_run
from ltr.models.cifar_resnet import BasicBlock, CifarResNet, zero_channels
from ltr.models.digits_net import DigitsNet
from ltr.models.timm_backbone import TimmFeatures
from ltr.models.torchvision_backbone import TorchvisionBackbone

FanMode = Literal["fan_in", "fan_out"]

NARROW = 0.75  # channels of reduced stages, as a share of the backbone's


class Halves(NamedTuple):
    """The two halves of a backbone."""

    trunk: nn.Module  # normalised images to a feature map
    branch: nn.Module  # the feature map to features [B, D]


class MeanPool(nn.Module):
    """Global average pooling, [B, C, H, W] to [B, C]."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean((2, 3))


@functools.singledispatch
def split(backbone: nn.Module) -> Halves:
    """Return the two halves of a backbone, which keep its modules.

    Raises:
        ConfigError: there is no rule where to cut this backbone.
    """
    name = getattr(backbone, "name", type(backbone).__name__)
    raise ConfigError(
        f"backbone {name}: there is no rule which of its stages the experts share. Use backbone=resnet32 or another "
        "CIFAR ResNet, or backbone=timm or torchvision with a ResNet, ResNeXt or wide ResNet"
    )


@split.register
def _(backbone: CifarResNet) -> Halves:
    return Halves(
        _sequence(backbone, "conv1", "bn1", nn.ReLU(inplace=True), "layer1"),
        _sequence(backbone, "layer2", "layer3", MeanPool()),
    )


@split.register
def _(backbone: DigitsNet) -> Halves:
    return Halves(_sequence(backbone, "stage1"), _sequence(backbone, "stage2", "stage3", MeanPool()))


@split.register
def _(backbone: TorchvisionBackbone) -> Halves:
    net = backbone.net
    if not isinstance(net, torchvision.models.ResNet):
        return _refused(backbone)
    return Halves(
        _sequence(net, "conv1", "bn1", "relu", "maxpool", "layer1", "layer2"),
        _sequence(net, "layer3", "layer4", "avgpool", nn.Flatten(1)),
    )


@split.register
def _(backbone: TimmFeatures) -> Halves:
    net = backbone.net
    if not isinstance(net, timm.models.resnet.ResNet):
        return _refused(backbone)
    return Halves(
        _sequence(net, "conv1", "bn1", "act1", "maxpool", "layer1", "layer2"),
        _sequence(net, "layer3", "layer4", "global_pool"),
    )


def _refused(backbone: Backbone) -> Halves:
    return split.dispatch(object)(backbone)


def _sequence(net: nn.Module, *parts: str | nn.Module) -> nn.Sequential:
    """Return submodules by name, and further modules, as a sequence."""
    named = [(part, getattr(net, part)) if isinstance(part, str) else (type(part).__name__, part) for part in parts]
    return nn.Sequential(OrderedDict((name, module) for name, module in named))


@torch.no_grad()
def narrow(halves: Halves, image_shape: tuple[int, int, int], share: float = NARROW, mode: FanMode = "fan_in") -> None:
    """Rebuild the branch in place with ``share`` of its channels and new initial weights.

    One blank image passes through it: each convolution takes as many channels as reach it, and gives ``share`` of those
    that it had. Convolutions are initialised Kaiming-normal.

    Args:
        image_shape: (C, H, W).
        mode: mode of the initialisation, ``fan_in`` or ``fan_out``.
    """
    handles = [
        module.register_forward_pre_hook(functools.partial(_narrow_module, share=share, mode=mode))
        for module in halves.branch.modules()
        if isinstance(module, (nn.Conv2d, _BatchNorm, BasicBlock))
    ]
    parts = nn.ModuleList([halves.trunk, halves.branch])
    modes = [(module, module.training) for module in parts.modules()]
    try:
        parts.eval()
        halves.branch(halves.trunk(torch.zeros(1, *image_shape)))
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training


def _narrow_module(module: nn.Module, inputs: tuple[Tensor, ...], *, share: float, mode: FanMode) -> None:
    channels = inputs[0].shape[1]
    if isinstance(module, nn.Conv2d):
        if module.groups == module.in_channels:  # depthwise
            module.groups = channels
        module.in_channels, module.out_channels = channels, round(module.out_channels * share)
        shape = (module.out_channels, channels // module.groups, *module.kernel_size)
        module.weight = nn.Parameter(nn.init.kaiming_normal_(torch.empty(shape), mode=mode, nonlinearity="relu"))
        if module.bias is not None:
            module.bias = nn.Parameter(torch.zeros(module.out_channels))
    elif isinstance(module, _BatchNorm):
        module.num_features = channels
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.ndim:
                kept = tensor[:channels].clone()
                setattr(module, name, nn.Parameter(kept) if isinstance(tensor, nn.Parameter) else kept)
    elif isinstance(module, BasicBlock):
        widened = round(module.conv2.out_channels * share)
        module.widens = widened != channels
        module.zero_channels = zero_channels(channels, widened, module.shortcut_padding)


def width_of(halves: Halves, image_shape: tuple[int, int, int]) -> int:
    """Return the number of features that the branch gives."""

    def call(images: Tensor) -> Any:
        return halves.branch(halves.trunk(images))

    return dry_run(nn.ModuleList(halves), call, image_shape).shape[1]
