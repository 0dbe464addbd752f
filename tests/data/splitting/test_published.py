"""The published class lists: sizes, order and the quirks that papers share."""

import pytest

from ltr.data.splitting.published import (
    BACKGROUND_LISTS,
    OPEN_SET_LISTS,
    OPEN_SET_TRIALS,
    background_list,
    open_set_list,
)
from ltr.errors import ConfigError

SIZES = {  # known, unknown, classes that the numbers count
    "mnist": (6, None, 10),
    "svhn": (6, None, 10),
    "cifar10": (6, None, 10),
    "cifar_plus_10": (4, 10, 110),
    "cifar_plus_50": (4, 50, 110),
    "tiny_imagenet": (20, None, 200),
    "cub_easy": (100, 32, 200),
    "cub_medium": (100, 34, 200),
    "cub_hard": (100, 34, 200),
    "cub_hard_merged": (100, 68, 200),
}


@pytest.mark.parametrize("name", OPEN_SET_LISTS)
def test_open_set_lists_have_the_published_sizes_without_repetition(name):
    for trial in range(5 if name in OPEN_SET_TRIALS else 1):
        published = open_set_list(name, trial)
        unknown = None if published.unknown is None else len(set(published.unknown))
        assert (len(set(published.known)), unknown, published.num_classes) == SIZES[name]
        assert len(published.known) == SIZES[name][0]


@pytest.mark.parametrize(
    ("name", "trial", "known"),
    [
        ("mnist", 0, (2, 4, 5, 9, 8, 3)),
        ("svhn", 4, (4, 9, 2, 7, 1, 0)),
        ("cifar10", 2, (1, 5, 7, 3, 9, 4)),
        ("cifar_plus_10", 4, (1, 0, 9, 8)),
        ("cifar_plus_50", 0, (4, 7, 9, 1)),
    ],
)
def test_known_classes_are_in_the_published_order(name, trial, known):
    assert open_set_list(name, trial).known == known


def test_the_first_trial_of_tiny_imagenet_begins_and_ends_as_published():
    known = open_set_list("tiny_imagenet", 0).known
    assert known[:3] == (108, 147, 17)
    assert known[-2:] == (1, 133)


@pytest.mark.parametrize(
    ("name", "twins"),
    [("mnist", []), ("svhn", [(0, 1)]), ("cifar10", [(0, 1)]), ("cifar_plus_10", [(1, 2)]), ("tiny_imagenet", [])],
)
def test_trials_that_are_the_same_as_sets_are_the_known_ones(name, twins):
    sets = [set(open_set_list(name, trial).known) for trial in range(5)]
    assert [(i, j) for i in range(5) for j in range(i + 1, 5) if sets[i] == sets[j]] == twins


@pytest.mark.parametrize(("name", "shared"), [("cifar_plus_10", 9), ("cifar_plus_50", 46)])
def test_corresponding_trials_of_cifar_plus_10_and_50_share_most_unknown_classes(name, shared):
    second, third = (set(open_set_list(name, trial).unknown) for trial in (1, 2))
    assert len(second & third) == shared


@pytest.mark.parametrize("trial", range(5))
def test_each_list_of_50_ends_with_its_list_of_10(trial):
    small, large = open_set_list("cifar_plus_10", trial), open_set_list("cifar_plus_50", trial)
    assert large.known == small.known
    assert large.unknown[-10:] == small.unknown


def test_only_the_fifth_trial_of_cifar_plus_n_knows_the_four_vehicles():
    vehicles = {0, 1, 8, 9}
    assert [set(open_set_list("cifar_plus_10", trial).known) == vehicles for trial in range(5)] == [False] * 4 + [True]


def test_the_lists_of_cub_partition_its_200_classes():
    known = open_set_list("cub_easy", 0).known
    groups = [open_set_list(name, 0).unknown for name in ("cub_easy", "cub_medium", "cub_hard")]
    assert sorted([*known, *groups[0], *groups[1], *groups[2]]) == list(range(200))


def test_hard_merged_is_medium_and_hard():
    medium, hard, merged = (set(open_set_list(f"cub_{n}", 0).unknown) for n in ("medium", "hard", "hard_merged"))
    assert merged == medium | hard


def test_the_known_classes_of_cub_are_not_sorted():
    assert open_set_list("cub_easy", 0).known[:5] == (150, 70, 34, 178, 199)


def test_the_list_of_100_foreground_ids_is_the_published_one():
    ids = background_list("inat17_100", 0)
    assert len(set(ids)) == len(ids) == 100
    assert (ids[:5], ids[-5:]) == ([1022, 115, 1506, 1664, 954], [5019, 565, 735, 776, 9])
    assert (min(ids), max(ids)) == (9, 5065)


def test_each_list_of_one_foreground_id_is_a_member_of_the_100():
    ones = [background_list("inat17_1", trial) for trial in range(10)]
    assert ones == [[2484], [5019], [3153], [4941], [776], [4813], [4297], [2704], [764], [1529]]
    assert {one for (one,) in ones} <= set(background_list("inat17_100", 0))


@pytest.mark.parametrize(("name", "trial"), [("mnist", 5), ("cifar10", -1), ("cub_easy", 1)])
def test_a_trial_that_was_not_published_is_refused(name, trial):
    with pytest.raises(ConfigError, match=f"trial={trial}"):
        open_set_list(name, trial)


@pytest.mark.parametrize(("name", "trial"), [("inat17_100", 1), ("inat17_1", 10)])
def test_a_background_trial_that_was_not_published_is_refused(name, trial):
    assert name in BACKGROUND_LISTS
    with pytest.raises(ConfigError, match=f"trial={trial}"):
        background_list(name, trial)


def test_changing_a_returned_list_does_not_change_later_ones():
    background_list("inat17_100", 0).clear()
    assert len(background_list("inat17_100", 0)) == 100
