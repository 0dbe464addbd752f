"""The head of metric learning: features to an embedding whose distances are compared, in place of class logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltr.identity import named


@named("head/embedding")
class EmbeddingHead(nn.Module):
    """A linear layer with bias, features [B, D] -> embeddings [B, width], brought to unit length if asked.

    Weights start as torch's own linear layer's, as in RKD's code; normalisation is done in float32 under autocast.

    Args:
        num_features: D.
        num_classes: not used; a head's second argument.
        width: of the embedding (RKD's teachers 512, its students 16 to 128); None for the features themselves.
        normalise: bring embeddings to length 1. RKD's teachers have it, its students do not: they learn better so.
    """

    head_kind = "embedding"
    bias = None  # none that a loss may set to a prior

    def __init__(
        self, num_features: int, num_classes: int, *, width: int | None = 128, normalise: bool = False
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.width = num_features if width is None else width
        self.normalise = normalise
        self.projection = None if width is None else nn.Linear(num_features, width)

    def reset(self, generator: torch.Generator | None = None) -> None:
        """Draw the layer anew, from ``generator`` or from torch's global one."""
        if self.projection is None:
            return
        nn.init.kaiming_uniform_(self.projection.weight, a=5**0.5, generator=generator)
        bound = self.num_features**-0.5
        nn.init.uniform_(self.projection.bias, -bound, bound, generator=generator)

    def forward(self, features: Tensor) -> Tensor:
        embeddings = features if self.projection is None else self.projection(features)
        if not self.normalise:
            return embeddings
        with torch.autocast(features.device.type, enabled=False):
            return F.normalize(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), dim=1)

    def extra_repr(self) -> str:
        return f"width={self.width}, normalise={self.normalise}"
