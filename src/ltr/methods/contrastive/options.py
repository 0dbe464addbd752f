"""The options of the contrastive methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ltr.configuration.ranges import NonNegative, Positive, PositiveInt
from ltr.methods.core.options import Options

ConcentrationRule = Literal["official", "banerjee"]
Form = Literal["in", "out"]
Sample = Literal["two_epochs", "last_epoch"]


class ProjectionOptions(Options):
    """Options of networks with a contrastive branch."""

    feature_dim: PositiveInt = 128
    """Width of the projections; 128 on CIFAR, 1024 on ImageNet-LT and iNaturalist."""
    hidden_dim: PositiveInt | None = 512
    """Width of the hidden layer of a projection; 512 on CIFAR; null is the width of the backbone's features, as on
    ImageNet-LT and iNaturalist."""
    temperature: Positive = 0.1
    """Temperature of the contrastive loss; 0.1 on CIFAR, 0.07 on ImageNet-LT and iNaturalist."""


class ViewsOptions(Options):
    """Options of methods with contrastive views."""

    contrast_augment: Mapping[str, Any]
    """Augmentation of the second and the third view of an image, `simaugment` by default; the contrastive branch learns
    from these views, the classifier from the first one, `augment`."""


class BCLNetworkOptions(
    ProjectionOptions,
    used_if=dict.fromkeys(("temperature", "class_averaging"), "contrastive_weight>0"),
):
    """Options of the network of BCL."""

    classification_weight: NonNegative = 1.0
    """Weight of the classifier's loss, the paper's lambda; the official code's default."""
    contrastive_weight: NonNegative = 0.35
    """Weight of the contrastive loss, the paper's mu; the official code's default for ImageNet-LT and iNaturalist."""
    class_averaging: bool = True
    """Average the terms of a class in the denominator, so that each class counts once; `false` adds them up, as in
    supervised contrastive learning."""
    class_complement: bool = True
    """Add a centre of each class to every batch, so that each class is in it; `false` leaves them out."""


class BCLOptions(BCLNetworkOptions, ViewsOptions):
    """Options of BCL."""


class ProCoNetworkOptions(
    ProjectionOptions,
    used_if=dict.fromkeys(("temperature", "form", "concentration", "sample"), "contrastive_weight>0"),
):
    """Options of the network of ProCo."""

    contrastive_weight: NonNegative = 1.0
    """Weight of the contrastive loss, the code's alpha; official."""
    form: Form = "in"
    """Where the expectation over an image's own class stands, as in the two forms of the supervised contrastive loss:
    `in` the logarithm (the expected exponential of the similarity, official code), or `out` of it (the expected
    similarity)."""
    concentration: ConcentrationRule = "official"
    """Estimate of the concentration from the norm R of a class's mean projection: `official`, pR/(1-R²), or `banerjee`,
    R(p-R²)/(1-R²), the usual approximation of the maximum-likelihood estimate."""
    sample: Sample = "two_epochs"
    """Projections whose mean describes a class: those of the last epoch and of this one so far (`two_epochs`, official
    code), or of the last epoch alone."""


class ProCoOptions(ProCoNetworkOptions, ViewsOptions):
    """Options of ProCo."""
