"""The options of CC-SAM."""

from __future__ import annotations

from typing import Literal

from ltr.configuration.ranges import Fraction, NonNegative, Positive
from ltr.methods.core.options import Options, StageOptions

Perturbed = Literal["head", "network"]
FlatLabels = Literal["first", "mixed"]


class FlatOptions(
    Options,
    used_if=dict.fromkeys(("perturb", "radius", "flat_labels"), "flat_share>0"),
):
    """Options of CC-SAM's first stage."""

    perturb: Perturbed = "head"
    """What is perturbed for each class: the `head` (official code), or all of the `network` (the paper's abstract),
    which takes a forward and two backward passes of the batch for each class in it."""
    radius: Positive = 1e-6
    """Scale of the perturbation, the code's noise_ratio; official."""
    flat_share: Fraction = 0.5
    """Share of the losses at perturbed weights in the whole loss, the code's flat_ratio: official on CIFAR-100-LT, 0.3
    on CIFAR-10-LT; 0 is plain training."""
    flat_labels: FlatLabels = "first"
    """Labels of mixed images at perturbed weights: the `first` alone, as in the official code, or both, `mixed`."""


class AdversarialOptions(
    Options,
    used_if=dict.fromkeys(("step", "strength_divisor", "weighted"), "adversarial_limit>0"),
):
    """Options of CC-SAM's second stage."""

    step: NonNegative = 1.0
    """Length of the step to adversarial features for a class of strength 1; official."""
    strength_divisor: Positive = 2.0
    """Divisor d of the classes' strengths log(n_max / n + 0.01) / d; official."""
    weighted: bool = True
    """Weight adversarial losses by the strength of their class, as the official code does."""
    adversarial_limit: Fraction = 0.3
    """Upper limit of the share of the adversarial losses, which grows linearly over the stage until it reaches the
    limit: official on CIFAR-100-LT, 1 on CIFAR-10-LT; 0 is plain training of the classifier."""
    freeze_bn_stats: bool = False
    """Keep the backbone's BatchNorm statistics; `false`, the official code, lets them follow the second stage's
    batches."""


class CCSAMOptions(FlatOptions, AdversarialOptions):
    """Options of CC-SAM."""

    start_from: str | None = None
    """A finished run's folder or a checkpoint to load the representation from, instead of training it."""
    classifier: StageOptions
    """Settings of the second stage: `sampler`, `loss`, `optimizer`, `scheduler`, `epochs`, `selection`, and `augment`
    where it is not the representation's; see below."""
