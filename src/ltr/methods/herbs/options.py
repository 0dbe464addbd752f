"""The options of HERBS and PIM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from ltr.methods.core.options import Options


class HERBSOptions(
    Options,
    used_if={
        **dict.fromkeys(("selected", "joints", "dropout", "location_rule", "dropped_weight"), "suppression=true"),
        "selected_fractions": "suppression=true and selected=null",
        "locations_per_joint": "suppression=true and joints=null",
        **dict.fromkeys(("refinement_weight", "refinement_reduction"), "refinement=true"),
        **dict.fromkeys(("temperature", "temperature_period"), "refinement=true and refinement_weight>0"),
        **dict.fromkeys(("width", "hidden_width", "resampling", "init"), "paths!=none"),
        "mix_equal_levels": "paths!=none and resampling=learned",
    },
):
    """Options of HERBS, and of PIM as a special case; the defaults are the paper's."""

    paths: Literal["both", "top_down", "none"] = "both"
    """`both` is HERBS, `top_down` PIM; `none` applies the modules to a plain backbone: suppression to the last block,
    refinement to the last two, of which the earlier one learns."""
    suppression: bool = True
    """Background suppression: select and combine locations, and push down the logits of the others. Suppression or
    refinement alone is the paper's "basic module"."""
    refinement: bool = True
    """High-temperature refinement: the top-down levels learn from the bottom-up ones at a falling temperature."""
    levels: Annotated[int, "[1, inf)"] = 4
    """Largest number of levels, of the coarsest maps of the backbone."""
    maps: Literal["merged", "stages"] = "merged"
    """`merged` merges 2x2 locations to one, so that strides 4, 8, 16, 32 become the paper's 8, 16, 32, 32 (see below);
    `stages` takes the maps as they are."""
    level_norm: Literal["none", "layer", "batch", "merging"] = "none"
    """Normalisation of a level's features: `none` is the released code for unmerged maps, `merging` its form for Swin,
    whose patch merging normalises merged levels; `layer` normalises all levels; `batch` is for backbones without
    normalisation, see below."""
    width: Annotated[int | None, "[1, inf)"] = None
    """Channels of both paths; null: those of the coarsest map, at most 1536, which is the paper's, of Swin-L."""
    hidden_width: Literal["level", "path"] = "level"
    """A top-down projection is Linear(c, c)-ReLU-Linear(c, width) with the level's c channels (`level`, released code),
    or Linear(c, width)-ReLU-Linear(width, width) (`path`, earlier versions, whose checkpoints still load)."""
    resampling: Literal["interpolate", "learned"] = "interpolate"
    """Between levels: `learned` (released code) has weights for one image size."""
    mix_equal_levels: bool = True
    """Learned resampling also between the two levels of stride 32 (released code); PIM's code adds them directly."""
    init: Literal["pytorch", "he"] = "pytorch"
    """First weights of the paths' layers: `pytorch` is the released code; `he` preserves the scale of features in the
    paths, which is better from random weights (digits). The paper does not say."""
    classifier: Literal["linear", "conv"] = "linear"
    """Of a location: `linear` is equation 1 of the paper, `conv` the released code's conv-BN-ReLU-conv."""
    location_rule: Literal["location", "image_class", "random"] = "location"
    """Locations are ranked by their own largest probability (`location`, equation 2), by their probability of the
    class of the whole image (`image_class`, released code), or at `random` (a control)."""
    selected: Sequence[int] | None = None
    """Locations selected of each level, finest first; null: by the fractions."""
    selected_fractions: Sequence[float] | None = None
    """Fraction of each level's locations; null: 1/9, 2/9, 4/9, 2/9, the paper's 256, 128, 64, 32 of 48², 24², 12², 12²
    locations."""
    joints: Annotated[int | None, "[2, inf)"] = None
    """Nodes of the combiner; null: one for `locations_per_joint` selected locations, at least 2; released code."""
    locations_per_joint: Annotated[int, "[1, inf)"] = 64
    """Selected locations for each joint; HERBS's code has 64, PIM's 32."""
    dropout: Annotated[float, "[0, 1)"] = 0.1
    """Of the combined features; released code."""
    merged_weight: Annotated[float, "[0, inf)"] = 1.0
    """lambda_m, of the loss on the combined features; paper."""
    layer_weight: Annotated[float, "[0, inf)"] = 0.3
    """lambda_l, of each level's cross-entropy; paper."""
    dropped_weight: Annotated[float, "[0, inf)"] = 5.0
    """lambda_d, of (tanh + 1)^2 of dropped locations; paper."""
    refinement_weight: Annotated[float, "[0, inf)"] = 1.0
    """lambda_r, of the refinement; paper."""
    refinement_reduction: Literal["sum_over_classes", "mean_over_classes"] = "sum_over_classes"
    """The paper's sum; the released code's mean is smaller by the number of classes."""
    temperature: Annotated[float, "(0, inf)"] = 64.0
    """T0, at which refinement starts and which is halved every `temperature_period` epochs; paper."""
    temperature_period: Annotated[float | None, "(0, inf)"] = None
    """In epochs of a run of 80; null: the paper's -log2(0.0625 / T0), 10 for 64 and 11 for 128."""
    readout: Literal["sum_of_logits", "mean_of_softmaxes"] = "sum_of_logits"
    """Headline: the softmax of the summed outputs (paper's text), or the mean of their softmaxes (released code)."""
    log_gradient_norms: bool = False
    """Log the gradient norm of each weighted term in an epoch's first step, at a backward pass for each (ours)."""
