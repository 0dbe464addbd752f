"""Options of self-supervised label augmentation and of its baselines."""

from __future__ import annotations

from typing import Annotated, Literal

from ltr.methods.core.options import Options

Transform = Literal[
    "none",
    "rotation",
    "rotation2",
    "colour",
    "colour3",
    "rotation_colour",
    "rotation_colour3",
    "rotation2_colour",
    "rotation2_colour3",
]
Aggregation = Literal["mean", "sum"]
Average = Literal["probabilities", "logits"]


class TransformedOptions(Options):
    """Options of every network that is trained on M transformations of each image."""

    transform: Transform = "rotation"
    """Views of an image, see [SLA](sla.md); paper and code take `rotation`."""
    checkpointing: bool = False
    """Keep only the inputs of the backbone's blocks for the backward pass and recompute the rest: same gradients and
    BatchNorm statistics, less memory, about a third more time (not in the paper)."""


class DataAugmentationOptions(TransformedOptions):
    """Options of data augmentation by all transformations at once."""

    inference: Literal["single", "aggregated"] = "single"
    """Headline: `single` classifies the untransformed image (paper), `aggregated` averages the views' class logits."""


class MultiTaskOptions(DataAugmentationOptions):
    """Options of multi-task learning."""

    transform_weight: Annotated[float, "[0, inf)"] = 1.0
    """Weight of the second task's loss; paper."""


class SLAOptions(TransformedOptions):
    """Options of self-supervised label augmentation."""

    inference: Literal["single", "aggregated", "distilled"] | None = None
    """Headline; null: `distilled` with self-distillation, else `aggregated` (paper). All inferences are reported."""
    self_distillation: bool = False
    """SLA+SD: a second head learns the aggregated prediction from the plain image; the paper has both variants."""
    temperature: Annotated[float, "(0, inf)"] = 1.0
    """Temperature T of the distillation; value of the code."""
    distilled_weight: Annotated[float, "[0, inf)"] = 1.0
    """Weight of the second head's classification loss, the paper's beta; paper and code."""
    loss_scale: Literal[1, "M"] = 1
    """1 is the mean over the views (the paper's equation); `M` their sum, which the code recommends for ImageNet and
    iNaturalist."""
    aggregation: Aggregation = "mean"
    """Reduction over the views' logits; `sum` gives the same predictions and a sharper distillation target."""


class EnsembleOptions(Options):
    """Options of an ensemble of independently trained networks."""

    members: Annotated[int, "[2, inf)"] = 4
    """Number of networks M; the default equals SLA's number of rotations."""
    average: Average = "probabilities"
    """Mean of the networks' `probabilities` (usual), or of their `logits`, as SLA's aggregation."""
