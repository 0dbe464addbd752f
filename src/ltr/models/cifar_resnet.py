"""ResNet-20/32/44/56 for 32x32 images (He et al., CVPR 2016, section 4.2), the backbone of the CIFAR-LT papers."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ltr.configuration.ranges import check_option
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.models.backbones import Backbone, glorot_convolutions, kaiming_convolutions
from ltr.models.published_names import WeightsMap
from ltr.models.weights import Trainable

Depth = Literal[8, 14, 20, 26, 32, 44, 56, 110]
ShortcutPadding = Literal["both", "after"]
ShortcutReduction = Literal["stride", "average"]
Initial = Literal["glorot"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and an identity shortcut without parameters ("option A").

    If the block widens, the shortcut takes every second pixel and pads the missing channels with zeros. He et al. do
    not specify where the zero channels are, and published weights differ: on ``both`` sides in LDAM-DRW's network,
    ``after`` the other channels in those of M2m and SLA. The class-balanced loss's network takes the ``average`` of
    2 x 2 pixels instead of every second one. The number of parameters is the same, but the weights are not
    interchangeable.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        shortcut_padding: ShortcutPadding,
        shortcut_reduction: ShortcutReduction,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.widens = in_channels != out_channels
        self.shortcut_padding = shortcut_padding
        self.averages = shortcut_reduction == "average"
        self.zero_channels = zero_channels(in_channels, out_channels, shortcut_padding)

    def forward(self, images: Tensor) -> Tensor:
        """Map [B, C_in, H, W] to [B, C_out, H / stride, W / stride]."""
        out = F.relu(self.bn1(self.conv1(images)), inplace=True)
        out = self.bn2(self.conv2(out))
        if self.widens:  # padded, because in bf16 a sum into some of the channels is five times slower on a CPU
            step = self.stride
            smaller = F.avg_pool2d(images, step, ceil_mode=True) if self.averages else images[:, :, ::step, ::step]
            images = F.pad(smaller, (0, 0, 0, 0, *self.zero_channels))
        out += images  # in place: the backward of BatchNorm needs its input, not this output
        return F.relu(out, inplace=True)


def zero_channels(in_channels: int, out_channels: int, shortcut_padding: ShortcutPadding) -> tuple[int, int]:
    """Return the number of zero channels before and after those of a widening shortcut."""
    before = (out_channels - in_channels) // 2 if shortcut_padding == "both" else 0
    return before, out_channels - in_channels - before


@named("backbone/cifar_resnet")
class CifarResNet(Backbone):
    """Three stages of (depth - 2) / 6 blocks with 16, 32, 64 channels at strides 1, 2, 4; 64 features.

    Module names are those of the common PyTorch versions (conv1, bn1, layer1..3), whose files therefore load. Files of
    M2m and SLA are recognised by their tensor names and need ``shortcut_padding=after``.

    Args:
        depth: number of layers, 6n + 2.
        shortcut_padding: position of the zero channels of a widening shortcut: on ``both`` sides (LDAM-DRW), or
            ``after`` the other channels (M2m, SLA).
        shortcut_reduction: pixels of a widening shortcut: ``stride`` takes every second one (LDAM-DRW, M2m, SLA),
            ``average`` the mean of 2 x 2 (the class-balanced loss).
        initial: initial weights of the convolutions: ``glorot``, uniform as in TensorFlow (Glorot and Bengio, AISTATS
            2010; the class-balanced loss); None: Kaiming-normal with the number of inputs, as in LDAM-DRW.

    Raises:
        ConfigError: the depth is not 6n + 2, or an option's value is unknown.
    """

    usual_size = 32

    def __init__(
        self,
        in_channels: int,
        *,
        depth: Depth = 32,
        shortcut_padding: ShortcutPadding = "both",
        shortcut_reduction: ShortcutReduction = "stride",
        initial: Initial | None = None,
        weights: str | None = None,
        weights_map: WeightsMap | None = None,
        strict_weights: bool = True,
        trainable: Trainable = "all",
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ConfigError(f"backbone.depth is {depth}; a CIFAR ResNet has 6n + 2 layers: 20, 32, 44, 56, 110.")
        check_option("backbone.shortcut_padding", shortcut_padding, ShortcutPadding)
        check_option("backbone.shortcut_reduction", shortcut_reduction, ShortcutReduction)
        check_option("backbone.initial", initial, Initial | None)
        blocks = (depth - 2) // 6
        self.shortcut_padding = shortcut_padding
        self.shortcut_reduction = shortcut_reduction
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, 1, blocks, shortcut_padding, shortcut_reduction)
        self.layer2 = _stage(16, 32, 2, blocks, shortcut_padding, shortcut_reduction)
        self.layer3 = _stage(32, 64, 2, blocks, shortcut_padding, shortcut_reduction)
        self.num_features = 64
        self.map_channels = (16, 32, 64)
        self.map_strides = (1, 2, 4)
        if initial == "glorot":
            glorot_convolutions(self)
        else:
            kaiming_convolutions(self)
        self.finish(weights, strict_weights, trainable, weights_map=weights_map)

    def features_and_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        maps = [self.layer1(F.relu(self.bn1(self.conv1(images)), inplace=True))]
        maps.append(self.layer2(maps[-1]))
        maps.append(self.layer3(maps[-1]))
        return maps[-1].mean((2, 3)), maps

    def last_block(self) -> nn.Module:
        return self.layer3[-1]


def _stage(
    in_channels: int,
    out_channels: int,
    stride: int,
    blocks: int,
    shortcut_padding: ShortcutPadding,
    shortcut_reduction: ShortcutReduction,
) -> nn.Sequential:
    def block(in_channels: int, stride: int) -> BasicBlock:
        return BasicBlock(in_channels, out_channels, stride, shortcut_padding, shortcut_reduction)

    return nn.Sequential(block(in_channels, stride), *(block(out_channels, 1) for _ in range(blocks - 1)))
