"""Empirical risk minimisation: one network trained once, with any loss and any sampler.

This is also "joint" training of the decoupling paper (Kang et al., ICLR 2020) and the representation stage that the
decoupled methods start from: the stage's role, settings and data decide its bits, not the method that asks for it.
"""

from __future__ import annotations

from dataclasses import replace

from ltr.configuration.configs import read_config, without_private
from ltr.identity import named
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Method, Stage
from ltr.models.heads import head_kind

_PLAIN = {"sampler": "sampler/instance", "loss": "loss/cross_entropy", "head": "head/linear"}


@named("method/erm")
class ERM(Method):
    """Empirical risk minimisation: one stage, ``representation``, with the settings of the top level."""

    provides = ("logits", "features")
    accepts_extras = True
    takes_stored_features = True

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        return [Stage("representation", "representation", settings, module=ImageClassifier)]


def plain_representation(
    settings: Settings, dataset_info: DatasetInfo, name: str, start_from: str | None = None
) -> Stage:
    """Return the stage of plain ERM: cross-entropy, instance sampling and a linear head.

    Args:
        settings: the main stage's; a linear head is kept with its options.
        start_from: a finished run's folder or a checkpoint to load instead of training.
    """
    plain = {key: without_private(read_config(config)) for key, config in _PLAIN.items()}
    if head_kind(settings.head) == "linear":
        plain["head"] = settings.head
    (stage,) = ERM().stages(settings.replaced(extras=(), **plain), dataset_info)
    return replace(stage, name=name, checkpoint=start_from)
