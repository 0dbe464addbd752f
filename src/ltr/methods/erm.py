"""Empirical risk minimisation: one network trained once, with any loss and any sampler.

This is also "joint" training of the decoupling paper (Kang et al., ICLR 2020) and the representation stage that the
decoupled methods start from: the stage's role, settings and data decide its bits, not the method that asks for it.
"""

from __future__ import annotations

from ltr.identity import named
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Method, Stage


@named("method/erm")
class ERM(Method):
    """Empirical risk minimisation: one stage, ``representation``, with the settings of the top level."""

    provides = ("logits", "features")
    accepts_extras = True
    takes_stored_features = True

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        return [Stage("representation", "representation", settings, module=ImageClassifier)]
