"""Warnings about labels: names that look the same, names that mean a missing value, one class alone."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from ltr.data.label_warnings import warn_of_names
from ltr.data.source import Source
from ltr.data.splitting.exclusion import read_split


def source_of(*names: str) -> Source:
    labels = np.repeat(np.arange(len(names)), 3)
    images = np.zeros((len(labels), 2, 2, 1), dtype=np.uint8)
    return Source("toy", images, labels, names, {"train": range(len(labels)), "test": range(len(labels), len(labels))})


@pytest.mark.parametrize("other", ["Cat", "cat ", " cat", "c\u200bat", "CAT\ufeff", "\uff43\uff41\uff54"])
def test_names_that_look_alike_are_shown_with_their_invisible_characters(other):
    with pytest.warns(UserWarning, match="differ only in case, width, white space or invisible characters") as caught:
        warn_of_names(source_of("cat", other, "dog"))
    assert f"{'cat'!a} and {other!a}" in str(caught[0].message)


@pytest.mark.parametrize("other", ["01", "1.0", "+1", " 1", "\u0661"])
def test_two_ways_to_write_a_number_are_shown(other):
    with pytest.warns(UserWarning, match="write the same number in different ways") as caught:
        warn_of_names(source_of("1", other, "2"))
    assert f"{'1'!a} and {other!a}" in str(caught[-1].message)


@pytest.mark.parametrize("name", ["nan", "None", "null", "NaN", "N/A", " "])
def test_names_of_missing_values_are_counted(name):
    with pytest.warns(UserWarning, match=r"for a missing label: .*\(3 images\)"):
        warn_of_names(source_of("cat", name))


def test_usual_names_are_not_reported():
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        warn_of_names(source_of("cat", "cats", "cat 2", "none of the others", "1", "-1", "10", "1.5", "--1"))
    assert warned == []


def test_a_single_class_is_reported():
    config = {"split": {"_target_": "ltr.data.splitting.closed_set.natural"}}
    with pytest.warns(UserWarning, match=r"all 3 training images are of one class, 'cat'"):
        read_split(config, source_of("cat"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_split(config, source_of("cat", "dog"))
