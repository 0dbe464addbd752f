"""Reductions of losses to a scalar: the names that configs and methods use."""

from __future__ import annotations

from typing import Literal

Reduction = Literal["batch", "weight_sum"]  # of classification losses, see `ltr.losses.functional.reduce`
RelationalReduction = Literal["all", "valid"]  # of relations between images, see `ltr.losses.relational`
