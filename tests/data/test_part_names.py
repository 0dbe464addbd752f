"""Names of parts of a data set, and names that resemble them."""

import itertools

import pytest

from ltr.data.part_names import (
    are_abbreviated_parts,
    are_only_parts,
    are_parts,
    are_parts_of_classes,
    kind_of_division,
    may_be_mark,
    role_of,
)

TRAIN = ("train", "Training", "TRAIN", "trn", "trainval")
EVALUATED = ("test", "Testing", "VAL", "valid", "dev", "eval", "holdout", "hold-out", "query", "gallery")


@pytest.mark.parametrize(
    "form", ["{}", "{}-1", "{}_2", "{}2017", "{} set", "public_{}", "unseen-{}", "{}_images", "x_{}"]
)
def test_a_role_is_recognised_with_words_beside_it(form):
    assert {role_of(form.format(name)) for name in TRAIN} == {"train"}
    assert {role_of(form.format(name)) for name in EVALUATED if "-" not in name} == {"evaluated"}


@pytest.mark.parametrize("name", ["trainset", "TrainSet", "trainA", "trainImages", "minitrain", "traindata"])
def test_joined_words_are_recognised(name):
    assert role_of(name) == "train"
    assert role_of(name.replace("train", "test").replace("Train", "Test")) == "evaluated"


@pytest.mark.parametrize(
    "name",
    ["bullet train", "bullet_train", "test tube", "strain", "tram", "bus", "invalid", "contest", "protest", "trainer",
     "latest", "device", "1", "extra", "a", "", "querying", "Teste", "train" * 20],
)  # fmt: skip
def test_other_names_have_no_role(name):
    assert role_of(name) is None


def test_parts_need_one_for_training_and_one_for_others():
    for train, evaluated in itertools.product(TRAIN, EVALUATED):
        assert are_parts([train, evaluated])
        assert are_parts([f" {train} ", "car", evaluated])
    assert not any(map(are_parts, (TRAIN, EVALUATED, ("train", "tram", "bus"), ())))
    assert are_only_parts(["train", "", "test"])
    assert not are_only_parts(["train", "test", "extra"])
    assert are_only_parts(["train", "test", "extra"], unused=True)


@pytest.mark.parametrize(
    ("names", "are_of_classes"),
    [
        (["train_cat", "train_dog", "test_cat", "test_dog"], True),
        (["cat-train", "catVal"], True),
        (["train_cat", "test_cat", "bus"], False),
        (["train_station", "test_tube"], False),
        (["train", "test"], False),
        (["bullet train", "freight train"], False),
        ([], False),
    ],
)
def test_names_of_parts_and_classes_need_a_class_in_both(names, are_of_classes):
    assert are_parts_of_classes(names) is are_of_classes


def test_abbreviations_are_parts_only_together():
    assert are_abbreviated_parts(["TR", "te", ""])
    assert not are_abbreviated_parts(["tr", "te", "de"])
    assert not are_abbreviated_parts(["tr"])
    assert not are_parts(["tr", "te"])


@pytest.mark.parametrize(
    ("name", "kind", "is_mark"),
    [
        ("Split", "split", False),
        ("data_split", "split", False),
        ("evalPartition", "split", False),
        ("train_test", "split", False),
        ("TrainOrVal", "split", False),
        ("Usage", "part", False),
        ("image_set", "part", False),
        ("kfold", "fold", False),
        ("train", None, True),
        ("inTest", None, True),
        ("hold_out", None, True),
        ("settings", None, False),
        ("trained", None, False),
        ("group", None, False),
    ],
)
def test_names_of_columns_tell_divisions(name, kind, is_mark):
    assert (kind_of_division(name), may_be_mark(name)) == (kind, is_mark)
