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

    Raises:
        ConfigError: refinement with the top-down path only, which has no second classifier to learn from.
    """

    Options = HERBSOptions
    options: HERBSOptions
    provides = ("logits", "features")
    accepts_extras = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.options.refinement and self.options.paths == "top_down":
            raise ConfigError(
                "method.refinement=true distils one path's classifiers into another's, and method.paths=top_down has "
                "one path. Set method.refinement=false, method.paths=both, or none for the last two blocks of the "
                "backbone"
            )
        if self.options.selected is not None and self.options.selected_fractions is not None:
            raise ConfigError(
                "method.selected and method.selected_fractions both set the number of locations. Give one"
            )

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        # the role of ERM's network: the backbones start from the same bits
        return [Stage("herbs", "representation", settings, module=HerbsNetwork, options=dict(self.options))]
