"""Head for metric learning, which maps features to embeddings instead of class logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltr.configuration.ranges import PositiveInt
from ltr.identity import named


@named("head/embedding")
class EmbeddingHead(nn.Module):
    """Linear layer with bias from features [B, D] to embeddings [B, width], optionally L2-normalised.

    Weights are initialised like `torch.nn.Linear`, as in RKD's code. Under autocast the normalisation runs in float32.

    Args:
        num_features: D.
        num_classes: not used; every head takes it.
        width: width of the embedding (512 for RKD's teachers, 16 to 128 for its students); None returns the features.
        normalise: True L2-normalises embeddings, as RKD does for teachers but not for students.
    """

    head_kind = "embedding"
    bias = None  # there is no bias that a loss could set to a prior

    def __init__(
        self, num_features: int, num_classes: int, *, width: PositiveInt | None = 128, normalise: bool = False
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.width = num_features if width is None else width
        self.normalise = normalise
        self.projection = None if width is None else nn.Linear(num_features, width)

    def reset(self, generator: torch.Generator | None = None) -> None:
        """Re-initialise the layer from ``generator`` or from torch's global generator."""
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
