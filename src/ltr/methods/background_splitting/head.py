"""The head of background splitting: N rows for the foreground, and a constant logit b0 for the background."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltr.errors import ConfigError
from ltr.identity import named
from ltr.losses.functional import at_least_float32


@named("head/background")
class BackgroundHead(nn.Module):
    """Head with logits [B, N + 1]: the constant ``b0``, then those of a head with N rows (Mullapudi et al., CVPR 2021).

    The official code computes N + 1 logits and overwrites the first. Its first row is then an unused parameter that
    weight decay still shrinks, and it treats a b0 of 0 as none; here the row does not exist, and b0 may be 0.

    If the rows have biases, b0 is a shift that the biases can undo: (b0, bias c) and (0, bias c - b0) give the same
    probabilities and the same gradients. b0 then only determines where training starts and towards which value weight
    decay pulls the bias. With ``head.bias=false`` it is a threshold that the features have to pass.

    Args:
        rows: a head with outputs [B, N].
        b0: the background's logit, in the units of the scaled logits.

    Raises:
        ConfigError: b0 is not finite.
    """

    head_kind = "background"

    def __init__(self, rows: nn.Module, b0: float) -> None:
        super().__init__()
        if not math.isfinite(b0):
            raise ConfigError(f"method.b0={b0}: allowed is a finite number, or null for a learned background row")
        self.rows = rows
        self.b0 = float(b0)

    @property
    def weight(self) -> Any:
        """Weights of the foreground rows, [N, D]."""
        return self.rows.weight

    @property
    def bias(self) -> Any:
        """Biases of the foreground rows, [N], or None."""
        return self.rows.bias

    def init_bias(self, value: float | Tensor) -> None:
        """Set the rows' bias, to a number or to one per row [N]; see `ltr.models.heads`."""
        self.rows.init_bias(value)  # type: ignore[operator]

    def forward(self, features: Tensor) -> Tensor:
        # bfloat16 would round the constant, e.g. 0.1
        return F.pad(at_least_float32(self.rows(features)), (1, 0), value=self.b0)

    def weight_norms(self) -> Tensor | None:
        """Return NaN for the background and the norms of the rows, float64 [N + 1]; None if the rows have none."""
        norms = getattr(self.rows, "weight_norms", None)
        return None if norms is None else F.pad(norms(), (1, 0), value=math.nan)

    def extra_repr(self) -> str:
        return f"b0={self.b0}"


def prior_bias(class_counts: tuple[int, ...], b0: float | None, link: str) -> Tensor:
    """Return the biases with which a head of zero weights predicts each class's share of the training images.

    Softmax with a constant b0: c_j = b0 + log(n_j / n_0). Softmax with a learned row: log(n_j / n). Sigmoid: the logit
    of n_j / n, for any b0. A class without images counts as one with a single image.

    Args:
        class_counts: training images of the background and of the N foreground classes.
        b0: the background's constant logit, or None if it has a row.
        link: ``softmax`` or ``sigmoid``.

    Returns:
        float32 [N], or [N + 1] if ``b0`` is None.
    """
    counts = np.maximum(np.asarray(class_counts, dtype=np.float64), 1)
    if link == "sigmoid":
        negatives = np.maximum(counts.sum() - counts, 1)
        bias = np.log(counts / negatives)
    elif b0 is None:
        bias = np.log(counts / counts.sum())
    else:
        bias = b0 + np.log(counts / counts[0])
    return torch.from_numpy(bias if b0 is None else bias[1:]).float()
