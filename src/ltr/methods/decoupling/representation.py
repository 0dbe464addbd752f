"""Base class for decoupled methods, which start from a network trained by ERM, by another method, or from a file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from ltr.configuration.targets import class_name, instantiate
from ltr.errors import ConfigError
from ltr.methods.core.class_shares import are_nearly_equal, shares_of_epoch, training_shares
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.options import Options
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Method, Stage, StageOutput
from ltr.methods.decoupling.options import RepresentationOptions
from ltr.methods.erm import ERM


class FromRepresentation(Method):
    """Base class for methods whose first stage is ``representation``.

    The stage is the same as ERM's, so it has the same key and is trained once for all methods. The top level of the
    configuration sets its sampler, loss and other settings.

    Args:
        options: the fields of the method's declaration, a subclass of `RepresentationOptions`.

    Attributes:
        keeps_head: whether it continues with the representation's head, and not with its backbone alone.

    Raises:
        ConfigError: ``start_from`` and ``representation`` are both set, or ``representation`` is not a method.
    """

    provides = ("logits", "features")
    accepts_extras = True
    keeps_head: ClassVar[bool] = False

    options: RepresentationOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        start_from, representation = self.options.start_from, self.options.representation
        if start_from is not None and representation is not None:
            raise ConfigError(
                f"method.start_from={start_from} takes the representation from a file and method.representation trains "
                "one: give only one of them"
            )
        if representation is not None and "_target_" not in representation:
            keys = ", ".join(f"method.representation.{key}" for key in representation)
            raise ConfigError(
                f"{keys or 'method.representation'}: this node names no method. Choose one with "
                "method.representation=NAME; the top level sets how it is trained, e.g. loss=ldam"
            )
        self.start_from = start_from
        self.base: Method = ERM() if representation is None else instantiate(representation)

    @property
    def takes_stored_features(self) -> bool:  # type: ignore[override]
        return self.base.takes_stored_features

    def check(self, dataset_info: DatasetInfo) -> None:
        self.base.check(dataset_info)

    def representation(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        """Return the stages that train the representation; the last one is called ``representation``.

        Warns if the representation is trained class-balanced.

        Raises:
            ConfigError: the last stage of ``method.representation`` is not a trained network, or its head does not fit.
        """
        if self.keeps_head and (obstacle := self.base.plain_head_obstacle(settings)) is not None:
            raise ConfigError(
                f"head={class_name(settings.head)}: {type(self).__name__} continues with the head of "
                f"method.representation ({type(self.base).__name__}). {obstacle[0].upper()}{obstacle[1:]}"
            )
        stages = self.base.stages(settings, dataset_info)
        if stages[-1].module is None:
            raise ConfigError(
                f"method.representation: the last stage of {type(self.base).__name__}, '{stages[-1].name}', trains no "
                "network. Choose a method that trains one, such as erm or sla"
            )
        if any(stage.name == "representation" for stage in stages[:-1]):
            raise ConfigError(
                f"method.representation: {type(self.base).__name__} itself starts from a representation. Choose a "
                "method that trains one network, such as erm or sla"
            )
        if self.start_from is None:
            warn_of_balanced_representation(settings, dataset_info)
        return [*stages[:-1], replace(stages[-1], name="representation", checkpoint=self.start_from)]


class TwoStages(FromRepresentation):
    """Base class for methods with the stages ``representation`` and ``classifier``, which is trained on its backbone.

    Attributes:
        declaration: declaration of that network's options, a part of the method's.
    """

    options: Any
    module: type[ImageClassifier]
    declaration: type[Options]

    def classifier_settings(self, settings: Settings) -> Settings:
        """Return the training settings of the second stage, those of ``method.classifier``."""
        return settings.for_stage(self.options.classifier, "method.classifier")

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        second = self.classifier_settings(settings)
        options = self.options.part(self.declaration)
        return [*self.representation(settings, dataset_info), classifier_stage(second, self.module, options)]


def classifier_stage(settings: Settings, module: type[ImageClassifier], options: Mapping[str, Any]) -> Stage:
    """Return the stage that trains a classifier on the finished representation."""
    return Stage("classifier", "classifier", settings, module=module, parents=("representation",), options=options)


def network_of(outputs: Mapping[str, StageOutput]) -> ImageClassifier:
    """Return the network of the stage ``representation``, with a head of one row per class."""
    return outputs["representation"].load().as_classifier()


def warn_of_balanced_representation(settings: Settings, dataset_info: DatasetInfo) -> None:
    """Warn if the representation is trained with nearly equal shares of all classes from the first epoch.

    On ImageNet-LT this costs cRT 5 to 7 points compared with instance-balanced sampling (the survey of Zhang et al.,
    TPAMI: 44.9 against 49.9 after 90 epochs, 43.0 against 50.3 after 200).
    """
    is_balanced, data_is_balanced = (
        are_nearly_equal(shares, dataset_info)
        for shares in (shares_of_epoch(settings, dataset_info, 0), training_shares(dataset_info))
    )
    if is_balanced and not data_is_balanced:
        warnings.warn(
            "the representation is trained with class-balanced sampling, which costs decoupled methods 5 to 7 points "
            "in published comparisons with instance-balanced sampling. Use sampler=instance: the second stage balances",
            stacklevel=3,
        )
