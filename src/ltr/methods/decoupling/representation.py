"""Base class for the decoupled methods, which start from the network that ERM trains or from an existing one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ltr.configuration.targets import instantiate
from ltr.errors import ConfigError
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.stage import DatasetInfo, Method, Settings, Stage, StageOutput
from ltr.methods.decoupling.options import RepresentationOptions
from ltr.methods.erm import ERM


class FromRepresentation(Method):
    """Base of the methods whose first stage is ``representation``.

    That stage is ERM's own, so that it has the same key and is trained once for all of them. The top level of the
    configuration says how: any sampler and any loss.

    Args:
        options: the fields of the method's declaration, which has those of `RepresentationOptions`.

    Raises:
        ConfigError: both are given, or the config names no method.
    """

    provides = ("logits", "features")
    accepts_extras = True

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
                f"{keys or 'method.representation'}: no method is chosen here. Choose one with "
                "method.representation=NAME; how the representation is trained the top level says, e.g. loss=ldam"
            )
        self.start_from = start_from
        self.base: Method = ERM() if representation is None else instantiate(representation)

    @property
    def takes_stored_features(self) -> bool:  # type: ignore[override]
        return self.base.takes_stored_features

    def check(self, dataset_info: DatasetInfo) -> None:
        self.base.check(dataset_info)

    def representation(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        """Return the stages of the method below, the last of them called ``representation``; warns of a poor base.

        Raises:
            ConfigError: the method below does not end with a network that is trained.
        """
        stages = self.base.stages(settings, dataset_info)
        if stages[-1].module is None:
            raise ConfigError(
                f"method.representation: {type(self.base).__name__} ends with '{stages[-1].name}', which trains no "
                "network; a method that does is needed, such as erm or sla"
            )
        if any(stage.name == "representation" for stage in stages[:-1]):
            raise ConfigError(
                f"method.representation: {type(self.base).__name__} has a representation of its own, and starts from "
                "it; a method that trains one network is needed, such as erm or sla"
            )
        if self.start_from is None:
            warn_of_balanced_representation(settings, dataset_info)
        return [*stages[:-1], replace(stages[-1], name="representation", checkpoint=self.start_from)]


def network_of(outputs: Mapping[str, StageOutput]) -> ImageClassifier:
    """Return the trained representation among the parents."""
    return outputs["representation"].load().as_classifier()


def warn_of_balanced_representation(settings: Settings, dataset_info: DatasetInfo) -> None:
    """Warn where the representation was drawn class-balanced from its first epoch on.

    On ImageNet-LT such a base costs cRT 5 to 7 points against an instance-balanced one (the survey of Zhang et al.,
    TPAMI: 44.9 against 49.9 after 90 epochs, 43.0 against 50.3 after 200).
    """
    counts = np.asarray(dataset_info.class_counts)
    drawn = instantiate(settings.sampler).class_probabilities(counts, 0, settings.epochs)
    uniform = np.full(len(counts), 1 / len(counts))
    if np.allclose(drawn, uniform) and not np.allclose(counts / counts.sum(), uniform):
        warnings.warn(
            "the representation is drawn class-balanced, a poor base for decoupled methods (5 to 7 points below an "
            "instance-balanced one in published comparisons). Use sampler=instance: the second stage balances",
            stacklevel=3,
        )
