"""Networks that were trained on images cut by box are known as such, also if the annotation file decided it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ltr.apply.model import was_trained_on_crops
from ltr.data.images.regions import BoxCrops
from ltr.data.source import ImageFiles, Source
from ltr.data.sources.camera_traps import is_cut_by_box, is_name_of_crops
from ltr.methods.core.settings import DatasetInfo

INFO = DatasetInfo((3, 8, 8), (0.5,) * 3, (0.5,) * 3, ("a", "b"), (2, 1))


def description(cut_by_box, **dataset):
    facts = DatasetInfo(**{**vars(INFO), "cut_by_box": cut_by_box}).to_dict()
    return {"facts": facts, "dataset": dataset}


@pytest.mark.parametrize("crop", ["auto", "box", "none", None])
@pytest.mark.parametrize("detections", ["md.json", None])
def test_the_stored_fact_decides(crop, detections):
    for cut_by_box in (True, False):
        text = description(cut_by_box, crop=crop, detections=detections)
        assert was_trained_on_crops(text, Path("run/checkpoints/final.ckpt")) is cut_by_box


@pytest.mark.parametrize(
    ("dataset", "split", "is_cut"),
    [
        ({}, None, False),
        ({"crop": "box"}, None, True),
        ({"crop": "none", "detections": "md.json"}, None, False),
        ({"crop": "auto", "detections": "md.json"}, None, True),
        ({"crop": "auto", "detections": None}, "traps-csv-crops-location-test0.2-seed0-natural", True),
        ({"crop": "auto", "detections": None}, "traps-coco-crops-test0.2-seed0-bg2-empty-share0.1", True),
        ({"crop": "auto", "detections": None}, "traps-csv-location-test0.2-seed0-natural", False),
        ({"crop": "auto", "detections": None}, "my-crops-csv-location-test0.2-seed0-natural", False),
        ({"crop": "auto", "detections": None}, None, False),
    ],
)
def test_checkpoints_without_the_fact_follow_their_configuration_and_split(tmp_path, dataset, split, is_cut):
    (tmp_path / "checkpoints").mkdir()
    if split is not None:
        (tmp_path / "result.json").write_text(json.dumps({"data": {"split": split}}))
    assert was_trained_on_crops(description(None, **dataset), tmp_path / "checkpoints" / "final.ckpt") is is_cut


def test_the_fact_is_stored_only_where_the_data_set_has_the_option():
    assert "cut_by_box" not in INFO.to_dict()
    assert DatasetInfo.from_dict(description(False)["facts"]).cut_by_box is False
    assert DatasetInfo.from_dict(INFO.to_dict()).cut_by_box is None


@pytest.mark.parametrize(
    ("name", "has_crops"), [("traps-csv", True), ("traps-csv", False), ("traps-csv-crops-x", False)]
)
def test_sources_of_crops_are_recognised_by_their_images_or_their_name(tmp_path, name, has_crops):
    crops = BoxCrops(np.full((2, 4), 0.25, dtype=np.float32), 0.1, True) if has_crops else None
    images = ImageFiles.from_paths(tmp_path, ["1.jpg", "2.jpg"], crops=crops)
    source = Source(name, images, np.array([0, 1]), ("a", "b"), {"train": range(2), "test": range(2, 2)})
    assert is_cut_by_box(source) is (has_crops or is_name_of_crops(name))
