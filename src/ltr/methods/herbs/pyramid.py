"""HERBS's pyramid: levels from the feature maps of any backbone, top-down and bottom-up paths, location classifiers.

Levels are maps [B, H, W, C], channels last in memory as in the index, so that per-location operations are linear
layers. Only the released code's mixing of locations depends on the input size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltr.errors import ConfigError
from ltr.models.backbones import Backbone, dry_run

Size = tuple[int, int]
MAX_WIDTH = 1536  # width of the paper's paths, and channels of Swin-L's last map


def backbone_map_sizes(backbone: Backbone, image_shape: tuple[int, int, int]) -> list[Size]:
    """Return (H, W) of the backbone's feature maps for images (C, H, W), finest first.

    Raises:
        ConfigError: a backbone without feature maps, or one that is built for another image size.
    """
    if not backbone.map_channels:
        backbone.feature_maps(torch.empty(0))  # raises, naming backbones that have maps
    try:
        maps = dry_run(backbone, backbone.feature_maps, image_shape)
    except (AssertionError, RuntimeError) as error:
        raise ConfigError(
            f"the backbone takes no images of {image_shape[1]} x {image_shape[2]} pixels ({error}). One that is built "
            f"for a size needs backbone.img_size={image_shape[1]}; others may need larger images"
        ) from error
    return [(feature_map.shape[2], feature_map.shape[3]) for feature_map in maps]


class BatchNormOfLocations(nn.BatchNorm1d):
    """BatchNorm with statistics over all locations of all images."""

    def forward(self, level: Tensor) -> Tensor:
        """Normalise a level [..., C]."""
        return super().forward(level.flatten(0, -2)).view_as(level)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": nn.Identity,
    "layer": nn.LayerNorm,
    "batch": BatchNormOfLocations,
}


class Levels(nn.Module):
    """The levels of a network: some of the backbone's feature maps, each brought to the stride of its level.

    ``merged`` gives the strides of the papers' Swin, which outputs each map after the merging of 2x2 locations before
    the next stage: maps at strides 4, 8, 16, 32 become levels at strides 8, 16, 32, 32. Merging is a rearrangement to
    four times the channels, which the next linear layer mixes. Maps of equal stride (of a vision transformer) become a
    simple pyramid: stride s becomes s / 2, s, 2 s, 2 s, the finer one by a transposed convolution (Li et al., ECCV
    2022). ``stages`` uses all maps unchanged.

    Args:
        backbone: determines strides and channels.
        count: largest number of levels; the coarsest maps are used.
        maps: ``merged`` or ``stages``.
        kept: number of coarsest levels to keep; None: all.
        norm: ``layer`` is a LayerNorm over a location's channels, as in Swin's patch merging before its linear layer;
            ``batch`` a BatchNorm, for backbones without normalisation, which preserves differences in the norm of
            features between locations; ``merging`` a LayerNorm on merged levels only, which with the following linear
            layer is Swin's patch merging; ``none`` omits normalisation.

    Attributes:
        channels: C of each level, finest first.
        merged_channels: C of each level in the papers' code, whose patch merging reduces 4 C to 2 C.
    """

    def __init__(
        self, backbone: Backbone, count: int, maps: str = "merged", kept: int | None = None, norm: str = "none"
    ) -> None:
        super().__init__()
        strides = backbone.map_strides[-count:]
        self.count = min(len(strides), kept or count)
        targets = (_targets(strides) if maps == "merged" else list(strides))[-self.count :]
        strides, channels = strides[-self.count :], backbone.map_channels[-self.count :]
        self.merges = [max(1, round(target / stride)) for target, stride in zip(targets, strides)]
        finer = [target < stride for target, stride in zip(targets, strides)]
        self.splits = nn.ModuleList(
            nn.Linear(width, 4 * max(1, width // 2)) if split else nn.Identity()
            for width, split in zip(channels, finer)
        )
        self.finer = finer
        self.channels = tuple(
            max(1, width // 2) if split else width * merge**2
            for width, split, merge in zip(channels, finer, self.merges)
        )
        self.merged_channels = tuple(
            channels // merge if merge > 1 else channels for channels, merge in zip(self.channels, self.merges)
        )
        self.norms = nn.ModuleList(
            NORMS[("layer" if merge > 1 else "none") if norm == "merging" else norm](channels)
            for channels, merge in zip(self.channels, self.merges)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the levels [B, H_l, W_l, C_l] of the backbone's maps [B, C, H, W]."""
        levels = []
        for feature_map, split, finer, merge in zip(maps[-self.count :], self.splits, self.finer, self.merges):
            level = feature_map.permute(0, 2, 3, 1)
            levels.append(_split(split(level)) if finer else _merge(level, merge))
        return [norm(level) for norm, level in zip(self.norms, levels)]

    def sizes(self, map_sizes: Sequence[Size]) -> list[Size]:
        """Return (H, W) of the levels for maps of these sizes."""
        return [
            (2 * h, 2 * w) if finer else (-(-h // merge), -(-w // merge))
            for (h, w), finer, merge in zip(map_sizes[-self.count :], self.finer, self.merges)
        ]


def _targets(strides: Sequence[int]) -> list[float]:
    if len(strides) > 1 and len(set(strides)) == 1:
        stride = strides[0]
        pyramid = [stride / 2, stride, 2 * stride, 2 * stride]
        return [stride / 2] * (len(strides) - 4) + pyramid[-len(strides) :]
    return [*map(float, strides[1:]), float(strides[-1])]


def _merge(level: Tensor, factor: int) -> Tensor:
    """Rearrange [B, H, W, C] to [B, H / f, W / f, f^2 C], with zero padding at the border."""
    if factor == 1:
        return level
    level = F.pad(level, (0, 0, 0, -level.shape[2] % factor, 0, -level.shape[1] % factor))
    images, height, width, channels = level.shape
    blocks = level.reshape(images, height // factor, factor, width // factor, factor, channels)
    return blocks.permute(0, 1, 3, 2, 4, 5).flatten(3)


def _split(level: Tensor) -> Tensor:
    """Rearrange [B, H, W, 4 C] to [B, 2 H, 2 W, C]."""
    images, height, width, channels = level.shape
    blocks = level.reshape(images, height, width, 2, 2, channels // 4)
    return blocks.permute(0, 1, 3, 2, 4, 5).reshape(images, 2 * height, 2 * width, channels // 4)


def resample(level: Tensor, size: Size) -> Tensor:
    """Resample [B, h, w, D] to [B, H, W, D], by bilinear interpolation to larger sizes and area means to smaller."""
    if level.shape[1:3] == size:
        return level
    channels_first = level.permute(0, 3, 1, 2)  # a view of channels_last memory
    if size[0] > level.shape[1]:
        resized = F.interpolate(channels_first, size=size, mode="bilinear", align_corners=False)
    else:
        resized = F.adaptive_avg_pool2d(channels_first, size)
    return resized.permute(0, 2, 3, 1)


class Resampling(nn.Module):
    """Layer that resamples a level without parameters, see `resample`."""

    def forward(self, level: Tensor, size: Size) -> Tensor:
        return resample(level, size)


class LocationMixing(nn.Module):
    """Resampling of the released code: every output location is a learned sum over all locations of the map.

    The weights are for a single input size.
    """

    def __init__(self, in_size: Size, out_size: Size) -> None:
        super().__init__()
        self.mixing = nn.Linear(in_size[0] * in_size[1], out_size[0] * out_size[1])

    def forward(self, level: Tensor, size: Size) -> Tensor:
        """Resample [B, h, w, D] to [B, H, W, D]."""
        if level.shape[1] * level.shape[2] != self.mixing.in_features:
            raise ConfigError(
                f"method.resampling=learned: the weights are for {self.mixing.in_features} locations, and these images "
                f"give {level.shape[1]} x {level.shape[2]}. Use the image size of the training, or train with "
                "method.resampling=interpolate"
            )
        mixed = self.mixing.weight @ level.flatten(1, 2) + self.mixing.bias.unsqueeze(1)
        return mixed.unflatten(1, size)


class Path(nn.Module):
    """Path through the levels: projects each level and adds the resampled previous level to it.

    A projection is Linear-ReLU-Linear, from a level's channels to a hidden width and to the width of the path. A
    top-down path runs from the coarsest level to the finest, a bottom-up path in the other direction (as in PAN, Liu et
    al., CVPR 2018).

    Args:
        channels: channels of the levels, finest first.
        width: D of all output levels.
        top_down: the direction.
        hidden: width of each level's hidden layer; None: the level's channels.
        mixing_sizes: None resamples by interpolation; sizes of the levels choose `LocationMixing`.
        mix_equal: use ``mixing_sizes`` also between levels of equal size; False adds such levels directly.
        init: ``pytorch`` is the default of linear layers, which shrinks features with every layer; ``he`` (He et al.,
            ICCV 2015) preserves their scale through the projections.
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int,
        *,
        top_down: bool,
        hidden: Sequence[int] | None = None,
        mixing_sizes: Sequence[Size] | None = None,
        mix_equal: bool = True,
        init: str = "pytorch",
    ) -> None:
        super().__init__()
        self.top_down = top_down
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Linear(c, h), nn.ReLU(inplace=True), nn.Linear(h, width))
            for c, h in zip(channels, channels if hidden is None else hidden, strict=True)
        )
        order = self._order(len(channels))
        self.steps = nn.ModuleList(
            Resampling()
            if mixing_sizes is None or (mixing_sizes[source] == mixing_sizes[target] and not mix_equal)
            else LocationMixing(mixing_sizes[source], mixing_sizes[target])
            for source, target in pairwise(order)
        )
        if init == "he":
            layers = [layer for layer in self.projections.modules() if isinstance(layer, nn.Linear)]
            for number, layer in enumerate(layers):  # pairs of layers with a ReLU between them
                nn.init.kaiming_normal_(layer.weight, nonlinearity="linear" if number % 2 else "relu")
                nn.init.zeros_(layer.bias)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return the levels [B, H, W, D] of the path for levels [B, H, W, C_l], in the same order."""
        projected = [project(level) for project, level in zip(self.projections, levels, strict=True)]
        order = self._order(len(projected))
        for step, (source, target) in zip(self.steps, pairwise(order)):
            projected[target] = projected[target] + step(projected[source], projected[target].shape[1:3])
        return projected

    def _order(self, count: int) -> list[int]:
        return list(range(count))[:: -1 if self.top_down else 1]


class LinearLocations(nn.Linear):
    """Location classifier of HERBS, equation 1: W f + b."""


class ConvolvedLocations(nn.Module):
    """Location classifier of the released code: 1x1 convolution, BatchNorm, ReLU, 1x1 convolution."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.norm = BatchNormOfLocations(width)
        self.out = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits [..., C] of features [..., D]."""
        return self.out(F.relu(self.norm(self.hidden(features)), inplace=True))


CLASSIFIERS: dict[str, Callable[[int, int], nn.Module]] = {"linear": LinearLocations, "conv": ConvolvedLocations}


class Pyramid(nn.Module):
    """Levels and the paths through them.

    Args:
        backbone: determines strides and channels.
        sizes: (H, W) of its maps, see `backbone_map_sizes`.
        paths: ``both``, ``top_down`` (PIM) or ``none``, which outputs the levels unchanged.
        count, maps, kept, norm: see `Levels`.
        width: width of the paths; None: the channels of the coarsest map, at most `MAX_WIDTH`.
        hidden_width: width of the top-down projections: ``level``, `Levels.merged_channels`, as in the papers' code;
            ``path``, the path's width.
        learned_mixing: paths resample by `LocationMixing`.
        mix_equal_levels: use `LocationMixing` also between levels of equal size.
        init: initialisation of the paths, see `Path`.

    Attributes:
        sizes: (H, W) of the levels.
        widths: channels of each output level.
    """

    def __init__(
        self,
        backbone: Backbone,
        sizes: Sequence[Size],
        *,
        paths: str,
        count: int,
        maps: str,
        kept: int | None = None,
        width: int | None = None,
        hidden_width: str = "level",
        learned_mixing: bool = False,
        mix_equal_levels: bool = True,
        init: str = "pytorch",
        norm: str = "none",
    ) -> None:
        super().__init__()
        self.levels = Levels(backbone, count, maps, kept, norm)
        self.sizes = self.levels.sizes(sizes)
        channels = self.levels.channels
        width = min(backbone.map_channels[-1], MAX_WIDTH) if width is None else width
        self.widths = channels if paths == "none" else (width,) * len(channels)
        mixing = self.sizes if learned_mixing else None
        hidden = self.levels.merged_channels if hidden_width == "level" else (width,) * len(channels)
        path = partial(Path, width=width, mixing_sizes=mixing, mix_equal=mix_equal_levels, init=init)
        self.top_down = None if paths == "none" else path(channels, top_down=True, hidden=hidden)
        self.bottom_up = path(self.widths, top_down=False) if paths == "both" else None

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the levels of the first path (empty if there is only one path) and of the last path."""
        levels = self.levels(maps)
        if self.top_down is not None:
            levels = self.top_down(levels)
        return ([], levels) if self.bottom_up is None else (levels, self.bottom_up(levels))
