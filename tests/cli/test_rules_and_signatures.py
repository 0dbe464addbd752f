"""Rules of configs that hold for lists, and values compared with the annotations of the code that they are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import pytest

from ltr.configuration.allowed import as_text, check_values, find_problem
from ltr.configuration.annotations import in_words
from ltr.configuration.signatures import fits


@pytest.mark.parametrize(
    ("value", "rule"),
    [([0.5, 0.6], "list of (0, 1)"), ([], "list of int [1, inf)"), (["a", "b"], [["a", "b", "c"]]), ([], [["a"]])],
)
def test_a_list_whose_entries_are_allowed_passes(value, rule):
    assert find_problem(value, rule) is None


@pytest.mark.parametrize(
    ("value", "rule", "words"),
    [
        ([0.5, 1], "list of (0, 1)", "allowed is (0, 1)"),
        (0.5, "list of (0, 1)", "a list is needed, such as [0.5]"),
        (["a", "d"], [["a", "b"]], "one of: a, b"),
        ("a", [["a", "b"]], "a list is needed"),
        ([3], "int [1, inf)", "allowed is int [1, inf)"),
        (["a"], ["a", "b"], "one of: a, b"),
    ],
)
def test_a_list_is_accepted_only_for_a_list_option(value, rule, words):
    assert words in find_problem(value, rule)


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 2**63, [1.0, float("nan")]])
def test_a_number_too_large_for_an_array_is_refused_without_any_rule(value):
    assert check_values({"a": {"b": value}})[0].startswith("a.b=")


def test_values_are_shown_in_yaml_notation():
    assert as_text([True, None, 1.5, "x"]) == "[true,null,1.5,x]"


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (1, float), (1, int), (True, bool), ("x", str), (None, int | None), ("a", Literal["a", "b"]),
        ([1, 2.5], Sequence[float]), ([1], list[int]), ([], tuple[float, ...]), ({"a": 1}, Mapping[str, int]),
        ("anything", object),
    ],
)  # fmt: skip
def test_values_of_the_annotated_type_pass(value, hint):
    assert fits(value, hint)


@pytest.mark.parametrize(
    ("value", "hint", "words"),
    [
        (1.5, int, "a whole number"),
        (True, float, "a number"),
        (True, int | None, "a whole number or null"),
        (1, bool, "true or false"),
        (None, str, "a text"),
        ("c", Literal["a", "b"], "one of a, b"),
        ("12", Sequence[float], "a list of numbers"),
        (["x"], Sequence[float] | None, "a list of numbers or null"),
        ([1], Mapping[str, int], "a group of keys"),
    ],
)
def test_values_of_another_type_are_refused_with_the_name_of_the_type(value, hint, words):
    assert not fits(value, hint)
    assert in_words(hint) == words
