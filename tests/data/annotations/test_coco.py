"""COCO Camera Traps and COCO JSON: every field that is read, and damaged files."""

import json

import numpy as np
import pytest

import camera_trap_files as made
from ltr.data.annotations.coco import read_coco
from ltr.errors import DataError

SHOTS = made.shots(locations=2)


def read(tmp_path, content, **options):
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(content))
    return read_coco("traps", file, str(tmp_path), **options)


def test_every_image_has_its_label_location_sequence_and_day(tmp_path):
    records = read(tmp_path, made.coco(SHOTS))
    assert records.format == "coco_camera_traps"
    assert records.class_names == ("empty", "deer", "fox")
    assert len(records.images) == len(SHOTS)
    for number, (image, label) in enumerate(zip(records.images, records.classes)):
        assert records.files.relative(image) == SHOTS[number].path
        assert records.class_names[label] == SHOTS[number].label
    for key, value in (("location", "L1"), ("seq_id", SHOTS[-1].sequence), ("date", SHOTS[-1].time[:10])):
        grouping = records.groupings[key]
        assert grouping.values[grouping.codes[-1]] == value
    assert np.isnan(records.boxes).all()
    assert not records.left_out


def test_the_order_of_arrays_and_of_records_does_not_matter(tmp_path):
    content = made.coco(SHOTS)
    turned = {key: content[key] for key in ("categories", "annotations", "images")}
    turned["images"] = content["images"][::-1]
    records = read(tmp_path, turned)
    labels = {records.files.relative(i): records.class_names[c] for i, c in zip(records.images, records.classes)}
    assert labels == {shot.path: shot.label for shot in SHOTS}


def test_numbers_as_ids_and_boxes_in_pixels(tmp_path):
    content = {
        "images": [{"id": 7, "file_name": "a\\b.jpg", "width": 64, "height": 48}, {"id": 9, "file_name": "c.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [16, 12, 24, 24]},
            {"id": 2, "image_id": 9, "category_id": 3},
        ],
        "categories": [{"id": 3, "name": "deer"}],
    }
    records = read(tmp_path, content)
    assert records.format == "coco"
    assert records.files.relative(0) == "a/b.jpg"
    np.testing.assert_array_equal(records.boxes[0], [16, 12, 24, 24])
    np.testing.assert_array_equal(records.sizes, [[64, 48], [0, 0]])


def test_corrupt_and_unlabelled_images_are_named(tmp_path):
    content = made.coco(SHOTS)
    content["images"][2]["corrupt"] = True
    del content["annotations"][5]
    records = read(tmp_path, content)
    assert {reason: rows.tolist() for reason, rows in records.left_out.items()} == {
        "marked as corrupt": [2],
        "no label": [5],
    }


def test_labels_of_whole_sequences_are_counted(tmp_path):
    content = made.coco(SHOTS)
    content["annotations"][0]["sequence_level_annotation"] = True
    assert read(tmp_path, content).remarks == [f"1 of {len(SHOTS)} labels are of whole sequences, not of one image"]


def test_a_field_of_the_file_may_be_the_group(tmp_path):
    content = made.coco(SHOTS, camera="C1")
    assert read(tmp_path, content, columns=("camera",)).groupings["camera"].values == ("C1",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["images"].append(c["images"][0]), "the image id L0-0_deer_0 appears twice"),
        (lambda c: c["annotations"].append(c["annotations"][0]), "the annotation id a0 appears twice"),
        (lambda c: c["categories"].append(c["categories"][0]), "the category id 0 appears twice"),
        (lambda c: c["annotations"][3].update(image_id="none"), "none (annotations[3])"),
        (lambda c: c["annotations"][3].update(category_id=17), "categories that it does not list, by id: 17"),
        (lambda c: c["annotations"][3].update(category_id=None), "a blank category_id in annotations[3]"),
        (lambda c: c["annotations"][3].update(bbox=[1, 2, 3]), "annotations[3]: bbox is [1, 2, 3]; it must be"),
        (lambda c: c["images"][1].pop("file_name"), "has no 'file_name' in images[1]"),
        (lambda c: c["images"][1].update(file_name=""), 'images[1]: file_name is ""; it must be a text'),
        (lambda c: c["categories"][1].update(name="  "), "class number 1 has a blank name"),
        (lambda c: c.pop("annotations"), "MegaDetector belong to dataset.detections"),
    ],
)
def test_a_message_names_file_and_record(tmp_path, change, words):
    content = made.coco(SHOTS)
    change(content)
    with pytest.raises(DataError) as refused:
        read(tmp_path, content)
    assert words in str(refused.value)
    assert str(tmp_path / "annotations.json") in str(refused.value)


@pytest.mark.parametrize(
    ("key", "field", "value", "words"),
    [
        ("images", "id", None, "images[0]: id is null; it must be a text or a whole number"),
        ("images", "file_name", 5, "images[0]: file_name is 5; it must be a text"),
        ("images", "width", "64px", 'images[0]: width is "64px"; it must be a whole number of pixels'),
        ("images", "height", [48], "images[0]: height is [48]; it must be a whole number of pixels"),
        ("annotations", "image_id", {}, "annotations[0]: image_id is {}; it must be a text or"),
        ("annotations", "bbox", 7, "annotations[0]: bbox is 7; it must be [left, top, width, height]"),
        ("annotations", "bbox", ["a", 1, 2, 3], 'bbox is ["a", 1, 2, 3]; it must be'),
        ("categories", "name", None, "categories[0]: name is null; it must be a text"),
        ("categories", None, 3, "categories[0]: 3 must be an object"),
    ],
)
def test_a_wrong_field_is_named_with_its_allowed_form(tmp_path, key, field, value, words):
    content = made.coco(made.shots(locations=1))
    if field is None:
        content[key][0] = value
    else:
        content[key][0][field] = value
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(content))
    with pytest.raises(DataError) as refused:
        read_coco("traps", file, str(tmp_path))
    assert words in str(refused.value)
    assert "Correct the file, or export it again" in str(refused.value)
    assert "Fetch" not in str(refused.value)


@pytest.mark.parametrize("field", ["iscrowd", "ignore"])
@pytest.mark.parametrize("value", [1, True, "1", 1.0])
def test_boxes_of_crowds_and_boxes_to_be_ignored_are_left_out(tmp_path, field, value):
    def box(number, image, **more):
        return {"id": number, "image_id": image, "category_id": 3, "bbox": [number, 1, 2, 2], **more}

    content = {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in range(4)],
        "annotations": [
            box(0, 0, **{field: value}),
            box(1, 0, **{field: 0}),
            box(2, 1, **{field: value}),
            box(3, 2, **{field: None}),
        ],
        "categories": [{"id": 3, "name": "deer"}],
    }
    records = read(tmp_path, content)
    assert records.images.tolist() == [0, 2]
    assert records.boxes[:, 0].tolist() == [1, 3]
    assert {reason: rows.tolist() for reason, rows in records.left_out.items()} == {
        "only boxes of crowds or to be ignored": [1],
        "no label": [3],
    }
    assert any("2 of 4 annotations are left out" in remark for remark in records.remarks)
    records = read(tmp_path, content | {"annotations": [box(1, 0)]})
    assert not any("left out" in remark for remark in records.remarks)


@pytest.mark.parametrize("value", [2, "yes", [1]])
def test_a_flag_that_is_neither_0_nor_1_is_refused(tmp_path, value):
    content = made.coco(SHOTS)
    content["annotations"][3]["iscrowd"] = value
    with pytest.raises(DataError, match=r"annotations\[3\]: iscrowd is .*; allowed are 0 and 1"):
        read(tmp_path, content)
