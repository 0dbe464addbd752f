"""The options of relational knowledge distillation."""

from __future__ import annotations

from typing import Annotated, Literal

from ltr.losses.reductions import RelationalReduction
from ltr.methods.core.options import Options, StageOptions

Task = Literal["metric", "classification"]


class RKDOptions(
    Options,
    used_if={
        "temperature": "hkd_weight>0",
        "level": "fitnet_weight>0",
        "reduction": "distance_weight!=0 or angle_weight!=0",
    },
):
    """Options of RKD, of embeddings and of classes."""

    task: Task = "metric"
    """Embeddings (`metric`) or classes; `method=rkd_classification` is the config of `classification`."""
    generations: Annotated[int, "[0, inf)"] = 1
    """Students in a row, each the teacher of the next (self-distillation); 0 trains and evaluates the teacher alone. In
    the paper the first generation is best."""
    distance_weight: Annotated[float | None, "[0, inf)"] = None
    """Weight of RKD-D; null is the task's, 1 or 25, see below."""
    angle_weight: Annotated[float | None, "[0, inf)"] = None
    """Weight of RKD-A; null is the task's, 2 or 50, see below."""
    task_weight: Annotated[float | None, "[0, inf)"] = None
    """Weight of the student's own loss; null is the task's, 0 (labels are not used) or 1, see below."""
    hkd_weight: Annotated[float, "[0, inf)"] = 0.0
    """Weight of the divergence from the teacher's class probabilities (HKD), for classifiers; 1 is usual, see
    below."""
    temperature: Annotated[float, "(0, inf)"] = 4.0
    """T of HKD, whose divergence has the factor T^2."""
    fitnet_weight: Annotated[float, "[0, inf)"] = 0.0
    """Weight of a hint (FitNets): a learned 1x1 convolution maps one of the student's feature maps to the
    teacher's. Comparisons use 100, at which SGD with a rate of 0.1 diverges from random weights unless gradients are
    clipped; at 1 it does not."""
    level: Annotated[int, "(-inf, 0)"] = -2
    """Map of the hint: -1 is the coarsest, -2 the one before it."""
    attention_weight: Annotated[float, "[0, inf)"] = 0.0
    """Weight of attention transfer over all maps; 1000 in its authors' code."""
    reduction: RelationalReduction = "all"
    """Mean of distances and angles over all N² and N³ entries (`all`, the code), or over pairs and triples of different
    images (`valid`), see below."""
    start_from: str | None = None
    """A finished run's folder or a checkpoint to take the teacher from, instead of training it; any network that was
    trained on the same split."""
    teacher: StageOptions
    """Settings of the teacher: `sampler`, `loss`, `optimizer`, `scheduler`, `epochs`, `selection`, `backbone`, `head`,
    and `augment` where it is not the student's."""
