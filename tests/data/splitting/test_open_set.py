"""Open-set splits: published trials, label order, drawn classes, tails, openness, and what holds for all of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_source import assert_disjoint_and_sorted, assert_independent_of_global_seeds, balanced, sources, toy_source

from ltr.data.splitting.open_set import open_set, openness
from ltr.data.splitting.published import OPEN_SET_TRIALS, open_set_list
from ltr.errors import ConfigError, DataError

ONE_DATA_SET = [name for name in OPEN_SET_TRIALS if not name.startswith("cifar_plus")]
TWO_CIFARS = toy_source(
    names=(*(f"cifar10/{n}" for n in range(10)), *(f"cifar100/{n}" for n in range(100))),
    train=[5] * 10,
    test=[2] * 10,
    cifar100_test=[0] * 10 + [3] * 100,
)
SOURCES = {"tiny_imagenet": balanced(200), "mnist": balanced(10), "svhn": balanced(10), "cifar10": balanced(10)}


@pytest.mark.parametrize("trial", range(5))
@pytest.mark.parametrize("name", ONE_DATA_SET)
def test_published_trials_label_the_known_classes_in_the_order_of_their_list(name, trial):
    source = SOURCES[name]
    split = open_set(source, classes=name, trial=trial)
    known = open_set_list(name, trial).known
    assert split.label_map[list(known)].tolist() == list(range(len(known)))
    assert split.class_names == tuple(f"c{number}" for number in known)
    assert set(source.labels[split.unknown]) == set(range(source.num_classes)) - set(known)


@pytest.mark.parametrize("trial", range(5))
@pytest.mark.parametrize(("name", "num_unknown"), [("cifar_plus_10", 10), ("cifar_plus_50", 50)])
def test_cifar_plus_n_has_known_classes_of_cifar10_and_unknown_ones_of_cifar100(name, num_unknown, trial):
    split = open_set(TWO_CIFARS, classes=name, trial=trial, unknown_part="cifar100_test")
    listed = open_set_list(name, trial)
    assert split.class_names == tuple(f"cifar10/{number}" for number in listed.known)
    unknown = {TWO_CIFARS.class_names[label] for label in TWO_CIFARS.labels[split.unknown]}
    assert unknown == {f"cifar100/{number}" for number in listed.unknown}
    assert len(split.unknown) == 3 * num_unknown


def test_plus_10_and_plus_50_train_on_the_same_images_under_the_same_labels():
    ten, fifty = (
        open_set(TWO_CIFARS, classes=name, trial=3, unknown_part="cifar100_test")
        for name in ("cifar_plus_10", "cifar_plus_50")
    )
    np.testing.assert_array_equal(ten.train, fifty.train)
    np.testing.assert_array_equal(ten.label_map, fifty.label_map)


@pytest.mark.parametrize(
    ("name", "num_unknown"), [("cub_easy", 32), ("cub_medium", 34), ("cub_hard", 34), ("cub_hard_merged", 68)]
)
def test_cub_lists_have_100_known_classes_and_their_unknown_ones_only(name, num_unknown):
    source = balanced(200)
    split = open_set(source, classes=name)
    assert split.num_classes == 100
    assert len(set(source.labels[split.unknown])) == num_unknown
    assert len(split.test) == 200
    assert (split.label_map == -1).sum() == 100


def test_easy_and_hard_unknowns_share_the_training_split():
    easy, hard = (open_set(balanced(200), classes=name) for name in ("cub_easy", "cub_hard_merged"))
    np.testing.assert_array_equal(easy.label_map, hard.label_map)
    np.testing.assert_array_equal(easy.train, hard.train)


def test_seeded_known_classes_are_labelled_by_class_number_and_differ_by_seed():
    splits = [open_set(balanced(30), n_known=10, seed=seed) for seed in (0, 0, 1)]
    assert splits[0].digest() == splits[1].digest() != splits[2].digest()
    labels = splits[0].label_map
    assert labels[labels >= 0].tolist() == list(range(10))


def test_half_of_the_classes_are_known_unless_a_number_is_given():
    assert open_set(balanced(9)).num_classes == 5


def test_as_many_unknown_classes_are_sampled_as_requested():
    source = balanced(30)
    split = open_set(source, n_known=10, n_unknown=3)
    assert len(set(source.labels[split.unknown])) == 3
    assert "-open10+3-" in split.name


def test_listed_classes_keep_their_order():
    source = balanced(6)
    split = open_set(source, classes="ids", known=[4, 0], unknown=[2])
    assert split.label_map.tolist() == [1, -1, -1, -1, 0, -1]
    assert set(source.labels[split.unknown]) == {2}


def test_all_trained_classes_are_known_if_the_source_has_a_part_of_unknown_images():
    source = toy_source(train=[9, 5, 2, 0], val=[1, 1, 1, 0], test=[2, 2, 2, 0], open=[0, 0, 0, 7])
    split = open_set(source, classes="all", unknown_part="open", val="official")
    assert split.label_map.tolist() == [0, 1, 2, -1]
    assert split.unknown.tolist() == list(source.parts["open"])
    assert (len(split.train), len(split.val), len(split.test)) == (16, 3, 6)


def test_an_open_part_with_images_of_trained_classes_is_refused():
    source = toy_source(train=[9, 5], test=[2, 2], open=[1, 0])
    with pytest.raises(DataError, match="classes are trained on: c0"):
        open_set(source, classes="all", unknown_part="open")


def test_the_known_classes_can_be_cut_to_a_long_tail_whose_first_label_is_the_largest():
    split = open_set(balanced(10, train=100), classes="cifar10", trial=0, imbalance_factor=10)
    assert split.class_counts.tolist() == [100, 63, 39, 25, 15, 10]
    assert split.label_map[0] == 0
    assert split.label_map[6] == 1
    assert split.name == "toy-open6+4-cifar10-trial0-exp10-cao"


def test_unknown_images_are_the_same_with_and_without_a_tail():
    source = balanced(10, train=100)
    splits = [open_set(source, classes="mnist", imbalance_factor=factor) for factor in (None, 50)]
    np.testing.assert_array_equal(splits[0].unknown, splits[1].unknown)


def test_an_unknown_image_has_no_label():
    source = balanced(10)
    split = open_set(source, classes="svhn")
    assert set(split.labels(source)[split.unknown]) == {-1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": "cifar"}, "Did you mean 'cifar10'"),
        ({"classes": "mnist", "n_known": 4}, "n_known is an option of dataset.classes=seeded"),
        ({"classes": "mnist", "n_unknown": 4}, "n_unknown is an option of dataset.classes=seeded"),
        ({"known": [1]}, "known is an option of dataset.classes=ids"),
        ({"classes": "ids"}, "dataset.known is missing"),
        ({"classes": "ids", "known": [10]}, "has the classes 0 to 9"),
        ({"classes": "ids", "known": [1, 1]}, "names a class twice"),
        ({"classes": "ids", "known": [1], "unknown": [1]}, "in dataset.known and in dataset.unknown"),
        ({"trial": 1}, "is for the published lists only"),
        ({"classes": "mnist", "trial": 5}, "the trials 0 to 4"),
        ({"classes": "cub_easy"}, "about 200 classes, but toy has 10"),
        ({"n_known": 10}, "Use 1 to 9"),
        ({"n_known": 0}, "Use 1 to 9"),
        ({"n_known": 6, "n_unknown": 5}, "1 to 4 can be unknown"),
        ({"imbalance_factor": 0.1}, r"allowed is \[1, inf\)"),
    ],
)
def test_invalid_options_are_refused_with_a_reason(options, message):
    with pytest.raises(ConfigError, match=message):
        open_set(balanced(10), **options)


def test_a_list_of_two_data_sets_on_one_of_110_classes_is_refused():
    with pytest.raises(ConfigError, match="cifar10_and_cifar100"):
        open_set(balanced(110), classes="cifar_plus_10")


def test_a_part_without_unknown_images_is_refused():
    with pytest.raises(DataError, match="no image of the 10 unknown classes"):
        open_set(TWO_CIFARS, classes="cifar_plus_10")


@pytest.mark.parametrize(
    ("known", "unknown", "scheirer", "ratio"),
    [(6, 4, 0.134, 0.225), (4, 10, 0.333, 0.465), (4, 50, 0.629, 0.728), (20, 180, 0.574, 0.684)],
)
def test_openness_has_the_published_values_in_both_forms(known, unknown, scheirer, ratio):
    assert openness(known, unknown) == pytest.approx(scheirer, abs=5e-4)
    assert openness(known, unknown, "ratio") == pytest.approx(ratio, abs=5e-4)


def test_openness_without_unknown_classes_is_zero():
    assert openness(3, 0) == 0


@pytest.mark.parametrize("arguments", [(0, 3), (3, -1), (3, 1, "old")])
def test_openness_of_nothing_known_or_of_an_unknown_form_is_refused(arguments):
    with pytest.raises(ConfigError, match="openness"):
        openness(*arguments)


@st.composite
def open_set_splits(draw):
    source = draw(sources())
    options = {
        "n_known": draw(st.integers(1, source.num_classes - 1)),
        "val": draw(st.sampled_from(["none", "train_fraction", "official", "test_fraction"])),
        "val_fraction": draw(st.floats(0.05, 0.9)),
        "subset": draw(st.sampled_from(["cao", "first_n", "seeded"])),
        # small enough that no class falls to one image, which train_fraction warns of
        "imbalance_factor": draw(st.none() | st.just(1.0)),
        "seed": draw(st.integers(0, 50)),
    }
    return source, options


@given(open_set_splits())
@settings(max_examples=60, deadline=None)
def test_every_open_set_split_is_disjoint_and_complete(drawn):
    source, options = drawn
    split = open_set(source, **options)
    assert_disjoint_and_sorted(split)
    known = set(np.flatnonzero(split.label_map >= 0).tolist())
    assert len(known) == split.num_classes == options["n_known"]
    for part in ("train", "val", "test"):
        assert set(source.labels[getattr(split, part)]) <= known
    assert not set(source.labels[split.unknown]) & known
    held_of_test = set(split.val) if split.val_rule == "test_fraction" else set()
    assert set(split.test) | set(split.unknown) | held_of_test == set(source.parts["test"])
    if options["imbalance_factor"] is None:
        trained = set(split.train) | (set(split.val) if split.val_rule == "train_fraction" else set())
        assert trained == {i for i in source.parts["train"] if source.labels[i] in known}
    labels = split.labels(source)[split.train]
    np.testing.assert_array_equal(np.bincount(labels, minlength=split.num_classes), split.class_counts)


@given(open_set_splits(), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_an_open_set_split_is_independent_of_global_seeds(drawn, seed):
    source, options = drawn
    assert_independent_of_global_seeds(lambda: open_set(source, **options), seed)
