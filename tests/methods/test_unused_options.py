"""Options without an effect are refused before training, by name."""

from __future__ import annotations

import warnings

import pytest
from method_plans import planned

from ltr.errors import ConfigError
from ltr.losses.classification import ClassBalanced

KMEANS = ("dataset=digits_bg", "method=background_splitting")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((*KMEANS, "method.aux.top_k=3"), "aux.top_k=3 has no effect"),
        ((*KMEANS, "method.aux.rank=genus"), "aux.rank=genus has no effect"),
        ((*KMEANS, "method.aux.run=nowhere"), "aux.run=nowhere has no effect"),
        (("method=sla", "method.temperature=2"), "method.temperature=2 has no effect"),
        (("method=sla", "method.distilled_weight=0.5"), "method.distilled_weight=0.5 has no effect"),
        (("method=tau_norm", "method.grid.stop=2"), r"method\.grid\.stop=2 has no effect with method\.tau=1"),
    ],
)
def test_options_without_an_effect_are_refused(overrides, message):
    plan = planned(*overrides)
    with pytest.raises(ConfigError, match=message):
        plan.method.check(plan.dataset_info)


def test_options_of_self_distillation_are_accepted_with_it():
    plan = planned("method=sla", "method.self_distillation=true", "method.temperature=2")
    plan.method.check(plan.dataset_info)


def test_options_of_the_focal_base_warn_with_another_one():
    with pytest.warns(UserWarning, match=r"gamma=2.*no effect with base=softmax"):
        ClassBalanced([5, 2], beta=0.5, gamma=2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ClassBalanced([5, 2], beta=0.5, base="focal", gamma=2.0, weight_inside=True)
