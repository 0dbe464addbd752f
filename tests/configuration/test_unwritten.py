"""Classes of the user's that lack a method of their base class are refused before they are used."""

from __future__ import annotations

import pytest
import torch

from ltr.configuration.targets import check_arguments, instantiate, locate
from ltr.configuration.unwritten import unwritten_methods
from ltr.data.sampling.samplers import Sampler
from ltr.errors import ConfigError
from ltr.evaluation.protocol import PerImageProtocol, Protocol
from ltr.evaluation.scorers import Scorer
from ltr.identity import names
from ltr.losses.base import ClassificationLoss
from ltr.methods.core.stage import Method
from ltr.models.tuning import Tuning

BASES = (ClassificationLoss, Sampler, Protocol, PerImageProtocol, Scorer, Method, Tuning)


class NoLosses(ClassificationLoss):
    pass


class OwnForward(ClassificationLoss):
    def forward(self, logits, labels, mix=None):
        return logits.mean()


class MeanLoss(ClassificationLoss):
    def losses(self, logits, labels, weight):
        return torch.nn.functional.cross_entropy(logits, labels)


@pytest.mark.parametrize("base", BASES)
def test_a_subclass_that_defines_nothing_is_named_with_what_it_lacks(base):
    reason = unwritten_methods(type("Empty", (base,), {}))
    assert f"{__name__}.Empty does not define " in reason
    assert "leaves to its subclasses. Write " in reason


def test_shipped_classes_are_complete():
    kinds = [kind for kind in map(locate, names().values()) if isinstance(kind, type)]
    assert len(kinds) > 100
    assert [unwritten_methods(kind) for kind in kinds] == [None] * len(kinds)


def test_a_subclass_that_replaces_the_caller_is_complete():
    assert unwritten_methods(OwnForward) is None


def test_the_plan_and_the_construction_refuse_an_incomplete_class(monkeypatch):
    monkeypatch.setenv("LTR_ALLOW", __name__)
    node = {"_target_": f"{__name__}.NoLosses", "_allowed_": {}}
    (mistake,) = check_arguments({"loss": node})
    assert f"{__name__}.NoLosses does not define losses(), which ClassificationLoss leaves" in mistake
    with pytest.raises(ConfigError, match=r"NoLosses does not define losses\(\)"):
        instantiate(node, None)


def test_a_loss_that_returns_the_mean_is_refused_with_both_shapes():
    with pytest.raises(ConfigError, match=r"MeanLoss\.losses returns shape \[\], and .* needed, \[4\]\. Return it"):
        MeanLoss(None)(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))
