"""Messages for two sources that cannot be compared, and for a split that tests nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import trees
from ltr.data.packed_images.reading import open_packed
from ltr.data.packed_images.writing import pack
from ltr.data.source import Source
from ltr.data.sources.folder import image_folder
from ltr.data.split import Split
from ltr.errors import DataError
from ltr.runs.evaluation.overlap import _incomparable
from ltr.runs.plan import _check_split

NOTHING = np.empty(0, dtype=np.int64)


def test_packed_files_of_other_data_are_reported_to_be_beyond_comparison(tmp_path):
    files = image_folder(name="one", root=str(trees.folder(tmp_path)))
    pack(files, {}, tmp_path / "packed", size=16)
    packed = open_packed(tmp_path / "packed")
    arrays = Source("toy", np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.int64), ("a",), {"train": range(2)})
    assert "only be compared with the data that it was made from" in _incomparable(files, packed)
    assert "only be compared with the data that it was made from" in _incomparable(packed, arrays)
    assert _incomparable(files, arrays) == ""


def test_a_split_without_test_images_is_refused_before_training():
    arrays = {"train": np.arange(2), "val": NOTHING, "test": NOTHING, "unknown": NOTHING}
    split = Split(**arrays, label_map=np.arange(1), class_names=("a",), class_counts=np.array([2]), name="s")
    config = {"trainer": {"selection": "last"}, "evaluation": {}}
    with pytest.raises(DataError, match="'s' has no test images"):
        _check_split(config, split, torch.device("cpu"))
