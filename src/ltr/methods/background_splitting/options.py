"""The options of background splitting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from ltr.methods.core.options import Options

BiasInit = Literal["head", "prior"]
AuxInit = Literal["auto", "teacher", "fresh"]


class AuxOptions(Options):
    """Options of the auxiliary task."""

    weight: Annotated[float, "[0, inf)"] = 0.1
    """Weight of the auxiliary loss; 0 omits the auxiliary head (only thresholding)."""
    partition: Literal["teacher", "kmeans", "supercategories"] = "teacher"
    """Source of the pseudo-labels: a classifier's outputs (`teacher`), clusters of features, or names of the data set's
    taxonomy."""
    labels: Literal["hard", "soft"] = "hard"
    """Of `teacher`: its arg max, or the shares of its `top_k` outputs."""
    top_k: Annotated[int, "[2, inf)"] = 10
    """Of `soft`: outputs that have a share."""
    shuffled: bool = False
    """`true` exchanges the pseudo-labels between images (a control)."""
    init: AuxInit = "auto"
    """Initial weights of the auxiliary head: the teacher's last layer (`auto`: if it fits), or random ones."""
    exclude_classes: Sequence[Annotated[int | Literal["foreground"], "[0, inf)"]] = ()
    """Outputs of the teacher to leave out, such as foreground classes that it knows: numbers, or `[foreground]` for
    those of an ImageNet teacher that bear the foreground's names."""
    run: str | None = None
    """A finished run's folder or a checkpoint of this project: the teacher, instead of `teacher`."""
    teacher: Mapping[str, Any]
    """A published classifier as teacher."""
    features: Literal["teacher", "pixels", "representation"] = "teacher"
    """Of `kmeans`: features of the teacher, of the network that ERM trains (`representation`), or pixels."""
    groups: Annotated[int, "[2, inf)"] = 100
    """Of `kmeans`: number of groups."""
    rank: str = "supercategory"
    """Of `supercategories`: any rank of the taxonomy."""


class BackgroundSplittingOptions(
    Options,
    used_if={"b0": "thresholding=true"},
):
    """Options of background splitting."""

    b0: Annotated[float | None, "(-inf, inf)"] = 0.1
    """The background's constant logit (ours; the code has none by default); null learns a background row, as an
    ordinary head. `+sweep=b0` compares values."""
    thresholding: bool = True
    """`false` is the same as `b0=null`, for any `b0`: splitting alone."""
    bias_init: BiasInit = "head"
    """First biases: `head` as the head's config initialises them; `prior` is `c_j = b0 + log(n_j / n_0)`, so that the
    class frequencies are predicted at first, and no weight decay on c (ours)."""
    background_weight: Annotated[float | None, "[0, inf)"] = None
    """Class weight of the background; null is the loss's own, from its count (ours)."""
    labelled_fraction: Annotated[float, "(0, 1]"] = 1.0
    """Fraction of each class's images whose label is used; the others have the auxiliary loss alone (the code's
    `--labeled-subset`)."""
    aux: AuxOptions
    """The auxiliary task, see below."""
