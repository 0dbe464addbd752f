"""Background splits: labels, published ids, drawn classes, the cap, what is refused, and what holds for all of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_source import assert_disjoint_and_sorted, assert_independent_of_global_seeds, balanced, sources, toy_source

from ltr.data.splitting.background import background, background_share
from ltr.data.splitting.published import background_list
from ltr.errors import ConfigError, DataError

INAT_LIKE = balanced(5089, train=2, test=1, class_ids=np.arange(5089) + 1)


def foreground_classes(split):
    return np.flatnonzero(split.label_map > 0).tolist()


def test_the_published_100_ids_become_the_labels_1_to_100_in_their_order():
    split = background(INAT_LIKE, foreground="inat17_100")
    ids = background_list("inat17_100", 0)
    assert split.label_map[np.array(ids) - 1].tolist() == list(range(1, 101))
    assert split.class_names == ("background", *(f"c{number - 1}" for number in ids))
    assert (split.label_map == 0).sum() == 5089 - 100


@pytest.mark.parametrize("trial", range(10))
def test_each_published_single_id_is_the_only_foreground(trial):
    split = background(INAT_LIKE, foreground="inat17_1", trial=trial)
    assert foreground_classes(split) == [background_list("inat17_1", trial)[0] - 1]
    assert split.num_classes == 2


@pytest.mark.parametrize(("rule", "share"), [("inat17_100", 1 - 100 / 5089), ("inat17_1", 1 - 1 / 5089)])
def test_the_background_share_is_that_of_the_training_images(rule, share):
    split = background(INAT_LIKE, foreground=rule)
    assert background_share(split) == pytest.approx(share)
    assert f"-share{share:.4f}" in split.name


def test_ids_are_class_ids_and_not_class_numbers():
    source = balanced(4, class_ids=[30, 10, 40, 20])
    split = background(source, foreground="ids", ids=[20, 30])
    assert split.label_map.tolist() == [2, 0, 0, 1]


def test_ids_are_class_numbers_where_the_source_has_no_ids():
    assert background(balanced(4), foreground="ids", ids=[3, 1]).label_map.tolist() == [0, 2, 0, 1]


def test_an_id_that_the_data_set_does_not_have_is_an_error_that_names_it():
    with pytest.raises(DataError, match="no class with the id 7, 8"):
        background(balanced(4), foreground="ids", ids=[1, 7, 8])


@pytest.mark.parametrize("source", [balanced(8142, class_ids=np.arange(8142)), balanced(5089), balanced(10)])
def test_the_published_list_on_another_data_set_is_refused_even_where_its_ids_are_there(source):
    with pytest.raises(ConfigError, match="5,089 classes of iNaturalist 2017, and toy has"):
        background(source, foreground="inat17_100")


def test_a_foreground_id_without_training_images_is_refused():
    with pytest.raises(DataError, match="no training image: c1"):
        background(toy_source(train=[3, 0, 3], test=[1, 1, 1]), foreground="ids", ids=[1])


def test_uniform_samples_of_classes_differ_by_seed():
    source = balanced(60)
    draws = [foreground_classes(background(source, n_foreground=5, seed=seed)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("foreground", ["uniform", "frequency", "shot"])
def test_the_classes_of_a_smaller_number_are_among_those_of_a_larger(foreground):
    source = toy_source(train=[*range(15, 27), *range(95, 107)], test=[1] * 24)
    larger = set()
    for n_foreground in range(1, 23):
        drawn = set(foreground_classes(background(source, foreground=foreground, n_foreground=n_foreground)))
        assert len(drawn) == n_foreground
        assert larger <= drawn
        larger = drawn


def test_frequency_sampling_takes_equally_many_classes_of_each_group():
    source = toy_source(train=list(range(40, 0, -1)), test=[1] * 40)
    drawn = np.array(foreground_classes(background(source, foreground="frequency", n_foreground=8, strata=4)))
    assert np.bincount(drawn // 10).tolist() == [2, 2, 2, 2]


def test_foreground_classes_may_come_from_one_stratum():
    source = toy_source(train=list(range(40, 0, -1)), test=[1] * 40)
    split = background(source, foreground="frequency", n_foreground=10, strata=4, stratum=3)
    assert foreground_classes(split) == list(range(30, 40))


@pytest.mark.parametrize(("group", "classes"), [("many", [0, 1]), ("medium", [2, 3]), ("few", [4, 5])])
def test_foreground_classes_may_come_from_one_shot_group(group, classes):
    source = toy_source(train=[101, 150, 100, 20, 19, 1], test=[1] * 6)
    assert foreground_classes(background(source, foreground="shot", shot_group=group, n_foreground=2)) == classes


def test_classes_without_training_or_test_images_are_not_sampled():
    source = toy_source(train=[3, 0, 3, 3], test=[1, 1, 0, 1])
    assert foreground_classes(background(source, n_foreground=2)) == [0, 3]


def test_the_cap_limits_the_images_of_a_foreground_class():
    source = toy_source(train=[50, 3, 40], test=[2, 2, 2])
    split = background(source, foreground="ids", ids=[0, 1], max_per_class=5)
    assert split.class_counts.tolist() == [40, 5, 3]
    assert len(split.train) == 48


def test_capped_images_depend_on_the_seed_only():
    source = toy_source(train=[50, 40], test=[2, 2])
    kept = [background(source, foreground="ids", ids=[0], max_per_class=5, seed=seed).digest() for seed in (0, 0, 1)]
    assert kept[0] == kept[1] != kept[2]


def test_validation_holds_out_the_same_share_of_background_and_foreground():
    source = balanced(10, train=20)
    split = background(source, n_foreground=2, val="train_fraction", val_fraction=0.25)
    assert np.bincount(split.labels(source)[split.val]).tolist() == [40, 5, 5]
    assert split.name.endswith("-val_train_fraction0.25")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Set dataset.n_foreground=NUMBER"),
        ({"n_foreground": 0}, "Use 1 to 9"),
        ({"n_foreground": 10}, "one at least must be background"),
        ({"foreground": "unifrom", "n_foreground": 1}, "Did you mean 'uniform'"),
        ({"foreground": "inat17_100", "n_foreground": 10}, "a list fixes the number of classes"),
        ({"foreground": "ids", "ids": [1], "n_foreground": 1}, "a list fixes the number of classes"),
        ({"foreground": "ids"}, "dataset.ids is missing"),
        ({"foreground": "ids", "ids": []}, "at least one foreground class is needed"),
        ({"foreground": "ids", "ids": [1, 1]}, "repeats an id"),
        ({"foreground": "ids", "ids": list(range(10))}, "none is left for background"),
        ({"n_foreground": 1, "ids": [1]}, "dataset.ids were given"),
        ({"n_foreground": 1, "trial": 1}, "is an option of dataset.foreground=inat17_1, not of uniform"),
        ({"n_foreground": 1, "stratum": 1}, "is an option of dataset.foreground=frequency"),
        ({"n_foreground": 1, "shot_group": "few"}, "is an option of dataset.foreground=shot"),
        ({"n_foreground": 1, "foreground": "frequency", "stratum": 4}, "0 to 3"),
        ({"n_foreground": 1, "foreground": "frequency", "strata": 11}, "10 classes to group"),
        ({"n_foreground": 1, "foreground": "shot", "shot_group": "lots"}, "one of: null, many, medium, few"),
        ({"n_foreground": 1, "foreground": "shot", "shot_group": "many"}, "0 classes to sample from"),
        ({"n_foreground": 1, "max_per_class": 0}, r"allowed is int \[1, inf\) or null"),
    ],
)
def test_invalid_options_are_refused_with_a_reason(options, message):
    with pytest.raises(ConfigError, match=message):
        background(balanced(10), **options)


@st.composite
def background_splits(draw):
    source = draw(sources(min_classes=4))
    options = {
        "foreground": draw(st.sampled_from(["uniform", "frequency", "shot"])),
        "n_foreground": draw(st.integers(1, source.num_classes - 1)),
        "strata": draw(st.integers(1, 4)),
        "max_per_class": draw(st.none() | st.integers(2, 20)),
        "val": draw(st.sampled_from(["none", "train_fraction", "official", "test_fraction"])),
        "val_fraction": draw(st.floats(0.05, 0.9)),
        "seed": draw(st.integers(0, 50)),
    }
    return source, options


@given(background_splits())
@settings(max_examples=60, deadline=None)
def test_every_background_split_is_disjoint_and_complete(drawn):
    source, options = drawn
    split = background(source, **options)
    assert_disjoint_and_sorted(split)
    n_foreground = options["n_foreground"]
    assert split.num_classes == n_foreground + 1
    assert np.bincount(split.label_map, minlength=n_foreground + 1)[1:].tolist() == [1] * n_foreground
    labels = split.labels(source)
    np.testing.assert_array_equal(np.bincount(labels[split.train], minlength=n_foreground + 1), split.class_counts)
    together = set(split.test) | (set(split.val) if split.val_rule == "test_fraction" else set())
    assert together == set(source.parts["test"])
    trained = set(split.train) | (set(split.val) if split.val_rule == "train_fraction" else set())
    left_out = set(source.parts["train"]) - trained
    assert trained <= set(source.parts["train"])
    assert all(labels[index] > 0 for index in left_out)  # by the cap; no background image is lost
    if options["max_per_class"] is None:
        assert not left_out


@given(background_splits(), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_a_background_split_is_independent_of_global_seeds(drawn, seed):
    source, options = drawn
    assert_independent_of_global_seeds(lambda: background(source, **options), seed)
