"""Outputs of a frozen backbone for an image: one vector, its last feature map, or its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from ltr.models.backbones import Backbone, dry_run

Kind = Literal["vector", "map", "tokens"]


@dataclass(frozen=True)
class BackboneOutput:
    """An output of a backbone by its kind.

    Attributes:
        kind: ``vector`` [D]; ``map`` [C, H, W], the last feature map, which the network's own pooling reads; ``tokens``
            [N, D] of a vision transformer.
        prefix_tokens: keep the tokens before those of the patches (class token, registers), of ``tokens``.
    """

    kind: Kind = "vector"
    prefix_tokens: bool = False

    @classmethod
    def of(cls, features: Mapping[str, Any] | None) -> BackboneOutput:
        """Return the output that a stage's settings of stored features name; the vector without such settings."""
        features = features or {}
        return cls(features.get("output", "vector"), features.get("prefix_tokens", False))

    @property
    def is_vector(self) -> bool:
        return self.kind == "vector"

    def __call__(self, backbone: Backbone, images: Tensor) -> Tensor:
        """Return the output of normalised images [B, C, H, W].

        Raises:
            ConfigError: the backbone has no such output.
        """
        if self.kind == "map":
            return backbone.final_map(images)
        if self.kind == "tokens":
            tokens = backbone.tokens(images)
            return tokens if self.prefix_tokens else tokens[:, backbone.num_prefix_tokens :]
        return backbone(images)

    def shape(self, backbone: Backbone, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """Return the shape of one image's output; see `__call__`."""
        if self.is_vector:
            return (backbone.num_features,)
        return tuple(dry_run(backbone, lambda images: self(backbone, images), image_shape).shape[1:])

    def width(self, backbone: Backbone, image_shape: tuple[int, int, int]) -> int:
        """Return the number of channels of a position of a map, or the width of a token or vector."""
        shape = self.shape(backbone, image_shape)
        return shape[0] if self.kind == "map" else shape[-1]

    def spec(self) -> dict[str, Any]:
        """Return what of it determines a table of features; {} for vectors, as in earlier versions."""
        if self.is_vector:
            return {}
        return {"output": self.kind} | ({"prefix_tokens": self.prefix_tokens} if self.kind == "tokens" else {})


def local_features(output: Tensor) -> Tensor:
    """Return maps [B, C, H, W] or tokens [B, N, D] as local features [B, N, D]."""
    return output.flatten(2).transpose(1, 2) if output.ndim == 4 else output


VECTOR = BackboneOutput()
