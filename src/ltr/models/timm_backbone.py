"""Timm models as backbones, with feature maps from timm's `forward_intermediates`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

from ltr.configuration.ranges import BelowOne, PositiveInt, check_option
from ltr.errors import ConfigError, first_line, nearest
from ltr.identity import named
from ltr.models.backbones import (
    Backbone,
    ImageSizeError,
    check_one_origin,
    deepest_block,
    download_error,
    dry_run,
    no_feature_maps_error,
    no_final_map_error,
    no_tokens_error,
)
from ltr.models.hub_weights import HUB, other_architecture
from ltr.models.nearest_architecture import family_of, nearest_architecture
from ltr.models.preprocessing import Preprocessing, timm_preprocessing
from ltr.models.published_names import WeightsMap
from ltr.models.state_file import State
from ltr.models.weights import Trainable, seeded_construction

Pool = Literal["cls", "mean", "max"]
POOLS: dict[Pool, str] = {"cls": "token", "mean": "avg", "max": "max"}  # timm's names
MODELS_WITH_MAPS = ("resnet50", "convnext_tiny", "swin_tiny_patch4_window7_224")


class TimmFeatures(Backbone):
    """Timm model without a classifier, built by the caller.

    A plain vision transformer has one resolution: its maps are the tokens after a quarter, a half, three quarters and
    all of its blocks, at the stride of the patches.

    Args:
        name: timm's name of the model, for messages.
        image_shape: (C, H, W) of the image with which widths and strides are measured.
    """

    def __init__(self, net: Any, name: str, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.name = name
        self.net: Any = net
        self._map_indices = _map_indices(net)
        maps: list[Tensor] = []
        if self._map_indices:
            features, maps = dry_run(net, self._net_features_and_maps, image_shape)
        else:
            features = dry_run(net, net, image_shape)
        self.map_channels = tuple(level.shape[1] for level in maps)
        self.map_strides = tuple(
            _stride(int(net.feature_info[index]["reduction"]), image_shape[1] / level.shape[2])
            for index, level in zip(self._map_indices, maps, strict=True)
        )
        self.num_features = features.shape[1]
        self.num_prefix_tokens = int(getattr(net, "num_prefix_tokens", 0))

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def features_and_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        if not self._map_indices:
            raise no_feature_maps_error(self.name, MODELS_WITH_MAPS)
        return self._net_features_and_maps(images)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        if not self._map_indices:
            raise no_feature_maps_error(self.name, MODELS_WITH_MAPS)
        return self.net.forward_intermediates(images, indices=self._map_indices, intermediates_only=True)

    def final_map(self, images: Tensor) -> Tensor:
        output = self.net.forward_features(images)
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise no_final_map_error(self.name)
        return output.permute(0, 3, 1, 2) if getattr(self.net, "output_fmt", "NCHW") == "NHWC" else output

    def tokens(self, images: Tensor) -> Tensor:
        output = self.net.forward_features(images)
        if not isinstance(output, Tensor) or output.ndim != 3:
            raise no_tokens_error(self.name)
        return output

    def last_block(self) -> nn.Module:
        info = getattr(self.net, "feature_info", None)
        path = info[-1]["module"] if info else [name for name, _ in self.net.named_children()][-1]
        return deepest_block(self.net, path)

    def _net_features_and_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        final, maps = self.net.forward_intermediates(images, indices=self._map_indices)
        return self.net.forward_head(final), maps


@named("backbone/timm")
class TimmBackbone(TimmFeatures):
    """Timm model by name, without its classifier; see `TimmFeatures`.

    Args:
        in_channels: if it is not three, timm averages or repeats the pretrained weights of the first layer.
        name: timm's name, with or without a tag (``resnet50``, ``resnet50.a1_in1k``).
        pretrained: True downloads timm's weights for this name; otherwise nothing is downloaded.
        weights: weights file instead of ``pretrained``, see `ltr.models.weights.load_backbone`, or
            ``local-dir:FOLDER`` or ``hf-hub:OWNER/NAME``, see `ltr.models.hub_weights`. Files are renamed and resized
            (position embeddings of another image size) as in timm.
        drop_path: stochastic depth rate of the last block; 0 keeps the model's default.
        pool: features of a vision transformer: ``cls`` is the class token, ``mean`` and ``max`` pool over all other
            tokens (in a convolutional network, over its last map); None is the model's default.
        img_size: side of the images in pixels, or [H, W], for models with a fixed size (Swin, ViT); None keeps the
            model's size, see `options_for`.

    Raises:
        ConfigError: the name is unknown, or the model lacks an option.
        CheckpointError: the weights cannot be downloaded or do not fit.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        name: str,
        pretrained: bool = False,
        weights: str | None = None,
        weights_map: WeightsMap | None = None,
        strict_weights: bool = True,
        trainable: Trainable = "all",
        drop_path: BelowOne = 0.0,
        pool: Pool | None = None,
        img_size: PositiveInt | Sequence[PositiveInt] | None = None,
    ) -> None:
        check_one_origin(pretrained, weights)
        options: dict[str, Any] = {}
        if drop_path:
            options["drop_path_rate"] = drop_path
        if img_size is not None:
            options["img_size"] = img_size if isinstance(img_size, int) else tuple(img_size)
        net = _create(name, pretrained, in_channels, options)
        made_for = img_size or net.pretrained_cfg["input_size"][1:]
        height, width = (made_for, made_for) if isinstance(made_for, int) else tuple(made_for)
        try:
            super().__init__(net, name, (in_channels, height, width))
        except Exception as error:
            if img_size is None:
                raise
            raise _wrong_size(name, img_size, error) from error
        classifier = self.net.pretrained_cfg.get("classifier") or ()
        self.finish(
            weights,
            strict_weights,
            trainable,
            into=self.net,
            classifier_names=(classifier,) if isinstance(classifier, str) else tuple(classifier),
            convert=self._convert,
            weights_map=weights_map,
        )
        if pool is not None:  # after loading, because the weights may include layers that this removes
            _set_pool(self.net, name, pool)

    @staticmethod
    def options_for(config: Mapping[str, Any], image_shape: tuple[int, int, int]) -> dict[str, Any]:
        """Return the images' ``img_size`` for a model with another fixed size.

        Position embeddings and relative position tables of pretrained weights or of a file are then resized.
        """
        if config.get("img_size") is not None or not needs_img_size(str(config.get("name")), image_shape):
            return {}
        _, height, width = image_shape
        return {"img_size": height if height == width else (height, width)}

    def nearest_architecture(self, weights: str) -> str:
        if stored := other_architecture(weights, self.name):
            return stored
        relatives = family_of(self.name, timm.list_models())
        return nearest_architecture(weights, relatives, lambda name: timm.create_model(name, pretrained=False))

    @staticmethod
    def preprocessing(config: Mapping[str, Any]) -> Preprocessing | None:
        return timm_preprocessing(str(config.get("name")), bool(config.get("pretrained")), config.get("weights"))

    def _convert(self, state: State) -> State:
        convert = getattr(sys.modules[type(self.net).__module__], "checkpoint_filter_fn", None)
        return convert(state, self.net) if convert else state


