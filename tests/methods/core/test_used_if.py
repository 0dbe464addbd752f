"""Conditions of options: their grammar, their names and values, and the warnings of a plan."""

from __future__ import annotations

import functools
import warnings

import pytest

from ltr.configuration.allowed import find_problem
from ltr.configuration.configs import config_names, read_config
from ltr.configuration.overrides import load_config
from ltr.configuration.targets import instantiate, locate
from ltr.errors import ConfigError
from ltr.methods.core.options import Options
from ltr.methods.core.used_if import comparisons, holds
from ltr.runs.plan import plan_of


def declarations() -> list[type[Options]]:
    for name in config_names("method"):
        locate(read_config(f"method/{name}")["_target_"])  # imports the declarations
    seen: list[type[Options]] = []
    waiting: list[type[Options]] = [Options]
    while waiting:
        declaration = waiting.pop()
        seen.append(declaration)
        waiting += declaration.__subclasses__()
    return [one for one in seen if one.__module__.startswith("ltr.") and one.used_if]


@pytest.mark.parametrize(
    ("condition", "options", "expected"),
    [
        ("a>0", {"a": 0.5}, True),
        ("a>0", {"a": 0}, False),
        ("a>0", {"a": None}, True),
        ("a!=0", {"a": None}, True),
        ("a=null", {"a": None}, True),
        ("a=null", {"a": 1}, False),
        ("a>0", {"a": "auto"}, True),
        ("a=true", {"a": True}, True),
        ("a!=never", {"a": "never"}, False),
        ("a=x or b=y", {"a": "z", "b": "y"}, True),
        ("a=x and b=y", {"a": "x", "b": "z"}, False),
        ("a=x and b=y or c>1", {"a": "x", "b": "z", "c": 2}, True),
    ],
)
def test_conditions(condition, options, expected):
    assert holds(condition, options) is expected


@pytest.mark.parametrize("condition", ["", "a", "a>", "a<1", "a = 1", "a=1 nor b=2", "a>b"])
def test_other_texts_are_no_conditions(condition):
    with pytest.raises(ConfigError, match="no condition"):
        comparisons(condition)


@pytest.mark.parametrize("used_if", [{"a": "c>0"}, {"c": "a>0"}])
def test_a_class_with_an_unknown_name_is_refused(used_if):
    with pytest.raises(ConfigError, match="there is no option 'c'; there are a, b"):

        class Wrong(Options, used_if=used_if):
            a: float = 1.0
            b: float = 1.0


def test_conditions_compare_with_allowed_values():
    with_conditions = declarations()
    assert len(with_conditions) > 10
    for declaration in with_conditions:
        rules = declaration.rules()
        for option, condition in declaration.used_if.items():
            for comparison in (one for alternative in comparisons(condition) for one in alternative):
                assert comparison.name != option, (declaration, condition)
                if comparison.relation != ">" and comparison.name in rules:
                    assert find_problem(comparison.value, rules[comparison.name]) is None, (declaration, condition)


CASES = [
    (("method=rkd_classification",), "temperature=8", "hkd_weight=1"),
    (("method=rkd_classification",), "level=-1", "fitnet_weight=1"),
    (("method=weight_balancing", "method.projection=never"), "radius=0.5", "projection=step"),
    (("method=cc_sam", "method.flat_share=0"), "radius=1e-3", "flat_share=0.1"),
    (("method=cc_sam", "method.flat_share=0"), "perturb=network", "flat_share=0.1"),
    (("method=herbs", "method.suppression=false"), "joints=16", "suppression=true"),
    (("method=herbs", "method.suppression=false"), "dropped_weight=1", "suppression=true"),
    (("method=herbs", "method.refinement=false"), "temperature=32", "refinement=true"),
    (("method=m2m", "method.rejection=none"), "gamma=0.5", "rejection=both"),
    (("method=ride", "method.diversity_factor=0"), "temperature_from=0.5", "diversity_factor=-0.1"),
    (("method=bcl", "method.contrastive_weight=0"), "temperature=0.5", "contrastive_weight=1"),
    (("method=arpl", "method.open_weight=0"), "radius=per_class", "open_weight=0.1"),
]


@functools.cache
def source():
    return instantiate(load_config([])["dataset"]["source"])


def messages(*overrides: str) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan_of(load_config(["dataset=digits_lt", "trainer.accelerator=cpu", *overrides]), source())
    return [str(one.message) for one in caught if "has no effect" in str(one.message)]


@pytest.mark.parametrize(("base", "change", "remedy"), CASES)
def test_an_option_that_others_leave_without_effect_is_reported(base, change, remedy):
    assert messages(*base) == []
    (message,) = messages(*base, f"method.{change}")
    assert message.startswith(f"method.{change.partition('=')[0]}=")
    assert f"method.{remedy.partition('=')[0]}" in message
    kept = [one for one in base if not one.startswith(f"method.{remedy.partition('=')[0]}=")]
    assert messages(*kept, f"method.{change}", f"method.{remedy}") == []


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("method=erm", "optimizer.extra_lr=0.01"), "optimizer.extra_lr=0.01 has no effect"),
        (("method=erm", "optimizer.head_lr=0.01"), None),
        (("method=erm", "optimizer.last_block_lr=0.01"), None),
        (
            ("method=crt", "method.classifier.optimizer.extra_lr=0.01"),
            "method.classifier.optimizer.extra_lr=0.01 has no",
        ),
        (("method=mislas",), None),
        (("method=sla", "method.self_distillation=true", "optimizer.extra_lr=0.01"), None),
        (("method=erm", "trainer.max_skipped=0.5"), "trainer.max_skipped=0.5 has no effect: trainer.on_error is raise"),
        (("method=erm", "trainer.max_skipped=0.5", "trainer.on_error=skip"), None),
        (("method=erm", "trainer.max_nonfinite=3"), "trainer.max_nonfinite=3 has no effect"),
        (("method=erm", "trainer.max_nonfinite=3", "trainer.on_nonfinite=skip"), None),
    ],
)
def test_unread_rates_and_limits_are_reported(overrides, expected):
    shown = messages(*overrides)
    assert shown == [] if expected is None else [expected in message for message in shown] == [True]
