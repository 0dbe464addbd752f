"""Pools: local features of an image, [B, N, D], to one vector per image, whatever the order of the N.

Local features are the positions of a network's last feature map or the tokens of a vision transformer. A pool is a part
of the network: a checkpoint holds it, and images pass through it after the backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ltr.configuration.ranges import Positive, PositiveInt, check_option
from ltr.configuration.unwritten import left_to_subclasses
from ltr.errors import ConfigError
from ltr.identity import named

POOLS = "attentive, average, average_max, gem or max"  # for messages


class Pool(nn.Module):
    """Base class of pools; a subclass sets the attributes and implements `forward`.

    Attributes:
        num_features: width of the pooled vector.
        reads_standardized: ``features.standardize`` applies to the local features, which the pool then reads; False:
            to the pooled vector.

    Args:
        width: D of the local features.
    """

    reads_standardized = False

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    @staticmethod
    def is_trained(options: Mapping[str, Any]) -> bool:
        """Return whether a pool with these options has parameters that are trained."""
        return False

    @left_to_subclasses()
    def forward(self, local: Tensor) -> Tensor:
        """Return the pooled vectors [B, num_features] of local features float [B, N, D]."""
        raise NotImplementedError


@named("pool/average")
class AveragePool(Pool):
    """Mean over the positions: the pooling of most convolutional networks, and of a ViT's "mean of tokens"."""

    def forward(self, local: Tensor) -> Tensor:
        return local.mean(1)


@named("pool/max")
class MaxPool(Pool):
    """Maximum over the positions, channel by channel."""

    def forward(self, local: Tensor) -> Tensor:
        return local.amax(1)


@named("pool/average_max")
class AverageMaxPool(Pool):
    """Mean and maximum over the positions side by side, of width 2 D (timm's ``catavgmax``)."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.num_features = 2 * width

    def forward(self, local: Tensor) -> Tensor:
        return torch.cat([local.mean(1), local.amax(1)], 1)


@named("pool/gem")
class GeMPool(Pool):
    """Generalised mean, (mean_n max(x_n, eps)^p)^(1/p) (Radenovic et al., TPAMI 2019, equation 5).

    p = 1 is the average of what is positive, and a growing p approaches the maximum. Negative features count as eps =
    1e-6, as in the official code, so it suits maps after a ReLU more than tokens.

    Args:
        p: exponent; 3 in the paper.
        learn: train the exponent, one for all channels, from this value.
    """

    eps = 1e-6

    def __init__(self, width: int, *, p: Positive = 3.0, learn: bool = True) -> None:
        super().__init__(width)
        check_option("features.pool.p", p, Positive)
        self.p = nn.Parameter(torch.tensor(float(p))) if learn else float(p)

    @staticmethod
    def is_trained(options: Mapping[str, Any]) -> bool:
        return bool(options.get("learn", True))

    def forward(self, local: Tensor) -> Tensor:
        return local.clamp_min(self.eps).pow(self.p).mean(1).pow(1 / self.p)


@named("pool/attentive")
class AttentivePool(Pool):
    """Cross-attention of one learned query to the local features, as in attentive probing.

    For every head h with its part q_h of the query, and matrices K_h and V_h [D / heads, D],

        a_n = softmax_n(q_h . K_h x_n / sqrt(D / heads)),   y_h = sum_n a_n V_h x_n,

    and the pooled vector is the y_h of all heads side by side. Attentive probing is from CAE (Chen et al., IJCV 2024);
    this is the form of AIM (El-Nouby et al., ICML 2024): no projection after the heads, no MLP (V-JEPA, Bardes et al.,
    2024, has one), and standardised inputs (AIM: batch normalisation without weights; here ``features.standardize``,
    which takes the statistics of all training images). Biases are left out: one of the keys cancels in the softmax,
    one of the values is a constant that the bias of the head holds.

    The products are taken in the order (q_h K_h) x_n and V_h (sum_n a_n x_n), which is the same function and costs
    heads * D for each position instead of 2 D^2. They are computed in float32 under autocast.

    Args:
        num_heads: number of attention heads, which must divide the width D.

    Raises:
        ConfigError: ``num_heads`` does not divide D.
    """

    reads_standardized = True

    def __init__(self, width: int, *, num_heads: PositiveInt = 8) -> None:
        super().__init__(width)
        check_option("features.pool.num_heads", num_heads, PositiveInt)
        if width % num_heads:
            fitting = [number for number in range(1, width + 1) if width % number == 0]
            near = sorted(fitting, key=lambda number: abs(number - num_heads))[:4]
            raise ConfigError(
                f"features.pool.num_heads={num_heads} does not divide the width of the features, {width}. Use one that "
                f"does, such as {', '.join(map(str, sorted(near)))}"
            )
        self.num_heads = num_heads
        self.query = nn.Parameter(0.02 * torch.randn(width))
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)

    @staticmethod
    def is_trained(options: Mapping[str, Any]) -> bool:
        return True

    def attention(self, local: Tensor) -> Tensor:
        """Return the weights [B, N, heads] of local features float32 [B, N, D]; they sum to 1 over N."""
        width = local.shape[2]
        per_head = width // self.num_heads
        query = self.query.view(self.num_heads, 1, per_head)
        directions = (query @ self.key.weight.view(self.num_heads, per_head, width)).squeeze(1)  # [heads, D]
        return (local @ directions.T / per_head**0.5).softmax(1)

    def forward(self, local: Tensor) -> Tensor:
        with torch.autocast(local.device.type, enabled=False):
            local = local.float()
            width = local.shape[2]
            summaries = self.attention(local).transpose(1, 2) @ local  # [B, heads, D]
            value = self.value.weight.view(self.num_heads, -1, width)
            values = summaries.transpose(0, 1) @ value.transpose(1, 2)  # [heads, B, D / heads]
            return values.transpose(0, 1).flatten(1)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}"
