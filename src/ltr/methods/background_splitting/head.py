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


@named("head/background")
class BackgroundHead(nn.Module):
    """Logits [B, N + 1]: ``b0`` in front, then those of a head with N rows (Mullapudi et al., CVPR 2021).

    The official code computes N + 1 logits and overwrites the first. Its row is then a dead parameter that weight
    decay still shrinks, and a b0 of 0 is taken for none; here there is no such row, and 0 is a number like others.

    With biased rows b0 is a shift that the biases can undo: (b0, bias c) and (0, bias c - b0) give the same
    probabilities and the same gradients. b0 then only says where training starts, and what weight decay of the bias
    pulls towards; with ``head.bias=false`` it is a threshold that the features have to pass.

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
            raise ConfigError(
                f"method.b0={b0}: a finite number is needed, or null for a background row that is learned"
            )
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
        logits = self.rows(features)
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()  # 0.1 has no bfloat16: the constant would be another one
        return F.pad(logits, (1, 0), value=self.b0)

    def weight_norms(self) -> Tensor | None:
        """Return NaN for the background and the norms of the rows, float64 [N + 1]; None if the rows have none."""
        norms = getattr(self.rows, "weight_norms", None)
        return None if norms is None else F.pad(norms(), (1, 0), value=math.nan)

    def extra_repr(self) -> str:
        return f"b0={self.b0}"


def prior_bias(class_counts: tuple[int, ...], b0: float | None, link: str) -> Tensor:
    """Biases at which logits of zero weights give each class its share of the training images.

    Softmax with a constant b0: c_j = b0 + log(n_j / n_0). Softmax with a learned row: log(n_j / n). Sigmoid: the logit
    of n_j / n, whatever b0 is. A class without images counts as one.

    Args:
        class_counts: training images of the background and of the N foreground classes.
        b0: the background's constant logit, or None where it has a row.
        link: ``softmax`` or ``sigmoid``.

    Returns:
        float32 [N], or [N + 1] without a b0.
    """
    counts = np.maximum(np.asarray(class_counts, dtype=np.float64), 1)
    if link == "sigmoid":
        rest = np.maximum(counts.sum() - counts, 1)
        bias = np.log(counts / rest)
    elif b0 is None:
        bias = np.log(counts / counts.sum())
    else:
        bias = b0 + np.log(counts / counts[0])
    return torch.from_numpy(bias if b0 is None else bias[1:]).float()
