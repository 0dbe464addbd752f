"""The options of background splitting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from ltr.methods.core.options import Options

BiasInit = Literal["head", "prior"]
AuxInit = Literal["auto", "teacher", "fresh"]
# of method.aux, which `ltr.methods.background_splitting.method.checked_aux` checks
PARTITIONS = ("teacher", "kmeans", "supercategories")
FEATURES = ("teacher", "pixels", "representation")


class BackgroundSplittingOptions(Options):
    """Options of background splitting."""

    b0: Annotated[float | None, "(-inf, inf)"] = 0.1
    """The background's constant logit (ours; the code has none by default); null learns a background row, as an
    ordinary head. `+sweep=b0` compares values."""
    thresholding: bool = True
    """`false` is the same as `b0=null`, whatever b0 says: splitting alone."""
    bias_init: BiasInit = "head"
    """First biases: `head` as the head's config initialises them; `prior` is `c_j = b0 + log(n_j / n_0)`, so that the
    class frequencies are predicted at first, and no weight decay on c (ours)."""
    background_weight: Annotated[float | None, "[0, inf)"] = None
    """Class weight of the background; null is the loss's own, from its count (ours)."""
    labelled_fraction: Annotated[float, "(0, 1]"] = 1.0
    """Fraction of each class's images whose label is used; the others have the auxiliary loss alone (the code's
    `--labeled-subset`)."""
    aux: Mapping[str, Any]
    """The auxiliary task, see below."""
