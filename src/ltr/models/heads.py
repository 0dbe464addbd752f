"""Heads, which map features [B, D] to scaled logits [B, C], whose softmax is the model's probability."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltr.configuration.ranges import Positive, check_option
from ltr.configuration.targets import locate
from ltr.errors import ConfigError
from ltr.identity import named

CLASS_MEANS = "class_means"  # initialisation of a cosine head
ZEROS, GLOROT = "zeros", "glorot"  # initialisations of a linear head

LinearInitial = Literal["zeros", "glorot"]


def head_kind(config: Mapping[str, Any], where: str = "head") -> str | None:
    """Return the kind of head that a config names, such as ``linear`` or ``cosine``; None for a class without one.

    Args:
        where: its key in the configuration, for messages.
    """
    return getattr(locate(config["_target_"], where), "head_kind", None)


@named("head/linear")
class LinearHead(nn.Module):
    """Linear layer with weight [C, D] and an optional bias [C].

    Weights are initialised Kaiming-normal (fan-in, ReLU gain) and the bias uniformly in +-1/sqrt(D), as in LDAM-DRW's
    CIFAR networks; torch's default has about 0.4 times that standard deviation.

    Args:
        bias: False leaves the bias out.
        initial: ``zeros`` initialises weight and bias with 0, which suits a head on frozen features, because a short
            training does not remove the noise of random weights. ``glorot`` initialises the weight uniformly (Glorot
            and Bengio, AISTATS 2010) and the bias with 0, as TensorFlow does; None: as above.
    """

    head_kind = "linear"

    def __init__(
        self, num_features: int, num_classes: int, *, bias: bool = True, initial: LinearInitial | None = None
    ) -> None:
        super().__init__()
        self.initial = initial
        self.num_features = num_features
        self.num_classes = num_classes
        self.weight = nn.Parameter(torch.empty(num_classes, num_features))
        self.bias = nn.Parameter(torch.empty(num_classes)) if bias else None
        self.reset()

    def reset(self, generator: torch.Generator | None = None) -> None:
        """Re-initialise weight and bias from ``generator`` or torch's global generator (classifier re-training)."""
        if self.initial == GLOROT:
            nn.init.xavier_uniform_(self.weight, generator=generator)
        else:
            nn.init.kaiming_normal_(self.weight, generator=generator)
        if self.initial == ZEROS:
            nn.init.zeros_(self.weight)
        if self.bias is not None and self.initial is not None:
            nn.init.zeros_(self.bias)
        elif self.bias is not None:
            bound = 1 / math.sqrt(self.num_features)
            nn.init.uniform_(self.bias, -bound, bound, generator=generator)

    @torch.no_grad()
    def init_bias(self, value: float | Tensor) -> None:
        """Set the bias to a prior, one number or one per class [C], such as -log(C - 1) for sigmoid losses.

        Raises:
            ConfigError: the head has no bias.
        """
        if self.bias is None:
            raise ConfigError("This loss sets the bias of the head to a prior, and head.bias=false. Set head.bias=true")
        self.bias.copy_(torch.as_tensor(value, dtype=self.bias.dtype).expand_as(self.bias))

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight, self.bias)

    @torch.no_grad()
    def weight_norms(self) -> Tensor:
        """Return the norm of each class's weights, float64 [C]; only for heads whose logits depend on it."""
        return self.weight.double().norm(dim=1)

    def linear_map(self) -> tuple[Tensor, Tensor]:
        """Return weight [C, D] and bias [C] of the logits; only for heads that are linear in the features."""
        return self.weight, self.weight.new_zeros(self.num_classes) if self.bias is None else self.bias

    def extra_repr(self) -> str:
        return f"{self.num_features}, {self.num_classes}, bias={self.bias is not None}"


@named("head/cosine")
class CosineHead(nn.Module):
    """Head of scaled cosines between features and class vectors, LDAM's normalised linear layer.

    The weight is [C, D], the transpose of LDAM-DRW's [D, C]. Forward L2-normalises its rows and the features, in
    float32 under autocast. The scale is s in LDAM (Cao et al., NeurIPS 2019), which the official code applies in the
    loss: its network returns cosines, whose softmax is not the trained probability. Rows are initialised uniformly in
    (-1, 1) and then L2-normalised.

    Args:
        scale: factor of the cosines, s in LDAM; 30 in the paper.
        learn_scale: True makes the scale a parameter with this initial value; LDAM's margins keep the initial value.
        initial: initial class vectors: ``class_means`` of the training features, or a file with a vector for each
            class, such as embeddings of their names, see `ltr.methods.core.initial_head`. None: random.
    """

    head_kind = "cosine"
    bias = None

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        scale: Positive = 30.0,
        learn_scale: bool = False,
        initial: str | None = None,
    ) -> None:
        super().__init__()
        check_option("head.scale", scale, Positive)
        self.num_features = num_features
        self.num_classes = num_classes
        self.initial = initial
        self.initial_scale = float(scale)
        self.scale: float | nn.Parameter = nn.Parameter(torch.tensor(float(scale))) if learn_scale else float(scale)
        self.weight = nn.Parameter(torch.empty(num_classes, num_features))
        self.reset()

    @torch.no_grad()
    def reset(self, generator: torch.Generator | None = None) -> None:
        """Re-initialise the class vectors (and a learned scale) from ``generator`` or torch's global generator."""
        nn.init.uniform_(self.weight, -1.0, 1.0, generator=generator)
        self.weight.copy_(F.normalize(self.weight, dim=1))
        if isinstance(self.scale, nn.Parameter):
            self.scale.fill_(self.initial_scale)

    @torch.no_grad()
    def start_from(self, vectors: Tensor) -> None:
        """Set the class vectors to ``vectors`` [C, D], L2-normalised."""
        self.weight.copy_(F.normalize(vectors, dim=1))

    def init_bias(self, value: float | Tensor) -> None:
        """Raise ConfigError, because cosine logits have no bias."""
        raise ConfigError("This loss sets the bias of the head to a prior, and a cosine head has none. Set head=linear")

    def forward(self, features: Tensor) -> Tensor:
        # half precision resolves a cosine to 0.004, which the scale turns into 0.1 of a logit: too coarse for margins
        with torch.autocast(features.device.type, enabled=False):
            wide = torch.promote_types(features.dtype, self.weight.dtype)
            weight = F.normalize(self.weight.to(wide), dim=1)
            return self.scale * F.linear(F.normalize(features.to(wide), dim=1), weight)

    def extra_repr(self) -> str:
        learned = isinstance(self.scale, nn.Parameter)
        return f"{self.num_features}, {self.num_classes}, scale={self.initial_scale}, learn_scale={learned}"
