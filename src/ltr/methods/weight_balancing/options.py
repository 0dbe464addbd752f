"""The options of weight balancing."""

from __future__ import annotations

from typing import Annotated, Literal

from ltr.methods.core.options import Options, StageOptions
from ltr.methods.decoupling.options import RepresentationOptions

Projection = Literal["epoch", "step", "never"]


class BalancedOptions(
    Options,
    used_if={"radius": "projection!=never"},
):
    """Options of the second stage of weight balancing."""

    radius: Annotated[float, "[0, 1]"] = 0.1
    """Largest norm of a class's weights, as a fraction of the way from the smallest (0) to the largest (1) norm in the
    representation's classifier; official."""
    projection: Projection = "epoch"
    """When weights outside the radius are scaled back onto it: after each `epoch` (official code), after each `step`,
    or `never`, which leaves weight decay alone."""
    freeze_bn_stats: bool = False
    """Keep the backbone's BatchNorm statistics; `false`, the official code, lets them follow the second stage's
    batches."""


class WeightBalancingOptions(RepresentationOptions, BalancedOptions):
    """Options of weight balancing."""

    classifier: StageOptions
    """Settings of the second stage: `sampler`, `loss`, `optimizer`, `scheduler`, `epochs`, `selection`, and `augment`
    where it is not the representation's; see below."""
