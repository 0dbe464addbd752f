"""The options of methods with several experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from ltr.configuration.ranges import Fraction, NonNegative, Positive, PositiveInt
from ltr.methods.core.options import Options

TemperatureRule = Literal["ratio", "shift"]
Divergence = Literal["mean", "pairs"]
LossOf = Literal["experts", "mean"]
DEFAULT_TOP_CHOICES = 5


class ExpertsOptions(Options):
    """Options of networks with several experts."""

    reduce_dimension: bool = True
    """Give the stages of each expert three quarters of their channels, as the authors do; `false` keeps the backbone's,
    and pretrained weights need it."""


class RIDEExpertsOptions(
    ExpertsOptions,
    used_if={
        **dict.fromkeys(("diversity_temperature", "reweight_factor", "divergence"), "diversity_factor!=0"),
        **dict.fromkeys(("temperature_rule", "temperature_from"), "diversity_factor!=0 and reweight_factor>0"),
    },
):
    """Options of the experts of RIDE."""

    experts: Annotated[int, "[1, 16]"] = 3
    """Number of experts."""
    loss_of: LossOf = "experts"
    """Logits that the loss of the configuration takes: those of each of the `experts` (paper), or their `mean`, with
    the loss counted once for each expert, as the official code does if the diversity factor is 0."""
    diversity_factor: float = -0.45
    """Factor of the divergence of the experts from each other; below 0 their diversity is encouraged. Official on
    CIFAR-100-LT; -0.2 on ImageNet-LT and iNaturalist."""
    diversity_temperature: Positive = 1.0
    """Temperature of the divergence, the paper's alpha; official."""
    reweight_factor: Fraction = 0.05
    """Share of a class's frequency in its temperature, the paper's gamma: 0 gives all classes the same one. Official on
    CIFAR-100-LT; 0.02 on ImageNet-LT."""
    temperature_rule: TemperatureRule = "ratio"
    """How the class weights b become temperatures: `ratio`, b / max b (official code), or `shift`, b + 1 - max b
    (paper)."""
    temperature_from: Fraction = 0.8
    """Fraction of the training after which temperatures differ by class, as the official code does; 0 is the paper's
    equation."""
    divergence: Divergence = "mean"
    """KL divergence of each expert from the `mean` of all, which is held fixed (official code), or between all `pairs`
    (paper)."""


class RoutersOptions(RIDEExpertsOptions):
    """Options of the stage that trains the routers of RIDE."""

    top_choices: PositiveInt = DEFAULT_TOP_CHOICES
    """Number of the largest logits that a router reads; the default reads all where a data set has fewer classes. 30 in
    the official configuration of CIFAR-100-LT."""
    pos_weight: Positive = 20.0
    """Weight of the images that a further expert would help; higher values ask more experts. 100 in the official
    configuration of CIFAR-100-LT."""
    share_router: bool = True
    """Share the last layer of the routers; official."""


class AssignmentOptions(Options):
    """Settings of the stage that trains the routers; their loss is a binary cross-entropy."""

    sampler: Mapping[str, Any]
    """Its sampler."""
    optimizer: Mapping[str, Any]
    """Its optimiser."""
    scheduler: Mapping[str, Any]
    """Its schedule."""
    epochs: PositiveInt = 5
    """Its length."""
    batch_size: PositiveInt | None = None
    """Its batch size; null: that of the experts."""
    selection: Literal["last", "best_val", "best_test"] = "last"
    """The checkpoint that is evaluated."""


class RIDEOptions(RoutersOptions):
    """Options of RIDE."""

    assignment: AssignmentOptions
    """Settings of the stage that trains the routers: `sampler`, `optimizer`, `scheduler`, `epochs`, `batch_size`,
    `selection`; see below."""


class TeacherOptions(Options):
    """Settings of the stage that trains the teacher; those of the student for what is not among them."""

    experts: Annotated[int, "[2, 16]"] = 6
    """Its number of experts; official."""
    scheduler: Mapping[str, Any] | None = None
    """Its schedule, `method.teacher.scheduler=NAME`; null: the student's."""
    start_from: str | None = None
    """A finished run's folder or a checkpoint to take the teacher from, instead of training it."""


class DistillationOptions(
    Options,
    used_if=dict.fromkeys(("distill_temperature", "distill_of", "teacher_statistics"), "distill_weight>0"),
):
    """Options of learning from a teacher's predictions."""

    distill_weight: NonNegative = 1.0
    """Weight of the divergence from the teacher; official."""
    distill_temperature: Positive = 1.5
    """Its temperature T; it has the factor T^2. Official."""
    distill_of: LossOf = "mean"
    """Logits that learn from the mean of the teacher's experts: the `mean` of the student's (official code), or those
    of each of its `experts`."""
    loss_per_expert: bool = True
    """Count the whole loss once for each expert, as the official code does: with three experts its gradients are three
    times as large. `false` counts it once."""
    teacher_statistics: Literal["batch", "running"] = "batch"
    """BatchNorm statistics of the teacher: those of the student's `batch`, as in the official code, which leaves the
    teacher in training mode, or the `running` ones that it was trained with."""


class DistilledExpertsOptions(RIDEExpertsOptions, DistillationOptions):
    """Options of experts that also learn from a teacher's predictions."""


class DistilledRIDEOptions(RIDEOptions, DistilledExpertsOptions):
    """Options of distilled RIDE."""

    teacher: TeacherOptions
    """Settings of the teacher: `experts`, `scheduler`, `start_from`; see below."""


class SADEExpertsOptions(ExpertsOptions):
    """Options of the experts of SADE."""

    tau: NonNegative = 2.0
    """Strength of the third expert's inverse prior, the paper's lambda; official."""


class AggregationOptions(Options):
    """Settings of the test-time aggregation of SADE."""

    augment: Mapping[str, Any]
    """Augmentation of the two views of a test image."""
    views: PositiveInt = 5
    """Pairs of views of each test image, which the epochs take in turn; the official code makes a new pair in each of
    its epochs. Each pair is two passes over the test images, whose logits are kept."""
    epochs: PositiveInt = 5
    """Passes over the test images at most; official."""
    batch_size: PositiveInt = 128
    """Images of a step; official."""
    lr: Positive = 0.1
    """Learning rate of SGD with Nesterov momentum 0.9 and weight decay 0.0005; official."""
    least_weight: Fraction = 0.05
    """Training stops after an epoch in which a weight, rounded to two decimals, is below it; official."""


class SADEOptions(SADEExpertsOptions):
    """Options of SADE."""

    aggregation: AggregationOptions
    """Settings of the test-time aggregation; see below."""
