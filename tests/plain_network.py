"""A small backbone without batch normalisation, for comparing processes with one: every image counts by itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ltr.models.backbones import Backbone, kaiming_convolutions


class PlainNet(Backbone):
    """Two convolutions; a share of the features is dropped where ``dropout`` says so."""

    def __init__(self, in_channels: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(nn.Conv2d(in_channels, 8, 3, 2, padding=1), nn.ReLU())
        self.stage2 = nn.Sequential(nn.Conv2d(8, 16, 3, 2, padding=1), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.num_features = 16
        self.map_channels = (8, 16)
        self.map_strides = (2, 4)
        kaiming_convolutions(self)
        self.finish(None, True, "all")

    def features_and_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        maps = [self.stage1(images)]
        maps.append(self.stage2(maps[-1]))
        return self.dropout(maps[-1].mean((2, 3))), maps

    def last_block(self) -> nn.Module:
        return self.stage2


class SingleValueNet(PlainNet):
    """Network with batch-normalised features: an image gives one value per channel, from which it cannot learn."""

    def __init__(self, in_channels: int, *, dropout: float = 0.0) -> None:
        super().__init__(in_channels, dropout=dropout)
        self.norm = nn.BatchNorm1d(16)

    def features_and_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        features, maps = super().features_and_maps(images)
        return self.norm(features), maps


class FrozenNet(PlainNet):
    """Network without trained parameters."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels)
        self.requires_grad_(False)


class TokenNet(PlainNet):
    """A class token before the patches: the mean of them."""

    num_prefix_tokens = 1

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels)

    def tokens(self, images: Tensor) -> Tensor:
        patches = self.stage2(self.stage1(images)).flatten(2).transpose(1, 2)
        return torch.cat([patches.mean(1, keepdim=True), patches], 1)
