"""The options of the methods whose classifier is a set of points."""

from __future__ import annotations

from typing import Annotated, Literal

from ltr.methods.core.options import Options

Distance = Literal["l2", "dot", "both"]
Divided = Literal["both", "open_space", "none"]
RadiusKind = Literal["per_class", "scalar"]
RadiusInit = float | Literal["first_batch"]
Reduction = Literal["mean", "sum"]


class PointOptions(Options):
    """Options that RPL, RPL++, ARPL and GCPL share."""

    num_points: Annotated[int, "[1, inf)"] = 1
    """M, the points of each class; both codes have 1, the papers allow more and take means over them."""
    init_std: Annotated[float, "[0, inf)"] = 0.1
    """Standard deviation of the points' first coordinates, normally distributed; 0 puts all at the origin. The authors'
    code has 0.1, the confirmed re-implementation of RPL 1."""
    gamma: Annotated[float, "(0, inf)"] = 1.0
    """Factor of the distances in the softmax, 1 / temperature in the authors' code; papers and codes have 1."""
    feature_dim: Annotated[int | None, "[1, inf)"] = None
    """Width of a linear layer between backbone and points; null for none, 2 gives the papers' figure."""


class ReciprocalOptions(
    PointOptions,
    used_if=dict.fromkeys(("radius", "radius_init"), "open_weight>0"),
):
    """Options of the methods with reciprocal points."""

    distance: Distance = "l2"
    """`l2` is the squared Euclidean distance, `dot` minus the inner product, `both` their sum (ARPL)."""
    divided: Divided = "both"
    """Squared distances that are divided by the feature width: those of logits and of the bounding term (`both`, the
    authors' code), of that term alone (`open_space`, the confirmed re-implementation), or `none` (the paper)."""
    open_weight: Annotated[float, "[0, inf)"] = 0.1
    """lambda, the weight of the term that bounds distances by the radius; paper and codes."""
    radius: RadiusKind = "per_class"
    """`per_class` is the paper's R^y and the confirmed re-implementation, `scalar` the authors' code."""
    radius_init: Annotated[RadiusInit, "[0, inf)"] = "first_batch"
    """First radius: a number (0 as published), or `first_batch`, the first batch's mean distance to the points of its
    own classes (ours: at 0 the term first pulls every class to its own points)."""


class RPLOptions(ReciprocalOptions):
    """Options of RPL."""

    init_std: Annotated[float, "[0, inf)"] = 1.0
    """Standard deviation of the points' first coordinates, normally distributed; 0 puts all at the origin. The
    confirmed re-implementation has 1, the authors' code 0.1."""
    reduction: Reduction = "mean"
    """Reduction of the images' losses: the authors' code has `mean`, the confirmed re-implementation `sum`."""


class RPLPlusPlusOptions(RPLOptions):
    """Options of RPL++."""

    prototype_weight: Annotated[float, "[0, inf)"] = 0.1
    """w, of half the squared distance to the nearest of the class's M prototypes; GCPL's in ARPL's code, which divides
    distances."""


class ARPLOptions(ReciprocalOptions):
    """Options of ARPL."""

    distance: Distance = "both"
    """`both` is the authors' code: the squared distance divided by the width, less the inner product."""
    radius: RadiusKind = "scalar"
    """`scalar` is one radius for all classes, as in the authors' code."""
    radius_init: Annotated[RadiusInit, "[0, inf)"] = 0.0
    """First radius: a number (0 as published), or `first_batch`, see [RPL](rpl.md)."""


class ARPLCSOptions(ARPLOptions):
    """Options of ARPL with confusing samples."""

    confusion_weight: Annotated[float, "[0, inf)"] = 0.1
    """beta, of the confusion in the generator's and in the classifier's loss; code."""
    noise_dim: Annotated[int, "[1, inf)"] = 100
    """Width of the generator's input; nz of the code."""
    width: Annotated[int, "[1, inf)"] = 64
    """Channels of the generator's and the discriminator's unit; ngf and ndf of the code."""
    gan_lr: Annotated[float, "(0, inf)"] = 2e-4
    """Learning rate of generator and discriminator: Adam with decays 0.5 and 0.999, no schedule; code."""


class GCPLOptions(PointOptions):
    """Options of GCPL."""

    divided: bool = False
    """Divide squared distances by the feature width, as ARPL's code does; paper and authors' code do not."""
    prototype_weight: Annotated[float, "[0, inf)"] = 0.1
    """w, of half the squared distance to the nearest prototype of the own class. ARPL's code has 0.1 for divided
    distances (0.0008 of undivided ones of 128 features), the authors' code 0.001 for undivided ones."""
