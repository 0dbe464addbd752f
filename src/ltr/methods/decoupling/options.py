"""The options of the decoupled methods and of SMOTE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from ltr.methods.core.options import Options, StageOptions

Trainable = Literal["classifier", "last_block", "all"]
Features = Literal["augmented", "cached"]
FeaturesNorm = Literal["none", "l2", "centred_l2"]
Distance = Literal["euclidean", "cosine"]
Space = Literal["pixel", "feature"]


class RepresentationOptions(Options):
    """Options of every method that starts from a representation."""

    start_from: str | None = None
    """A finished run's folder or a checkpoint to load the representation from, instead of training it."""
    representation: Mapping[str, Any] | None = None
    """Method that trains the representation, `method.representation=NAME`; null: ERM."""


class RescaledOptions(Options):
    """Options of every classifier that is trained on a finished backbone."""

    freeze_bn_stats: bool = False
    """Keep the backbone's BatchNorm statistics (the paper's text); `false`, the official code, lets them drift to those
    of class-balanced batches."""
    features: Features = "augmented"
    """`augmented` passes every batch through the backbone (paper and code); `cached` passes the un-augmented training
    images through it once, and needs `freeze_bn_stats=true`."""


class RetrainedOptions(RescaledOptions):
    """Options of a classifier that is trained from scratch."""

    trainable: Trainable = "classifier"
    """Part that the second stage trains: the `classifier` alone (paper), with the `last_block` of the backbone, or
    `all`; the paper's ablation."""


class CRTOptions(RepresentationOptions, RetrainedOptions):
    """Options of cRT."""

    classifier: StageOptions
    """Settings of the second stage: `sampler`, `loss`, `optimizer`, `scheduler`, `epochs`, `selection`, and `augment`
    where it is not the representation's; see below."""


class LWSOptions(RepresentationOptions, RescaledOptions):
    """Options of LWS."""

    classifier: StageOptions
    """Settings of the second stage, as [cRT](crt.md)'s; see below."""


class MeansOptions(Options):
    """Options of the classifier by class means."""

    features_norm: FeaturesNorm = "centred_l2"
    """Form of the features: unchanged, of unit length (`l2`), or minus the mean training feature and then of unit
    length (`centred_l2`); the official un, l2n and cl2n, of which cl2n is the default."""
    distance: Distance = "euclidean"
    """Between features and means; `euclidean` is the official default."""


class NCMOptions(RepresentationOptions, MeansOptions):
    """Options of NCM."""


class GridOptions(Options):
    """Grid of candidate values."""

    start: Annotated[float, "[0, inf)"] = 0.0
    """The first candidate."""
    stop: Annotated[float, "[0, inf)"] = 1.0
    """The last candidate; the official script of tau-normalisation prints 0 to 2 by 0.1."""
    step: Annotated[float, "(0, inf)"] = 0.05
    """Difference between two candidates."""


class TauOptions(Options):
    """Options of a post-hoc change of logits with one parameter, tau."""

    tau: Annotated[float | Literal["auto"], "[0, inf)"] = 1.0
    """Exponent of the norms: 1 is full normalisation, 0 changes no weight; `auto` takes the best balanced accuracy on
    the validation split, the first of ties."""
    grid: GridOptions
    """Candidates of `auto`: `start`, `stop` (which belongs to them) and `step`, by default 0, 1 and 0.05, see
    below."""


class TauNormOptions(RepresentationOptions, TauOptions):
    """Options of tau-normalisation."""

    keep_bias: bool = False
    """Add the classifier's bias, unscaled, as the code of Bag of Tricks does; `false` leaves it out (official code)."""


class PostHocLAOptions(RepresentationOptions, TauOptions):
    """Options of post-hoc logit adjustment."""

    tau: Annotated[float | Literal["auto"], "[0, inf)"] = 1.0
    """Factor of the log prior: 1 is the value for which the paper's derivation holds, 0 changes nothing; `auto` as for
    [tau-normalisation](tau_norm.md)."""


class SmoteOptions(Options):
    """Options of SMOTE."""

    k: Annotated[int, "[1, inf)"] = 5
    """Neighbours of each image; paper."""
    space: Space = "pixel"
    """`pixel` is one network, from scratch, on interpolated images (M2m's baseline); `feature` a new classifier on the
    features of a plain network."""
    classifier: StageOptions
    """Settings of the classifier of `space=feature`: `sampler`, `loss`, `optimizer`, `scheduler`, `epochs`,
    `selection`."""
