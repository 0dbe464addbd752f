"""M2m (major-to-minor): generate images of rare classes from images of frequent ones (Kim, Jeong, Shin, CVPR 2020).

The method trains a plain network g first, then a network f from scratch. In the deferred phase of f, batches are
class-balanced, and most images of a rare class k are replaced: a few gradient steps change an image x0 of a frequent
class k0 until g classifies it as k, while f's logit of k0 decreases:

    x* = x0 + delta,   minimising   L(g; x, k) + lambda f_k0(x),   accepted if g's probability of k is at least gamma.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from ltr.errors import ConfigError
from ltr.identity import named
from ltr.methods.core.class_shares import check_balanced_sampler
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Method, Stage
from ltr.methods.erm import plain_representation
from ltr.methods.m2m.network import ONLY_IN_MEMORY, M2mClassifier
from ltr.methods.m2m.options import M2mClassifierOptions, M2mOptions


@named("method/m2m")
class M2m(Method):
    """M2m: stage ``generator``, the network g of plain ERM, then ``classifier``, the network f (settings: top level).

    g is always trained with cross-entropy, instance sampling and a linear head: it is ERM's representation, which is
    trained once for all methods.

    Raises:
        ConfigError: gamma is a probability above 1, an augmentation mixes images, ``seed_source=dataset`` with image
            files, SLA as a further loss term, or a sampler that does not end class-balanced.
    """

    Options = M2mOptions
    options: M2mOptions
    provides = ("logits", "features")
    accepts_extras = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.options.representation is not None:
            _refuse_joint_labels(self.options.representation, "method.representation")
            raise ConfigError(
                "method.representation: M2m trains its network from scratch and its generator as plain ERM. Load "
                "another generator with method.start_from=CHECKPOINT"
            )
        if self.options.accept_on == "prob" and self.options.gamma > 1:
            raise ConfigError(
                f"method.gamma={self.options.gamma}: no probability is above 1. Set at most 1, or method.accept_on=loss"
            )

    def check(self, dataset_info: DatasetInfo) -> None:
        present = [count for count in dataset_info.class_counts if count]
        if min(present) == max(present):
            warnings.warn(
                "all classes have the same number of training images: M2m has no more frequent class for seeds, "
                "and trains like plain re-sampling",
                stacklevel=2,
            )

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        self._check_settings(settings)
        check_balanced_sampler(settings, dataset_info, "sampler", "M2m generates images of rare classes")
        generator = plain_representation(settings, dataset_info, "generator", self.options.start_from)
        options = self.options.part(M2mClassifierOptions)
        classifier = Stage(
            "classifier", "m2m", settings, module=M2mClassifier, parents=(generator.name,), options=options
        )
        return [generator, classifier]

    def _check_settings(self, settings: Settings) -> None:
        mix = settings.augment.get("mix")
        if mix is not None:
            raise ConfigError(
                f"method=m2m with augment.mix={mix}: a mixed image has two classes, and M2m replaces images by their "
                "class. Use an augmentation that does not mix, such as augment=cifar"
            )
        if self.options.seed_source == "dataset" and settings.augment.get("files"):
            raise ConfigError(ONLY_IN_MEMORY)
        for config in settings.extras:
            _refuse_joint_labels(config, "method.extras")


def _refuse_joint_labels(config: Mapping[str, Any], where: str) -> None:
    if str(config.get("_target_", "")).startswith("ltr.methods.sla.method"):
        raise ConfigError(
            f"{where}: SLA does not combine with method=m2m, whose generator knows upright images and plain classes, "
            "not SLA's joint labels of class and transformation. Use one of the two"
        )