def _wrong_size(name: str, img_size: Any, error: Exception) -> ImageSizeError:
    published = timm.get_pretrained_cfg(name)
    made_for = "" if published is None else f" It is made for images of {published.input_size[1]} pixels."
    return ImageSizeError(f"timm's {name} cannot be built with img_size={img_size} ({first_line(error)}).{made_for}")


@functools.lru_cache(maxsize=64)
def needs_img_size(name: str, image_shape: tuple[int, int, int]) -> bool:
    """Return whether a model must be built with ``img_size`` to take images of this shape."""
    if name.startswith(HUB) or not timm.is_model(name):
        return False
    published = timm.get_pretrained_cfg(name)
    if published is None or not published.fixed_input_size or tuple(published.input_size[1:]) == image_shape[1:]:
        return False
    for device in ("meta", "cpu"):  # some models need tensors with values
        try:
            with seeded_construction(0), torch.device(device):
                net = timm.create_model(name, num_classes=0, in_chans=image_shape[0])
            dry_run(net, net, image_shape)
            return False
        except AssertionError:
            return True
        except Exception:  # the shapes do not fit
            continue
    return True


def _create(name: str, pretrained: bool, in_channels: int, options: dict[str, Any]) -> Any:
    on_hub = name.startswith(HUB)
    if on_hub and not pretrained:
        raise ConfigError(
            f"backbone.name={name} is a model on a hub, and even its architecture must be downloaded. Set "
            "backbone.pretrained=true to allow the download, or name a model of timm."
        )
    if not on_hub and not timm.is_model(name):
        bare = name.split(".")[0]
        raise ConfigError(
            f"backbone.name={name}: timm {timm.__version__} has no such model"
            f"{nearest(bare, timm.list_models()) or '.'} `timm.list_models('*part*')` lists names."
        )
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=in_channels, **options)
    except TypeError as error:
        if not options:
            raise
        keys = {"drop_path_rate": "drop_path"}  # timm's name -> ours
        passed = ", ".join(f"backbone.{keys.get(key, key)}={value}" for key, value in options.items())
        raise ConfigError(f"timm's {name} does not take one of {passed} ({error}).") from error
    except Exception as error:
        if not pretrained:
            if "img_size" not in options:
                raise
            raise _wrong_size(name, options["img_size"], error) from error
        raise download_error(f"timm's {name}", "backbone", error) from error


def _set_pool(net: Any, name: str, pool: Pool) -> None:
    check_option("backbone.pool", pool, Pool | None)
    has_class_token = any(getattr(net, token, None) is not None for token in ("cls_token", "cls_embed"))
    if pool == "cls" and not has_class_token:
        raise ConfigError(f"backbone.pool=cls: timm's {name} has no class token. Use backbone.pool=mean, or null")
    try:
        net.reset_classifier(0, POOLS[pool])
    except Exception as error:  # models raise different errors
        raise ConfigError(
            f"backbone.pool={pool}: timm's {name} does not support another pooling ({type(error).__name__}). Use "
            "backbone.pool=null"
        ) from error


def _map_indices(net: Any) -> list[int]:
    """Return indices of timm's intermediates: all stages of a pyramid, or four depths at a single resolution."""
    info = getattr(net, "feature_info", None)
    if not info or not hasattr(net, "forward_intermediates"):
        return []
    levels = len(info)
    if levels > 4 and len({level["reduction"] for level in info}) == 1:
        return [quarter * levels // 4 - 1 for quarter in (1, 2, 3, 4)]
    return list(range(levels))


def _stride(declared: int, measured: float) -> int:
    """Return timm's declared stride, unless the measured one (inexact at borders) clearly contradicts it."""
    return declared if 0.7 < measured / declared < 1.5 else round(measured)
