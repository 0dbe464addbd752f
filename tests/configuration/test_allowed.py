"""Ranges and choices of the configs."""

import math

import pytest

from ltr.configuration.allowed import check_values, find_problem


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (0, "[0, 1)"),
        (0.999, "[0, 1)"),
        (3, "int [1, inf)"),
        (None, "(0, inf) or null"),
        (1e9, "(0, inf) or null"),
        ("auto", "[0, inf) or auto"),
        (0, "[0, inf) or auto"),
        ("none", ["none", "official"]),
        (None, [None, "simple"]),
        (True, [True, False]),
    ],
)
def test_allowed_values_pass(value, rule):
    assert find_problem(value, rule) is None


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (1, "[0, 1)"),
        (-1e-9, "[0, 1)"),
        (0, "int [1, inf)"),
        (1.5, "int [1, inf)"),
        (True, "int [0, inf)"),
        ("3", "int [0, inf)"),
        (None, "[0, 1)"),
        (0, "(0, inf) or null"),
        ("auto", "(0, inf) or null"),
        (None, "[0, inf) or auto"),
        (-1, "[0, inf) or auto"),
        ("automatic", "[0, inf) or auto"),
        (math.nan, "[0, inf)"),
        (math.inf, "[0, inf)"),
        ("non", ["none", "official"]),
        (1, [True, False]),
        ("null", "(0, inf) or null"),
        ("false", "[0, inf) or false"),
    ],
)
def test_other_values_are_refused_with_the_rule_in_the_message(value, rule):
    reason = find_problem(value, rule)
    assert reason is not None
    assert (rule if isinstance(rule, str) else "one of") in reason


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("1e-3", "(0, inf)"),
        ("3", "int [0, inf)"),
        ("null", "(0, inf) or null"),
        ("false", [True, False]),
        ("null", [None, "simple"]),
    ],
)
def test_quotes_around_a_value_that_needs_none_are_named(value, rule):
    assert find_problem(value, rule).endswith(". The value is a text; write it without quotes")


def test_the_nearest_choice_is_suggested():
    assert "Did you mean 'official'?" in find_problem("offical", ["none", "official"])


def test_all_mistakes_are_found_with_their_dotted_names():
    config = {
        "seed": -1,
        "_allowed_": {"seed": "int [0, inf)"},
        "loss": {"beta": 1.0, "_allowed_": {"beta": "[0, 1)"}},
    }
    mistakes = check_values(config)
    assert [m.split(":")[0] for m in mistakes] == ["seed=-1", "loss.beta=1.0"]


def test_an_unreadable_rule_is_reported_as_a_mistake_of_the_config():
    assert "cannot be read" in find_problem(1, "0 to 1")


@pytest.mark.parametrize(
    ("value", "fine"), [(256, True), (None, True), ([256, 256], True), ([0, 1], False), ("a", False)]
)
def test_a_rule_may_take_one_number_or_a_list(value, fine):
    rule = "int [1, inf) or null or list of int [1, inf)"
    assert find_problem(value, rule) == (None if fine else f"allowed is {rule}")
