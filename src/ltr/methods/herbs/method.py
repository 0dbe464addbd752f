"""HERBS (Chou, Kao and Lin, arXiv 2303.06442): high-temperature refinement and background suppression; and PIM."""

from __future__ import annotations

from typing import Any

from ltr.errors import ConfigError
from ltr.identity import named
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Method, Stage
from ltr.methods.herbs.network import HerbsNetwork
from ltr.methods.herbs.options import HERBSOptions


@named("method/herbs")
class HERBS(Method):
    """HERBS and PIM: one stage, ``herbs``, with the training settings of the top level of the configuration.

    Args:
        options: the fields of `HERBSOptions`.

    Raises:
        ConfigError: refinement with the top-down path only, which has no second classifier to learn from.
    """

    Options = HERBSOptions
    options: HERBSOptions
    provides = ("logits", "features")
    accepts_extras = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        chosen = self.options
        if chosen.refinement and chosen.paths == "top_down":
            raise ConfigError(
                "method.refinement=true needs a classifier to learn from beside the one that learns: "
                "method.paths=both, or none for the last two blocks of a plain backbone. With "
                "method.paths=top_down set method.refinement=false"
            )
        if chosen.selected is not None and chosen.selected_fractions is not None:
            raise ConfigError("method.selected and method.selected_fractions both say how many locations; give one")

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        # the role of ERM's network: the backbones start from the same bits
        return [Stage("herbs", "representation", settings, module=HerbsNetwork, options=dict(self.options))]
