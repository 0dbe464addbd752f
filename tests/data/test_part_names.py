"""Names of parts of a data set, and names that resemble them."""

import itertools

import pytest

from ltr.data.part_names import are_only_parts, are_parts, kind_of_division, may_be_mark, role_of

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
    ("name", "kind", "is_mark"),
    [
        ("Split", "split", False),
        ("data_split", "split", False),
        ("evalPartition", "split", False),
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
