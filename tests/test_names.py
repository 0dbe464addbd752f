"""When two names are the same, and when they only look it."""

from __future__ import annotations

import pytest

from ltr.names import canonical, counted, look_alikes, missing_values, unique_names


def test_only_repeated_names_get_their_ids():
    names = ["Iris", "gre\u0301be", "Crane", "gr\u00e9be", "crane", "Iris"]
    assert unique_names(names, range(6)) == (
        *("Iris (id 0)", "gr\u00e9be (id 1)", "Crane", "gr\u00e9be (id 3)", "crane", "Iris (id 5)"),
    )
    assert unique_names(["b", "a"], ["n1", "n2"]) == ("b", "a")


def test_a_letter_and_its_accent_are_the_composed_letter():
    assert canonical("gre\u0301be") == canonical("gr\u00e9be") == "gr\u00e9be"


@pytest.mark.parametrize(
    "other", ["Owl", "owl ", " owl", "o\u200bwl", "\ufeffowl", "owl\u00a0", "ow\u00adl", "owl\t", "owl\ufe0f"]
)
def test_names_that_a_reader_cannot_tell_apart_are_grouped(other):
    assert look_alikes(["cat", "owl", other, "owl", "dog"]) == [["owl", other]]


def test_names_that_differ_visibly_are_not_grouped():
    assert look_alikes(["owl", "owls", "barn owl", "barnowl", "barn_owl", "0wl"]) == []


def test_inner_white_space_counts_once():
    assert look_alikes(["barn owl", "barn  owl", "barn\u00a0owl"]) == [["barn owl", "barn  owl", "barn\u00a0owl"]]


def test_spellings_of_missing_values_are_recognised():
    names = ["nan", "None", "NULL", "N/A", "", " ", "\u200b", "none of them", "banana", "Nana"]
    assert missing_values(names) == ["nan", "None", "NULL", "N/A", "", " ", "\u200b"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((1, "epoch"), "1 epoch"),
        ((0, "epoch"), "0 epochs"),
        ((2000, "image"), "2,000 images"),
        ((1234567, "image"), "1,234,567 images"),
        ((0.5, "epoch"), "0.5 epochs"),
        ((1, "class", "classes"), "1 class"),
        ((2, "class", "classes"), "2 classes"),
    ],
)
def test_a_count_agrees_with_its_noun(arguments, text):
    assert counted(*arguments) == text


@pytest.mark.parametrize(
    ("names", "missing"),
    [(["0", "1", "-1"], ["-1"]), (["-1.0", "0.0", "2.0"], ["-1.0"]), (["-1", "1"], []), (["-2", "-1", "0"], [])],
)
def test_minus_one_beside_zero_is_a_missing_value(names, missing):
    assert missing_values(names) == missing
