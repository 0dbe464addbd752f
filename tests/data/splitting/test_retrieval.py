"""Retrieval splits: class-disjoint halves, labels of classes that were never trained on, files, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_source import assert_disjoint_and_sorted, assert_independent_of_global_seeds, balanced, sources, toy_source

from ltr.data.split import load_split_file, save_split
from ltr.data.splitting.closed_set import natural
from ltr.data.splitting.retrieval import retrieval
from ltr.errors import ConfigError, DataError


@pytest.mark.parametrize("num_classes", [200, 196])
def test_the_first_half_of_the_classes_trains_and_the_other_half_is_tested_on(num_classes):
    source = balanced(num_classes)
    split = retrieval(source)
    half = num_classes // 2
    assert split.label_map.tolist() == list(range(num_classes))
    assert split.class_names == source.class_names[:half]
    assert set(source.labels[split.train]) == set(range(half))
    assert set(source.labels[split.test]) == set(range(half, num_classes))


def test_all_images_of_a_class_are_used_regardless_of_their_part():
    split = retrieval(balanced(4, train=5, test=2))
    assert split.class_counts.tolist() == [7, 7]
    assert len(split.test) == 14


def test_images_can_be_restricted_to_their_part():
    source = balanced(4, train=5, test=2)
    split = retrieval(source, images="own_part")
    assert split.class_counts.tolist() == [5, 5]
    assert set(split.train) <= set(source.parts["train"])
    assert set(split.test) <= set(source.parts["test"])


def test_parts_other_than_train_val_and_test_are_unchanged():
    source = toy_source(train=[3, 3], open=[2, 2], test=[1, 1])
    split = retrieval(source)
    assert not (set(split.train) | set(split.test)) & set(source.parts["open"])
    assert len(split.train) == len(split.test) == 4


def test_test_images_have_labels_beyond_those_of_training():
    source = balanced(5)
    split = retrieval(source, classes="seeded", n_train=3, seed=1)
    labels = split.labels(source)
    assert set(labels[split.train]) == {0, 1, 2}
    assert set(labels[split.test]) == {3, 4}
    assert split.num_classes == 3


def test_seeded_halves_differ_by_seed_and_are_labelled_by_class_number():
    splits = [retrieval(balanced(30), classes="seeded", seed=seed) for seed in (0, 0, 1)]
    assert splits[0].digest() == splits[1].digest() != splits[2].digest()
    for split in splits:
        training = split.label_map < split.num_classes
        assert split.label_map[training].tolist() == list(range(15))
        assert split.label_map[~training].tolist() == list(range(15, 30))


def test_classes_can_be_those_of_the_parts():
    source = toy_source(train=[0, 3, 0, 2], test=[2, 0, 4, 0])
    split = retrieval(source, classes="by_part")
    assert split.label_map.tolist() == [2, 0, 3, 1]
    assert split.class_counts.tolist() == [3, 2]
    assert split.test.tolist() == list(source.parts["test"])


def test_a_retrieval_split_is_evaluated_by_retrieval():
    assert retrieval(balanced(4)).protocols == ("retrieval",)


def test_validation_images_are_of_training_classes():
    source = balanced(4, train=10)
    split = retrieval(source, val="train_fraction")
    assert set(split.labels(source)[split.val]) == {0, 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": "last"}, "one of: first, seeded"),
        ({"classes": "by_part", "n_train": 2}, "leaves nothing to choose"),
        ({"classes": "by_part"}, "one at least must be left to test on"),
        ({"images": "some"}, "one of: all, own_part"),
        ({"n_train": 0}, "Use 1 to 3"),
        ({"n_train": 4}, "Use 1 to 3"),
        ({"val": "test_fraction"}, "one of: none, train_fraction"),
        ({"val": "official"}, "one of: none, train_fraction"),
    ],
)
def test_invalid_options_are_refused_with_a_reason(options, message):
    with pytest.raises(ConfigError, match=message):
        retrieval(balanced(4), **options)


def test_a_saved_retrieval_split_is_loaded_unchanged(tmp_path):
    source = balanced(6)
    split = retrieval(source, classes="seeded")
    save_split(split, tmp_path / "split.npz")
    again = load_split_file(tmp_path / "split.npz", source)
    assert (again.digest(), again.class_names, again.protocols) == (split.digest(), split.class_names, split.protocols)


def test_labels_beyond_the_class_names_are_for_retrieval_only():
    split = retrieval(balanced(6))
    with pytest.raises(DataError, match="numbers from -1 to 2"):
        replace(split, protocols=("closed_set",))


def test_a_file_that_trains_on_test_classes_is_refused(tmp_path):
    source = balanced(6)
    split = retrieval(source)
    mixed = replace(split, train=split.test, test=split.train)
    save_split(mixed, tmp_path / "split.npz")
    with pytest.raises(DataError, match="only the test set may have"):
        load_split_file(tmp_path / "split.npz", source)


def test_a_split_that_names_no_protocol_is_refused():
    with pytest.raises(DataError, match="no protocol"):
        replace(natural(balanced(3)), protocols=())


def test_a_split_with_too_few_class_counts_is_refused():
    with pytest.raises(DataError, match="2 class counts for 3 class names"):
        replace(natural(balanced(3)), class_counts=np.array([1, 2]))


@st.composite
def retrieval_splits(draw):
    source = draw(sources())
    options = {
        "classes": draw(st.sampled_from(["first", "seeded"])),
        "n_train": draw(st.none() | st.integers(1, source.num_classes - 1)),
        "images": draw(st.sampled_from(["all", "own_part"])),
        "val": draw(st.sampled_from(["none", "train_fraction"])),
        "val_fraction": draw(st.floats(0.05, 0.9)),
        "seed": draw(st.integers(0, 50)),
    }
    return source, options


@given(retrieval_splits())
@settings(max_examples=60, deadline=None)
def test_every_retrieval_split_is_disjoint_in_images_and_classes_and_complete(drawn):
    source, options = drawn
    split = retrieval(source, **options)
    assert_disjoint_and_sorted(split)
    trained = set(source.labels[split.train]) | set(source.labels[split.val])
    tested = set(source.labels[split.test])
    assert not trained & tested
    assert trained | tested == set(range(source.num_classes))
    assert sorted(split.label_map.tolist()) == list(range(source.num_classes))
    used = set(split.train) | set(split.val) | set(split.test)
    if options["images"] == "all":
        assert used == set(range(len(source)))
    np.testing.assert_array_equal(
        np.bincount(split.labels(source)[split.train], minlength=split.num_classes), split.class_counts
    )


@given(retrieval_splits(), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_a_retrieval_split_is_independent_of_global_seeds(drawn, seed):
    source, options = drawn
    assert_independent_of_global_seeds(lambda: retrieval(source, **options), seed)
