"""What the decoupled methods share: they start from the network that ERM trains, or from one that exists already."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ltr.configuration.targets import instantiate
from ltr.methods.base import ImageClassifier
from ltr.methods.erm import ERM
from ltr.methods.stage import DataFacts, Method, Settings, Stage, StageOutput


class FromRepresentation(Method):
    """Base of the methods whose first stage is ``representation``.

    That stage is ERM's own, so that it has the same key and is trained once for all of them. The top level of the
    configuration says how: any sampler and any loss.

    Args:
        start_from: a finished run's directory or a checkpoint file of this project to take the network from, in
            place of training it.
    """

    provides = ("logits", "features")

    def __init__(self, *, start_from: str | None = None) -> None:
        self.start_from = start_from

    def representation(self, settings: Settings, facts: DataFacts) -> Stage:
        """The first stage; warns of a sampler that makes a poor base."""
        (stage,) = ERM().stages(settings, facts)
        if self.start_from is None:
            warn_of_balanced_representation(settings, facts)
        return replace(stage, checkpoint=self.start_from)


def network_of(outputs: Mapping[str, StageOutput]) -> ImageClassifier:
    """The trained representation among the stages before."""
    return outputs["representation"].load()


def warn_of_balanced_representation(settings: Settings, facts: DataFacts) -> None:
    """Warn where the representation was drawn class-balanced from its first epoch on.

    On ImageNet-LT such a base costs cRT 5 to 7 points against an instance-balanced one (the survey of Zhang et al.,
    TPAMI: 44.9 against 49.9 after 90 epochs, 43.0 against 50.3 after 200).
    """
    counts = np.asarray(facts.class_counts)
    drawn = instantiate(settings.sampler).class_probabilities(counts, 0, settings.epochs)
    uniform = np.full(len(counts), 1 / len(counts))
    if np.allclose(drawn, uniform) and not np.allclose(counts / counts.sum(), uniform):
        warnings.warn(
            "the representation is drawn class-balanced, a poor base for decoupled methods (5 to 7 points below an "
            "instance-balanced one in published comparisons). Use sampler=instance: the second stage balances",
            stacklevel=3,
        )
