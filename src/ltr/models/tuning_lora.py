"""LoRA by the library peft: low-rank updates of the frozen weights of chosen layers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from torch import nn

from ltr.configuration.ranges import BelowOne, Positive, PositiveInt
from ltr.errors import ConfigError, nearest
from ltr.identity import named
from ltr.models.backbones import Backbone, dry_run
from ltr.models.tuning import ImageShape, Tuning, called_modules

_ADAPTER = "lora"


@named("tune/lora")
class TuneLoRA(Tuning):
    """LoRA (Hu et al., ICLR 2022): W x + alpha / rank * B A x; A [rank, in] is random, B [out, rank] starts at zero.

    A convolution [out, in, k, k] gets A [rank, in, k, k] and B [out, rank, 1, 1]. Layers that are never called (because
    the attention reads their weights) and grouped convolutions cannot be chosen. A fused projection of queries, keys
    and values is one layer, as in timm.

    Args:
        rank: rank of the update.
        alpha: scale of the update, which is divided by ``rank``.
        targets: last parts of the names of the layers, such as ``[qkv, proj, fc1, fc2]``; None: all attention
            projections; if there are none, the 1 x 1 convolutions; if there are none, all convolutions but the first.
        dropout: dropout probability of the input of A.

    Raises:
        ConfigError: peft is missing, or no layer has such a name.
    """

    name = "lora"

    def __init__(
        self,
        *,
        rank: PositiveInt = 8,
        alpha: Positive = 8.0,
        targets: Sequence[str] | None = None,
        dropout: BelowOne = 0.0,
    ) -> None:
        self.rank = rank
        self.alpha = alpha
        self.targets = None if targets is None else tuple(targets)
        self.dropout = dropout

    def prepare(self, backbone: Backbone, image_shape: ImageShape) -> None:
        peft = _peft()
        paths = self.paths(backbone, image_shape)
        backbone.requires_grad_(False)
        config = peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules="|".join(re.escape(path) for path in paths),
        )
        peft.inject_adapter_in_model(config, backbone, adapter_name=_ADAPTER)

    def paths(self, backbone: Backbone, image_shape: ImageShape) -> list[str]:
        """Return the paths of the chosen layers.

        Raises:
            ConfigError: no layer has such a name.
        """
        layers = _layers(backbone, image_shape)
        if self.targets is None:
            return _usual(layers)
        names = list(dict.fromkeys(path.rpartition(".")[2] for path in layers))
        unknown = [target for target in self.targets if target not in names]
        if unknown or not self.targets:
            wrong = "".join(unknown[:1])
            raise ConfigError(
                f"tune.targets={list(self.targets)}: {type(backbone).__name__} calls no layer '{wrong}'; layers that "
                f"take an update are called {', '.join(names)}{nearest(wrong, names)}"
            )
        return [path for path in layers if path.rpartition(".")[2] in self.targets]

    def merge(self, backbone: Backbone) -> None:
        from peft.tuners.lora import LoraLayer

        for path, layer in list(backbone.named_modules()):
            if isinstance(layer, LoraLayer):
                layer.merge()
                backbone.set_submodule(path, layer.get_base_layer())


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ConfigError(
            f"tune=lora needs the package peft, which cannot be imported ({error}). Install it with "
            "pip install 'ltr[tune]', or use tune=adapter, norm or bias, which need nothing"
        ) from error
    return peft


def _layers(backbone: Backbone, image_shape: ImageShape) -> dict[str, nn.Linear | nn.Conv2d]:
    """Return the layers that can have an update, by path."""
    kinds = (nn.Linear, nn.Conv2d)
    called = called_modules(backbone, kinds, lambda: dry_run(backbone, backbone, image_shape))
    layers: dict[str, Any] = {path: backbone.get_submodule(path) for path in called}
    return {path: layer for path, layer in layers.items() if getattr(layer, "groups", 1) == 1}


def _usual(layers: dict[str, nn.Linear | nn.Conv2d]) -> list[str]:
    attention_layers = [
        path for path, layer in layers.items() if isinstance(layer, nn.Linear) and "attn" in path.split(".")[-2:-1]
    ]
    pointwise = [
        path for path, layer in layers.items() if isinstance(layer, nn.Conv2d) and math.prod(layer.kernel_size) == 1
    ]
    convolutions = [path for path, layer in layers.items() if isinstance(layer, nn.Conv2d)][1:]
    return attention_layers or pointwise or convolutions or list(layers)
