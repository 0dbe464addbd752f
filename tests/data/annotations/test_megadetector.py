"""MegaDetector's batch results."""

import json

import numpy as np
import pytest

import camera_trap_files as made
from ltr.data.annotations.megadetector import read_megadetector
from ltr.errors import DataError

SHOTS = made.shots(locations=2)


def read(tmp_path, content):
    file = tmp_path / "md.json"
    file.write_text(json.dumps(content, indent=1))
    return read_megadetector("traps", file, str(tmp_path))


def test_detections_are_read_in_the_files_order(tmp_path):
    content = made.megadetector(SHOTS)
    content["images"][1] = {"file": SHOTS[1].path, "failure": "Failure image access", "detections": None}
    detections = read(tmp_path, content)
    assert detections.category_names == ("animal", "person", "vehicle")
    assert detections.failed.tolist() == [1]
    assert detections.images[:4].tolist() == [0, 0, 2, 2]
    assert detections.numbers[:4].tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(detections.confidences[:2], [0.9, 0.03])
    np.testing.assert_allclose(detections.boxes[0], [0.25, 0.25, 0.375, 0.5])
    assert detections.values["info"]["detector"] == "md_v5a.0.0.pt"


def test_detections_are_chosen_by_category_and_confidence(tmp_path):
    detections = read(tmp_path, made.megadetector(SHOTS))
    animals = sum(shot.label != "empty" for shot in SHOTS)
    assert len(detections.chosen(["animal"], 0.2)) == animals
    assert len(detections.chosen(None, 0.0)) == animals + len(SHOTS)
    with pytest.raises(DataError, match="Did you mean 'animal'"):
        detections.chosen(["animals"], 0.2)


def test_detections_of_an_unlisted_category_are_refused(tmp_path):
    content = made.megadetector(SHOTS[:1])
    content["images"][0]["detections"][0]["category"] = "9"
    with pytest.raises(DataError, match=r"does not list: '9', the first in images\[0\]\. List them"):
        read(tmp_path, content)


def test_absolute_paths_inside_the_root_are_shortened(tmp_path):
    content = made.megadetector(SHOTS[:1])
    content["images"][0]["file"] = str(tmp_path / SHOTS[0].path)
    assert read(tmp_path, content).files.relative(0) == SHOTS[0].path


def test_a_box_beyond_the_edge_by_rounding_is_clipped(tmp_path):
    content = made.megadetector(SHOTS[:1])
    content["images"][0]["detections"][0]["bbox"] = [-0.001, 0.5, 0.3, 0.5005]
    np.testing.assert_allclose(read(tmp_path, content).boxes[0], [0, 0.5, 0.299, 0.5], atol=1e-6)


def box(value):
    return lambda content: content["images"][0]["detections"][0].update(bbox=value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["info"].update(format_version="2.0"), "has the format version 2.0; versions 1.x are read"),
        (lambda c: c["info"].pop("format_version"), "has the format version none"),
        (lambda c: c.pop("info"), "is not a MegaDetector file: it has no info"),
        (lambda c: c.pop("detection_categories"), "it has no detection_categories"),
        (lambda c: c.update(detection_categories={"1": ""}), "a detection category without a name"),
        (lambda c: c["images"].append(c["images"][0]), "the file L0/0_deer_0.jpg appears twice"),
        (lambda c: c["images"][0].pop("detections"), "it must be a list, or failure must give the reason"),
        (lambda c: c["images"][0]["detections"][0].pop("bbox"), "has no 'bbox' in images[0]"),
        (lambda c: c["images"][0]["detections"][0].update(conf=1.5), "a confidence of 1.5"),
        (lambda c: c["images"][2]["detections"][0].update(category="9"), "does not list: '9', the first in images[2]"),
        (box([0.9, 0.1, 0.5, 0.1]), "images[0].detections[0] of L0/0_deer_0.jpg"),
        (box([0.1, 0.1, 0.0, 0.1]), "1 box outside the image or without area"),
        (box([100, 100, 300, 200]), "fractions of the image"),
        (box([float("nan"), 0.1, 0.2, 0.1]), "four finite numbers in fractions"),
    ],
)
def test_a_message_names_file_and_record(tmp_path, change, words):
    content = made.megadetector(SHOTS)
    change(content)
    with pytest.raises(DataError) as refused:
        read(tmp_path, content)
    assert words in str(refused.value)
    assert str(tmp_path / "md.json") in str(refused.value)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("conf", [1], "conf of L0/0_deer_0.jpg is [1]; it must be a number from 0 to 1"),
        ("bbox", 3, "bbox is 3; it must be [left, top, width, height], four finite numbers in fractions"),
        ("bbox", [0.1, 0.2], "bbox is [0.1, 0.2]; it must be"),
        ("category", None, "category is null; it must be a text or a whole number"),
    ],
)
def test_a_wrong_field_is_named_with_its_allowed_form(tmp_path, field, value, words):
    content = made.megadetector(made.shots(locations=1))
    content["images"][0]["detections"][0][field] = value
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(content))
    with pytest.raises(DataError) as refused:
        read_megadetector("traps", file, str(tmp_path))
    assert words in str(refused.value)
    assert "Correct the file, or export it again" in str(refused.value)
