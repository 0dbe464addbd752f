"""Small network for 8x8 digits: three convolutions, trained in seconds on a CPU."""

from __future__ import annotations

from torch import Tensor, nn

from ltr.identity import named
from ltr.models.backbones import Backbone, kaiming_convolutions
from ltr.models.published_names import WeightsMap
from ltr.models.weights import Trainable


@named("backbone/digits_net")
class DigitsNet(Backbone):
    """Three 3x3 convolutions with BatchNorm (32, 48, 64 channels at strides 1, 2, 4) and average pooling.

    It has about 42,000 parameters and 64 features, and takes images of 4x4 pixels or more.
    """

    usual_size = 8

    def __init__(
        self,
        in_channels: int,
        *,
        weights: str | None = None,
        weights_map: WeightsMap | None = None,
        strict_weights: bool = True,
        trainable: Trainable = "all",
    ) -> None:
        super().__init__()
        self.stage1 = _stage(in_channels, 32, 1)
        self.stage2 = _stage(32, 48, 2)
        self.stage3 = _stage(48, 64, 2)
        self.num_features = 64
        self.map_channels = (32, 48, 64)
        self.map_strides = (1, 2, 4)
        kaiming_convolutions(self)
        self.finish(weights, strict_weights, trainable, weights_map=weights_map)

    def features_and_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        maps = [self.stage1(images)]
        maps.append(self.stage2(maps[-1]))
        maps.append(self.stage3(maps[-1]))
        return maps[-1].mean((2, 3)), maps

    def last_block(self) -> nn.Module:
        return self.stage3


def _stage(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))
