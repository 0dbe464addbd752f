"""Options of a split without effect are reported, others are not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import trees
from ltr.data.source import Source
from ltr.data.sources.folder import image_folder
from ltr.data.split import save_split
from ltr.data.splitting.exclusion import read_split
from ltr.runs.unused_split_options import warn_of_unused_split_options

LABELS = np.concatenate([np.repeat([0, 1], 20), np.repeat([0, 1], 10)])
SOURCE = Source(
    "toy", np.zeros((60, 2, 2, 1), np.uint8), LABELS, ("a", "b"), {"train": range(40), "test": range(40, 60)}
)
LONG_TAIL = {"_target_": "ltr.data.splitting.closed_set.long_tail", "imbalance_factor": 4.0}
NATURAL = {"_target_": "ltr.data.splitting.closed_set.natural"}


def warnings_of(dataset):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_unused_split_options(dataset, SOURCE, read_split(dataset, SOURCE))
    return [str(one.message) for one in caught]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ({**LONG_TAIL, "seed": 1}, ["dataset.split_seed=1 has no effect: the split 'toy-exp4-cao' has nothing random"]),
        ({**LONG_TAIL, "seed": 1, "subset": "cao"}, ["dataset.subset=seeded draws the training images by it"]),
        ({**LONG_TAIL, "seed": 1, "subset": "seeded"}, []),
        ({**LONG_TAIL, "seed": 1, "val": "train_fraction"}, []),
        ({**NATURAL, "seed": 2}, ["dataset.split_seed=2 has no effect"]),
        ({**NATURAL, "val_fraction": 0.2}, ["dataset.val_fraction=0.2 has no effect: dataset.val=None takes no share"]),
        ({**NATURAL, "val": "none", "val_fraction": 0.2, "seed": 1}, ["split_seed=1", "dataset.val=none takes no"]),
        ({**NATURAL, "val": "test_fraction", "val_fraction": 0.2}, []),
        ({**NATURAL, "val": "none", "val_fraction": 0.1, "seed": 0}, []),
    ],
)
def test_options_without_effect_are_named(split, expected):
    messages = warnings_of({"split": split})
    assert len(messages) == len(expected)
    assert all(part in message for part, message in zip(expected, messages))


def test_a_split_file_makes_both_useless(tmp_path):
    save_split(read_split({"split": NATURAL}, SOURCE), tmp_path / "split.npz")
    options = {**LONG_TAIL, "seed": 3, "subset": "seeded", "val": "train_fraction", "val_fraction": 0.3}
    messages = warnings_of({"split": options, "split_file": tmp_path / "split.npz"})
    assert [message.split(" has no effect")[0] for message in messages] == [
        "dataset.split_seed=3",
        "dataset.val_fraction=0.3",
    ]
    assert all("dataset.split_file lists the images of each part. Leave it out" in message for message in messages)


@pytest.mark.parametrize(("parts", "has_effect"), [((), True), (("train", "test"), False)])
def test_the_seed_of_a_division_into_training_and_test_images_has_an_effect(tmp_path, parts, has_effect):
    source = image_folder(name="own", root=str(trees.folder(tmp_path, parts)), split_seed=1)
    dataset = {"split": {**NATURAL, "seed": 1}}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_unused_split_options(dataset, source, read_split(dataset, source))
    assert (not caught) == has_effect
