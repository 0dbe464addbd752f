"""Backbones from objects: any module that maps images to feature vectors."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ltr.errors import ConfigError, first_line
from ltr.models.backbones import Backbone, deepest_block, dry_run
from ltr.models.timm_backbone import TimmFeatures


def backbone_from(in_channels: int, *, module: nn.Module, image_shape: tuple[int, int, int]) -> Backbone:
    """Return a backbone with a copy of a module's layers and weights, without changing the module.

    Args:
        in_channels: C of the images.
        module: a `Backbone`; a timm model, whose classifier is removed; or any module that maps normalised images
            [B, C, H, W] to features [B, D].
        image_shape: (C, H, W) of the images.

    Raises:
        ConfigError: the module does not map such images to one feature vector each.
    """
    module = copy.deepcopy(module)
    if isinstance(module, Backbone):
        return module
    name = type(module).__name__
    try:
        if is_timm_model(module):
            module.reset_classifier(0)  # type: ignore[operator]
            return TimmFeatures(module, name, image_shape)
        return ModuleBackbone(module, image_shape)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"backbone={name}: it cannot be applied to images of shape {list(image_shape)} ({first_line(error)}). It "
            "must take normalised images [B, C, H, W]; set image_size and channels to those that it is made for"
        ) from error


def is_timm_model(module: nn.Module) -> bool:
    """Return whether a module has the methods that all timm models have."""
    return all(hasattr(module, name) for name in ("reset_classifier", "forward_head", "pretrained_cfg"))


class ModuleBackbone(Backbone):
    """Backbone around any module that maps images to feature vectors.

    It has feature maps if the module has `features_and_maps`, ``map_channels`` and ``map_strides`` as in `Backbone`.

    Args:
        image_shape: (C, H, W) of the image with which the width of the features is measured.

    Raises:
        ConfigError: the output is not a feature vector, or its width differs from ``net.num_features``.
    """

    def __init__(self, net: nn.Module, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.net: Any = net
        name = type(net).__name__
        output = dry_run(net, net, image_shape)
        if not isinstance(output, torch.Tensor) or output.ndim != 2:
            shape = list(output.shape) if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
            raise ConfigError(
                f"backbone={name}: its output for one image is {shape}; features [B, D] are needed. End it with a "
                "pooling layer and nn.Flatten(), and leave its classifier out"
            )
        declared = getattr(net, "num_features", None)
        if isinstance(declared, int) and declared != output.shape[1]:
            raise ConfigError(
                f"backbone={name}: its num_features is {declared}, and its output for one image {list(output.shape)}; "
                "both must be the width D of the features. Leave its classifier out, or correct num_features"
            )
        self.num_features = output.shape[1]
        self.map_channels = tuple(getattr(net, "map_channels", ()))
        self.map_strides = tuple(getattr(net, "map_strides", ()))

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def features_and_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        if not self.map_channels:
            raise ConfigError(
                f"backbone={type(self.net).__name__}: this method needs feature maps, which the module does not have. "
                "Give it features_and_maps(images), map_channels and map_strides as in ltr.models.backbones.Backbone, "
                "or pass a timm model or the name of one"
            )
        return self.net.features_and_maps(images)

    def last_block(self) -> nn.Module:
        names = [name for name, child in self.net.named_children() if any(True for _ in child.parameters())]
        return deepest_block(self.net, names[-1]) if names else self.net
