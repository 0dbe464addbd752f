"""HERBS (Chou, Kao and Lin, arXiv 2303.06442): high-temperature refinement and background suppression; and PIM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ltr.errors import ConfigError
from ltr.identity import named
from ltr.methods.core.stage import DatasetInfo, Method, Settings, Stage
from ltr.methods.herbs.network import HerbsNetwork

Paths = Literal["both", "top_down", "none"]
Chooser = Literal["location", "image_class", "random"]
Readout = Literal["sum_of_logits", "mean_of_softmaxes"]


@named("method/herbs")
class HERBS(Method):
    """One stage, ``herbs``, trained as the top level of the configuration says.

    Args:
        paths: ``both`` (HERBS), ``top_down`` (PIM), or ``none``: a plain backbone, where suppression acts on the last
            block and refinement on the last two, the earlier one learning from the later one.
        suppression: select and combine locations, and push the others' logits down.
        refinement: the top-down levels learn from the bottom-up ones.
        levels: at most so many levels, of the coarsest maps.
        maps, level_norm: ``merged`` or ``stages``; ``none``, ``layer``, ``batch`` or ``merging``: see
            `ltr.methods.herbs.pyramid.Levels`.
        width: of the paths; None: the channels of the coarsest map, at most 1536.
        hidden_width: of the top-down projections' hidden layer: ``level``, the channels that the level has in the
            released code, or ``path``, ``width``, as in checkpoints from before this option.
        resampling: ``interpolate``, or ``learned`` as in the released code, which binds the network to one image size.
        mix_equal_levels: with ``learned``, mix the locations also between levels of one size (HERBS's code); False adds
            them as they are (PIM's code).
        init: of the paths' layers: ``pytorch`` (released) or ``he``, see `pyramid.Path`. The paper does not
            say.
        classifier: of locations: ``linear`` (equation 1) or ``conv`` (released).
        location_rule: ``location`` ranks by each location's own largest probability (equation 2), ``image_class`` by
            its probability of the class of the whole image (HERBS's code), ``random`` is a control.
        selected: locations to select of each level; None: by ``selected_fractions``.
        selected_fractions: their share of the level's; None: 1/9, 2/9, 4/9, 2/9.
        joints, locations_per_joint, dropout: of `ltr.methods.herbs.combiner.GraphCombiner`.
        merged_weight, layer_weight, dropped_weight, refinement_weight: of the terms in `ltr.methods.herbs.losses`.
        refinement_reduction: ``sum_over_classes`` (paper) or ``mean_over_classes`` (released).
        temperature: T0, at which refinement starts.
        temperature_period: epochs of 80 between two halvings; None: the paper's formula.
        readout: what a run is evaluated by, ``sum_of_logits`` (paper) or ``mean_of_softmaxes`` (released).
        log_gradient_norms: measure each weighted term's gradient in the first step of every epoch, which costs a
            backward pass for each.

    Raises:
        ConfigError: refinement with the top-down path alone, which leaves no second classifier to learn from.
    """

    provides = ("logits", "features")
    accepts_extras = True

    def __init__(
        self,
        *,
        paths: Paths = "both",
        suppression: bool = True,
        refinement: bool = True,
        levels: int = 4,
        maps: Literal["merged", "stages"] = "merged",
        level_norm: Literal["none", "layer", "batch", "merging"] = "none",
        width: int | None = None,
        hidden_width: Literal["level", "path"] = "level",
        resampling: Literal["interpolate", "learned"] = "interpolate",
        mix_equal_levels: bool = True,
        init: Literal["pytorch", "he"] = "pytorch",
        classifier: Literal["linear", "conv"] = "linear",
        location_rule: Chooser = "location",
        selected: Sequence[int] | None = None,
        selected_fractions: Sequence[float] | None = None,
        joints: int | None = None,
        locations_per_joint: int = 64,
        dropout: float = 0.1,
        merged_weight: float = 1.0,
        layer_weight: float = 0.3,
        dropped_weight: float = 5.0,
        refinement_weight: float = 1.0,
        refinement_reduction: str = "sum_over_classes",
        temperature: float = 64.0,
        temperature_period: float | None = None,
        readout: Readout = "sum_of_logits",
        log_gradient_norms: bool = False,
    ) -> None:
        self.options = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        if refinement and paths == "top_down":
            raise ConfigError(
                "method.refinement=true needs a classifier to learn from beside the one that learns: "
                "method.paths=both, or none for the last two blocks of a plain backbone. With "
                "method.paths=top_down set method.refinement=false"
            )
        if selected is not None and selected_fractions is not None:
            raise ConfigError("method.selected and method.selected_fractions both say how many locations; give one")

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        # the role of ERM's network: the backbones start from the same bits
        return [Stage("herbs", "representation", settings, module=HerbsNetwork, options=self.options)]
