"""Torchvision classification models as backbones, with the outputs of their stages as feature maps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import GoogLeNet, Inception3, SqueezeNet, SwinTransformer, VisionTransformer

from ltr.errors import ConfigError, nearest
from ltr.identity import named
from ltr.models.backbones import (
    Backbone,
    check_one_origin,
    deepest_block,
    download_error,
    dry_run,
    no_feature_maps_error,
    no_final_map_error,
    no_tokens_error,
)
from ltr.models.nearest_architecture import family_of, nearest_architecture
from ltr.models.preprocessing import Preprocessing, torchvision_preprocessing
from ltr.models.published_names import WeightsMap
from ltr.models.weights import Trainable, filters_for_channels

MODELS_WITH_MAPS = ("resnet50", "convnext_tiny", "swin_t")
_SEQUENCES = ("features", "layers", "blocks", "trunk_output")  # torchvision's names for a sequence of stages
_PROBE_SIZE = 224


@named("backbone/torchvision")
class TorchvisionBackbone(Backbone):
    """Torchvision model without its last linear layer and without auxiliary classifiers.

    The maps are the outputs of the last module at each resolution from stride 2 on, read by temporary forward hooks.
    The graph of torchvision's traced feature extractor would fix drop-path at the last call of `train()`, and Lightning
    restores modes after validation without that call.

    Args:
        in_channels: if it is not three, the first convolution is rebuilt; pretrained weights are adapted as those of a
            file are, see `ltr.models.weights.filters_for_channels`.
        name: torchvision's name, such as ``resnet50``.
        pretrained: True downloads torchvision's default weights; otherwise nothing is downloaded.
        weights: local weights file instead of ``pretrained``, see `ltr.models.weights.load_backbone`.

    Raises:
        ConfigError: the name is unknown.
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
    ) -> None:
        super().__init__()
        check_one_origin(pretrained, weights)
        self.name = name
        self.net = _create(name, pretrained)
        self._channels_last = isinstance(self.net, SwinTransformer)
        self.num_prefix_tokens = int(isinstance(self.net, VisionTransformer))
        _remove_classifier(self.net)
        if in_channels != 3:
            _set_in_channels(self.net, in_channels, keep=pretrained)
        features, maps = dry_run(self.net, self._features_and_map_specs, (in_channels, _PROBE_SIZE, _PROBE_SIZE))
        self.num_features = features.shape[1]
        self._map_names = tuple(name for name, _, _ in maps)
        self.map_channels = tuple(channels for _, channels, _ in maps)
        self.map_strides = tuple(stride for _, _, stride in maps)
        self.finish(weights, strict_weights, trainable, into=self.net, weights_map=weights_map)

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def features_and_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        if not self._map_names:
            raise no_feature_maps_error(self.name, MODELS_WITH_MAPS)
        features, outputs = self._record(images, self._map_names)
        maps = [outputs[name] for name in self._map_names]
        return features, [output.permute(0, 3, 1, 2) for output in maps] if self._channels_last else maps

    def final_map(self, images: Tensor) -> Tensor:
        if not self._map_names:
            raise no_final_map_error(self.name)
        if self._channels_last:  # a normalisation stands between the last stage and the pooling
            return self._record(images, ("norm",))[1]["norm"].permute(0, 3, 1, 2)
        return super().final_map(images)

    def tokens(self, images: Tensor) -> Tensor:
        if not isinstance(self.net, VisionTransformer):
            raise no_tokens_error(self.name)
        return self._record(images, ("encoder",))[1]["encoder"]

    def last_block(self) -> nn.Module:
        if self._map_names:
            return deepest_block(self.net, self._map_names[-1])
        return deepest_block(self.net, "encoder.layers")

    def nearest_architecture(self, weights: str) -> str:
        known = torchvision.models.list_models(module=torchvision.models)
        return nearest_architecture(weights, family_of(self.name, known), torchvision.models.get_model)

    @staticmethod
    def preprocessing(config: Mapping[str, Any]) -> Preprocessing | None:
        return torchvision_preprocessing(str(config.get("name")), bool(config.get("pretrained")), config.get("weights"))

    def _record(self, images: Tensor, names: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        outputs: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            return lambda module, inputs, output: outputs.__setitem__(name, output)

        handles = [self.net.get_submodule(name).register_forward_hook(keep(name)) for name in names]
        try:
            return self.net(images), outputs
        finally:
            for handle in handles:
                handle.remove()

    def _features_and_map_specs(self, images: Tensor) -> tuple[Tensor, list[tuple[str, int, int]]]:
        """Return features, and (module name, channels, stride) of the last map at each stride."""
        features, outputs = self._record(images, _candidates(self.net))
        by_stride: dict[int, tuple[str, int, int]] = {}
        for name, output in outputs.items():  # in the order of execution
            if not isinstance(output, Tensor) or output.ndim != 4:
                continue
            channels, height = (output.shape[3], output.shape[1]) if self._channels_last else output.shape[1:3]
            if 1 < height < images.shape[2]:
                # unpadded convolutions give 111 for 224: the nominal stride is the nearest power of two
                stride = 2 ** round(math.log2(images.shape[2] / height))
                by_stride[stride] = (name, channels, stride)
        maps = [by_stride[stride] for stride in sorted(by_stride)]
        return features, maps if len(maps) > 1 else []


def _create(name: str, pretrained: bool) -> nn.Module:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ConfigError(
            f"backbone.name={name}: torchvision {torchvision.__version__} has no such classification model"
            f"{nearest(name, known) or '.'} `torchvision.models.list_models()` lists names."
        )
    options: dict[str, Any] = {}
    if not pretrained and name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}
    try:
        net = torchvision.models.get_model(name, weights="DEFAULT" if pretrained else None, **options)
    except Exception as error:
        if not pretrained:
            raise
        raise download_error(f"torchvision's {name}", "backbone", error) from error
    if isinstance(net, GoogLeNet | Inception3):
        net.aux_logits = False
        for branch in ("aux1", "aux2", "AuxLogits"):
            if hasattr(net, branch):
                setattr(net, branch, None)
    return net


def _remove_classifier(net: nn.Module) -> None:
    if isinstance(net, SqueezeNet):  # its classifier is a convolution followed by pooling
        net.classifier = nn.Sequential(net.classifier[0], nn.AdaptiveAvgPool2d(1))
        return
    path = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)][-1]
    net.set_submodule(path, nn.Identity())


def _set_in_channels(net: nn.Module, in_channels: int, keep: bool) -> None:
    path, old = next((name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d))
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        old.dilation,  # type: ignore[arg-type]
        bias=old.bias is not None,
        padding_mode=old.padding_mode,
    )
    if keep:
        with torch.no_grad():
            new.weight.copy_(filters_for_channels(old.weight, in_channels))
            if new.bias is not None and old.bias is not None:
                new.bias.copy_(old.bias)
    net.set_submodule(path, new)


def _candidates(net: nn.Module) -> tuple[str, ...]:
    """Return names of modules whose outputs may be maps: the children, with sequences of stages expanded."""
    if isinstance(net, VisionTransformer):
        return ()
    names = []
    for name, child in net.named_children():
        if name in _SEQUENCES:
            names += [f"{name}.{inner}" for inner, _ in child.named_children()]
        elif not isinstance(net, SwinTransformer) and not isinstance(child, nn.AdaptiveAvgPool2d):
            names.append(name)
    return tuple(names)
