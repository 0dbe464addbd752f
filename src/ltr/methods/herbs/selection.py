"""The selector of PIM and HERBS: the locations of a feature map that are selected as foreground or dropped.

All functions work on batches: the selected locations differ between images, their number does not. Scores serve as
ranks only, so no gradient flows through a selection.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ltr.errors import ConfigError
from ltr.losses.functional import at_least_float32

# of the locations at strides 8, 16, 32 and at the last map: 256, 128, 64, 32 at HERBS's 384 pixels
FRACTIONS = (1 / 9, 2 / 9, 4 / 9, 2 / 9)


class Selection(NamedTuple):
    """Selection of one level."""

    indices: Tensor  # int64 [B, K], locations in row-major order of the map, the best first
    dropped: Tensor  # bool [B, N], the N - K others


def location_scores(logits: Tensor) -> Tensor:
    """Return each location's largest class probability (HERBS, arXiv 2303.06442, eq. 2), as its logarithm.

    Args:
        logits: [B, N, C], any float type.

    Returns:
        float32 or better [B, N]; its order is that of the probabilities.
    """
    wide = at_least_float32(logits)
    return wide.amax(2) - wide.logsumexp(2)


def image_class_scores(logits: Tensor) -> Tensor:
    """Return each location's probability of the image's predicted class, as in HERBS's released code.

    The predicted class has the largest mean logit over the locations.

    Args:
        logits: [B, N, C].

    Returns:
        The logarithm of the probability, float32 or better [B, N].
    """
    wide = at_least_float32(logits)
    image_classes = wide.mean(1).argmax(1).view(-1, 1, 1).expand(-1, wide.shape[1], 1)
    return wide.gather(2, image_classes).squeeze(2) - wide.logsumexp(2)


@torch.no_grad()
def select(scores: Tensor, count: int) -> Selection:
    """Return the ``count`` locations of each image with the highest scores.

    Args:
        scores: [B, N].
        count: K, in 1..N.
    """
    indices = scores.topk(count, dim=1).indices
    dropped = torch.ones_like(scores, dtype=torch.bool).scatter_(1, indices, False)
    return Selection(indices, dropped)


def gather(features: Tensor, indices: Tensor) -> Tensor:
    """Return features [B, K, D] of the locations ``indices`` int64 [B, K], from those of all locations [B, N, D]."""
    images, locations, width = features.shape
    first = torch.arange(0, images * locations, locations, device=indices.device).unsqueeze(1)
    rows = features.reshape(images * locations, width).index_select(0, (indices + first).view(-1))
    return rows.view(images, indices.shape[1], width)


def counts_of(
    locations: Sequence[int], *, counts: Sequence[int] | None = None, fractions: Sequence[float] | None = None
) -> tuple[int, ...]:
    """Return the number of locations to select of each level, K.

    Args:
        locations: locations of each level, N, finest first.
        counts: K of each level; None: by ``fractions``.
        fractions: K / N of each level, in (0, 1]; K is rounded and at least 1. None: `FRACTIONS`. If there are more
            numbers than levels, the last ones are used.

    Raises:
        ConfigError: too few numbers, a number outside its range, or a K above the level's locations.
    """
    named = "method.selected" if counts is not None else "method.selected_fractions"
    amounts = list(counts if counts is not None else fractions if fractions is not None else FRACTIONS)
    levels = len(locations)
    if len(amounts) < levels:
        raise ConfigError(f"{named}={amounts}: {levels} levels select locations. Give a number for each")
    amounts = amounts[len(amounts) - levels :]
    if counts is None:
        if any(not 0 < share <= 1 for share in amounts):
            raise ConfigError(f"{named}={amounts}: allowed are fractions of the locations in (0, 1]")
        return tuple(max(1, math.floor(share * n + 0.5)) for share, n in zip(amounts, locations))
    for level, (k, n) in enumerate(zip(amounts, locations), 1):
        if not 1 <= k <= n:
            raise ConfigError(
                f"{named}={amounts}: level {level} of {levels} has {n} locations, so that {k} cannot be selected; "
                f"allowed is 1 to {n}. Lower the number, or use larger images"
            )
    return tuple(int(k) for k in amounts)
