"""`classifier32`, the nine-layer network of open-set papers for 32x32 images (Neal et al., ECCV 2018)."""

from __future__ import annotations

from torch import Tensor, nn

from ltr.configuration.ranges import BelowOne, PositiveInt
from ltr.identity import named
from ltr.models.backbones import Backbone
from ltr.models.published_names import WeightsMap
from ltr.models.weights import Trainable


@named("backbone/classifier32")
class Classifier32(Backbone):
    """Nine 3x3 convolutions in three groups; the last of each group halves the image; average pooling; 128 features.

    Channels 64, 64, 128 | 128, 128, 128 | 128, 128, ``feature_dim``; each convolution is followed by BatchNorm and
    LeakyReLU(0.2), and Dropout2d(0.2) precedes each group. Convolutions are initialised from N(0, 0.05), BatchNorm
    weights from N(1, 0.02), as in the code of ARPL (Chen et al., TPAMI 2021). 64x64 images
    (Tiny-ImageNet) also work. The papers use a classifier without bias (``head.bias=false``).

    Args:
        feature_dim: width of the last convolution and of the features.
        dropout: dropout probability of channels before each of the three groups.
    """

    usual_size = 32

    def __init__(
        self,
        in_channels: int,
        *,
        feature_dim: PositiveInt = 128,
        dropout: BelowOne = 0.2,
        weights: str | None = None,
        weights_map: WeightsMap | None = None,
        strict_weights: bool = True,
        trainable: Trainable = "all",
    ) -> None:
        super().__init__()
        self.group1 = _group((in_channels, 64, 64, 128), dropout)
        self.group2 = _group((128, 128, 128, 128), dropout)
        self.group3 = _group((128, 128, 128, feature_dim), dropout)
        self.num_features = feature_dim
        self.map_channels = (128, 128, feature_dim)
        self.map_strides = (2, 4, 8)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.05)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)
        self.finish(weights, strict_weights, trainable, weights_map=weights_map)

    def features_and_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        maps = [self.group1(images)]
        maps.append(self.group2(maps[-1]))
        maps.append(self.group3(maps[-1]))
        return maps[-1].mean((2, 3)), maps

    def last_block(self) -> nn.Module:
        return self.group3


def _group(channels: tuple[int, int, int, int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Dropout2d(dropout)]
    for position in range(3):
        stride = 2 if position == 2 else 1
        layers += [
            nn.Conv2d(channels[position], channels[position + 1], 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels[position + 1]),
            nn.LeakyReLU(0.2, inplace=True),
        ]
    return nn.Sequential(*layers)
