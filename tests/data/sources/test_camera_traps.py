"""Camera-trap images of every format: whole, cut by box, divided by group, and listed where they cannot be used."""

import json
import warnings

import numpy as np
import pytest

import camera_trap_files as made
from ltr.data.image_table import write_image_table
from ltr.data.images.crop import FileCrop
from ltr.data.packed_images.reading import open_packed
from ltr.data.packed_images.writing import pack
from ltr.data.sources.camera_traps import camera_traps
from ltr.data.splitting.camera_traps import camera_traps as split_of
from ltr.data.splitting.exclusion import exclude_images
from ltr.errors import ConfigError, DataError

SHOTS = made.shots(labels=("deer", "fox", "owl", "empty"))
ANIMALS = [shot for shot in SHOTS if shot.label != "empty"]


pytestmark = pytest.mark.filterwarnings("ignore:.*(whole groups|are left out|no image that is used)")


@pytest.fixture(scope="session")
def traps(tmp_path_factory):
    """A folder with images, and their annotations in every format."""
    root = made.write(tmp_path_factory.mktemp("traps"), SHOTS)
    made.camtrap_dp(root / "dp", SHOTS)
    made.table(root / "table.csv", SHOTS, ";", "\ufeff")
    (root / "boxes.json").write_text(json.dumps(made.coco(SHOTS, boxes=True)))
    return root


def read(root, file="annotations.json", **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return camera_traps(name="traps", annotations=str(root / file), root=str(root), **options)


def changed(root, tmp_path, change, content=None):
    """The path of an annotation file after ``change`` was done to its content."""
    content = made.coco(SHOTS) if content is None else content
    change(content)
    file = tmp_path / "changed.json"
    file.write_text(json.dumps(content))
    return file


def rows(source):
    """(path, class) of every image."""
    return sorted((source.images.relative(n), source.class_names[source.labels[n]]) for n in range(len(source)))


@pytest.mark.parametrize(
    ("file", "format"),
    [("annotations.json", "coco_camera_traps"), ("dp", "camtrap_dp"), ("table.csv", "csv")],
)
def test_the_same_images_are_read_from_every_format(traps, file, format):
    source = read(traps, file)
    assert source.name == f"traps-{format}-location-test0.2-seed0"
    blank = "blank" if format == "camtrap_dp" else "empty"
    assert rows(source) == sorted((shot.path, blank if shot.label == "empty" else shot.label) for shot in SHOTS)
    assert f"the annotations are in the format {format}" in source.remarks


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("label", "test;label", "no column split, and its column test, which holds dev, train, is not read"),
        ("location", "Location", "the column Location is not read. Rename it to location, or remove it"),
        ("label", "part;label", "no column split, and its column part, which holds dev, train, is not read"),
    ],
)
def test_divisions_and_groups_under_another_name_are_refused(traps, tmp_path, old, new, reason):
    head, *lines = (traps / "table.csv").read_text(encoding="utf-8-sig").splitlines()
    at = head.split(";").index(old)
    if ";" in new:  # a further column before the old one
        cells = [line.split(";") for line in lines]
        lines = [";".join([*row[:at], ("train", "dev")[n % 2], *row[at:]]) for n, row in enumerate(cells)]
    names = [new if name == old else name for name in head.split(";")]
    table = tmp_path / "table.csv"
    table.write_text("\n".join([";".join(names), *lines]))
    with pytest.raises(DataError, match=reason):
        camera_traps(name="traps", annotations=str(table), root=str(traps), missing="exclude")


def coco_with(traps, tmp_path, field, values):
    """Write the annotations with a further field of every image, whose values repeat."""
    content = json.loads((traps / "annotations.json").read_text())
    for number, image in enumerate(content["images"]):
        image[field] = values[number % len(values)]
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(content))
    return camera_traps(name="traps", annotations=str(file), root=str(traps))


def test_coco_may_divide_its_images_by_the_field_split(traps, tmp_path):
    source = coco_with(traps, tmp_path, "split", ["train", "test", "train"])
    assert source.name == "traps-coco_camera_traps-column-split"
    in_file = json.loads((tmp_path / "annotations.json").read_text())["images"]
    expected = {image["file_name"] for image in in_file if image["split"] == "test"}
    assert {source.images.relative(n) for n in source.parts["test"]} == expected


@pytest.mark.parametrize(
    ("field", "values", "reason"),
    [
        ("subset", ["train", "dev", ""], "has no field split, and its field subset, which holds dev, train, is not"),
        ("Split", ["train2017", "val2017", None], "its field Split, which holds train2017, val2017, is not read"),
        ("Usage", ["Training", "PrivateTest"], "its field Usage, which holds PrivateTest, Training, is not read"),
        ("partition", [0, 1, 2], "its field partition, which holds 0, 1, 2, is not read"),
        ("test", [False, True], "its field test, which holds False, True, is not read"),
        ("is_train", [True, False], "has no field split, and its field is_train is not read. Rename it to split"),
        ("split", ["train", "night"], "the field split of .* has 'night'. Allowed are train, val, test"),
        ("split", ["train", None], "the field split of .* has [0-9]+ blank values"),
    ],
)
def test_a_division_of_coco_that_cannot_be_read_is_refused(traps, tmp_path, field, values, reason):
    with pytest.raises(DataError, match=reason):
        coco_with(traps, tmp_path, field, values)


@pytest.mark.filterwarnings("error:.*is not read")
@pytest.mark.parametrize("values", [["train", "bus"], ["train"], ["val", "test"], [1, 0]])
def test_a_field_with_other_values_is_no_division(traps, tmp_path, values):
    assert len(coco_with(traps, tmp_path, "vehicle", values).parts["test"])


def test_folders_of_parts_that_no_field_names_are_warned_of(traps, tmp_path):
    content = json.loads((traps / "annotations.json").read_text())
    for number, image in enumerate(content["images"]):
        image["file_name"] = f"all/{('train', 'val')[number % 2]}/{image['file_name']}"
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(content))
    (tmp_path / "all").mkdir()
    for part in ("train", "val"):
        (tmp_path / "all" / part).symlink_to(traps)
    with pytest.warns(
        UserWarning, match="lie in the folders train, val, which are not read as a .* add the field split"
    ):
        camera_traps(name="traps", annotations=str(file), root=str(tmp_path), roots=[str(traps)])


@pytest.mark.parametrize("field", ["Location", "Seq_ID", "DateTime", "Width"])
def test_a_field_of_coco_in_other_capitals_is_refused(traps, tmp_path, field):
    content = json.loads((traps / "annotations.json").read_text())
    for image in content["images"]:
        image[field] = image.pop(field.lower())
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"the field {field} is not read. Rename it to {field.lower()}, or remove it"):
        camera_traps(name="traps", annotations=str(tmp_path / "annotations.json"), root=str(traps))


BOX_COLUMNS = pytest.mark.parametrize(
    "columns",
    ["bbox_x,bbox_y,bbox_width,bbox_height", "xmin,ymin,xmax,ymax", "bbox", "left,top,width,height", "bboxX,bboxY"],
)


@BOX_COLUMNS
@pytest.mark.parametrize("crop", ["auto", "box", "none"])
def test_boxes_in_columns_that_are_not_read_are_refused_unless_images_are_whole(traps, tmp_path, columns, crop):
    text = made.table(tmp_path / "t.csv", SHOTS).read_text().splitlines()
    cells = ",".join("1" for _ in columns.split(","))
    (tmp_path / "t.csv").write_text("\n".join([f"{text[0]},{columns}", *(f"{line},{cells}" for line in text[1:])]))

    def opened():
        return camera_traps(name="traps", annotations=str(tmp_path / "t.csv"), root=str(traps), crop=crop)

    if crop == "none":
        assert opened().images.crops is None
    else:
        with pytest.raises(DataError, match=r"has a box in the columns .*, which are not read\. Write left, top"):
            opened()


@pytest.mark.parametrize("table", ["media", "deployments", "observations"])
def test_a_division_in_a_package_is_refused_unless_a_list_names_the_parts(traps, tmp_path, table):
    folder = tmp_path / "dp"
    made.camtrap_dp(folder, SHOTS)
    file = folder / f"{table}.csv"
    head, *lines = file.read_text().splitlines()
    file.write_text(
        "\n".join([f"{head},subset", *(f"{line},{('train', 'test')[n % 2]}" for n, line in enumerate(lines))])
    )
    with pytest.raises(DataError, match=f"{table}.csv .*its column subset, .*dataset.split_list=FILE"):
        camera_traps(name="traps", annotations=str(folder), root=str(traps))
    (tmp_path / "parts.json").write_text(json.dumps({"train": ["L0", "L1"], "test": ["L2"]}))
    camera_traps(
        name="traps",
        annotations=str(folder),
        root=str(traps),
        group="location",
        split_list=str(tmp_path / "parts.json"),
    )


def test_times_that_cannot_be_read_anywhere_are_reported(traps, tmp_path):
    content = made.coco(SHOTS)
    for image in content["images"]:
        image["datetime"] = "1/7/2020 10:00"
    (tmp_path / "a.json").write_text(json.dumps(content))
    total = len(content["images"])
    remarks = read(traps, tmp_path / "a.json").remarks
    assert f"{total} of {total} images have no time that can be read" in remarks
    assert "times must be written as 2024-05-31 23:59:01; '1/7/2020 10:00' cannot be read" in remarks


def test_a_forced_format_is_the_one_that_is_read(traps):
    assert read(traps, format="coco").name.startswith("traps-coco-")
    with pytest.raises(ConfigError, match="allowed is one of: auto, coco_camera_traps, coco, camtrap_dp, csv"):
        read(traps, format="megadetector")
    with pytest.raises(DataError, match="cannot be read as the description of a Camtrap DP package"):
        read(traps, "table.csv", format="camtrap_dp")


def test_detections_join_labels_by_file_name(traps):
    source = read(traps, detections=str(traps / "md.json"))
    assert rows(source) == sorted((shot.path, shot.label) for shot in ANIMALS)
    assert source.left_out == {"no box": tuple(shot.path for shot in SHOTS if shot.label == "empty")}
    for number in range(len(source)):
        np.testing.assert_allclose(source.images.crops.boxes[number], [0.25, 0.25, 0.375, 0.5])


@pytest.mark.parametrize("options", [{"file": "boxes.json", "crop": "box"}, {"detections": True}])
def test_crops_show_the_animal(traps, options):
    if "detections" in options:
        options = {"detections": str(traps / "md.json")}
    source = read(traps, crop_margin=0.0, crop_square=False, **options)
    crop = FileCrop(8, resize=8)
    for number in range(0, len(source), 5):
        pixels = crop.read(source.images.open(number), None, source.decoding)
        expected = made.COLOURS[source.class_names[source.labels[number]]]
        assert np.abs(pixels.mean(axis=(0, 1)) - expected).max() < 12


def test_an_empty_image_with_a_detection_is_a_crop_of_the_background(traps, tmp_path):
    content = made.megadetector(SHOTS)
    empty = next(number for number, shot in enumerate(SHOTS) if shot.label == "empty")
    content["images"][empty]["detections"].append({"category": "1", "conf": 0.5, "bbox": [0.1, 0.1, 0.2, 0.2]})
    (tmp_path / "md.json").write_text(json.dumps(content))
    source = read(traps, detections=str(tmp_path / "md.json"))
    assert (SHOTS[empty].path, "empty") in rows(source)
    assert split_of(source).class_names[0] == "background"


def test_whole_images_replace_missing_boxes_if_requested(traps):
    source = read(traps, detections=str(traps / "md.json"), without_box="whole")
    assert len(source) == len(SHOTS)
    whole = np.isnan(source.images.crops.boxes[:, 0])
    assert {source.class_names[label] for label in source.labels[whole]} == {"empty"}


def test_failures_and_images_without_a_record_are_listed(traps, tmp_path):
    content = made.megadetector(SHOTS)
    content["images"][0] = {"file": SHOTS[0].path, "failure": "Failure image access", "detections": None}
    del content["images"][1]
    (tmp_path / "md.json").write_text(json.dumps(content))
    source = read(traps, detections=str(tmp_path / "md.json"))
    assert source.left_out["the detector could not read it"] == (SHOTS[0].path,)
    assert source.left_out["not in the detections"] == (SHOTS[1].path,)


def test_detections_of_other_images_are_refused(traps, tmp_path):
    content = made.megadetector(SHOTS)
    for image in content["images"]:
        image["file"] = "elsewhere/" + image["file"]
    (tmp_path / "md.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"none of the .* labelled images. It names elsewhere/L0/0_deer_0.jpg"):
        read(traps, detections=str(tmp_path / "md.json"))


def two_labels(content):
    """The first image is of a deer and of a fox, each with a box."""
    content["annotations"][0]["bbox"] = [0, 0, 10, 20]
    fox = {"id": "more", "image_id": SHOTS[0].key, "category_id": 2, "bbox": [20, 0, 30, 30]}
    content["annotations"].append(fox)


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({"multiple": "exclude"}, []),
        ({"multiple": "first"}, ["deer"]),
        ({}, []),
        ({"crop": "box"}, ["deer", "fox"]),
        ({"crop": "box", "multiple": "first"}, ["deer"]),
        ({"crop": "box", "multiple": "exclude"}, []),
        ({"crop": "box", "boxes": "largest"}, ["fox"]),
    ],
)
def test_an_image_of_several_labels_follows_the_rule(traps, tmp_path, options, labels):
    file = changed(traps, tmp_path, two_labels, made.coco(SHOTS, boxes=True))
    source = read(traps, file, **options)
    assert [label for path, label in rows(source) if path == SHOTS[0].path] == labels
    assert (SHOTS[0].path in source.left_out.get("several labels", ())) == (not labels)


def test_coco_with_boxes_is_cropped_automatically(traps, tmp_path):
    def plain(content):
        content["images"] = [{key: image[key] for key in ("id", "file_name")} for image in content["images"]]

    source = read(traps, changed(traps, tmp_path, plain, made.coco(ANIMALS, boxes=True)), group="none")
    assert source.name.startswith("traps-coco-crops")
    np.testing.assert_allclose(source.images.crops.boxes[0], [0.25, 0.25, 0.375, 0.5])  # sizes are of the files


def test_boxes_outside_their_image_name_file_and_image(traps, tmp_path):
    def wrong(content):
        content["annotations"][0]["bbox"] = [50, 10, 30, 10]

    file = changed(traps, tmp_path, wrong, made.coco(SHOTS, boxes=True))
    with pytest.raises(DataError, match=r"changed.json has 1 box outside .* L0/0_deer_0.jpg \[0.781"):
        read(traps, file, crop="box")
    source = read(traps, file, crop="box", invalid_boxes="exclude")
    assert source.left_out["box outside the image"] == (SHOTS[0].path,)


def test_missing_files_are_an_error_or_listed(traps, tmp_path):
    def missing(content):
        content["images"][3]["file_name"] = "L0/gone.jpg"

    file = changed(traps, tmp_path, missing)
    with pytest.raises(DataError, match=r"1 of 80 image files named in .*changed.json are missing"):
        read(traps, file)
    source = read(traps, file, missing="exclude")
    assert source.left_out == {"file missing": ("L0/gone.jpg",)}
    assert len(source) == len(SHOTS) - 1


def test_a_listed_image_that_is_named_twice_is_refused(traps, tmp_path):
    def twice(content):
        content["images"][3]["file_name"] = "L0/./0_deer_0.jpg"

    with pytest.raises(DataError, match="an image appears twice"):
        read(traps, changed(traps, tmp_path, twice))


def test_every_image_is_used_or_counted_in_the_warning(traps, tmp_path):
    def worse(content):
        content["images"][3]["corrupt"] = True
        del content["annotations"][5]
        content["categories"].append({"id": 99, "name": "bear"})

    file = changed(traps, tmp_path, worse)
    with pytest.warns(UserWarning, match="images are left out") as caught:
        source = camera_traps(name="traps", annotations=str(file), root=str(traps))
    messages = " ".join(str(warning.message) for warning in caught)
    assert "2 images are left out; marked as corrupt (1)" in messages
    assert "1 category of" in messages
    assert "bear" in messages
    listed = [path for paths in source.left_out.values() for path in paths]
    assert sorted([path for path, _ in rows(source)] + listed) == sorted(shot.path for shot in SHOTS)


@pytest.mark.parametrize("group", ["location", "seq_id", "date"])
def test_no_group_is_in_two_parts_nor_in_validation_and_training(traps, group):
    source = read(traps, group=group)
    split = split_of(source, val="train_fraction", val_fraction=0.3)
    codes = source.groupings[group].codes
    train, val, test = (set(codes[part].tolist()) for part in (split.train, split.val, split.test))
    assert min(map(len, (train, val, test))) > 0
    assert not train & val
    assert not (train | val) & test


def test_empty_images_are_the_background(traps):
    split = split_of(read(traps))
    assert split.class_names == ("background", "deer", "fox", "owl")
    assert split.protocols == ("background",)
    plain = split_of(read(traps), empty=[])
    assert plain.protocols == ("closed_set",)
    assert plain.class_names == ("deer", "empty", "fox", "owl")


def test_crops_survive_packing_with_their_groups(traps, tmp_path):
    source = read(traps, detections=str(traps / "md.json"))
    assert pack(source, {"_target_": "x"}, tmp_path / "p.arrow", size=64, format="raw")
    packed = open_packed(tmp_path / "p.arrow")
    assert packed.group == "location"
    expected, actual = packed.groupings["location"], source.groupings["location"]
    assert [expected.values[code] for code in expected.codes] == [actual.values[code] for code in actual.codes]
    crop = FileCrop(8)
    for number in (0, 7):
        from_file = crop.read(source.images.open(number), None, source.decoding)
        np.testing.assert_array_equal(crop.read(packed.images.open(number), None, packed.decoding), from_file)


def test_an_excluded_file_takes_all_its_crops(traps, tmp_path):
    content = made.megadetector(SHOTS)
    content["images"][0]["detections"].append({"category": "1", "conf": 0.9, "bbox": [0.5, 0.5, 0.25, 0.25]})
    (tmp_path / "md.json").write_text(json.dumps(content))
    source = read(traps, detections=str(tmp_path / "md.json"))
    assert len(source) == len(ANIMALS) + 1
    (tmp_path / "list.txt").write_text(f"{SHOTS[0].path}\n")
    split = exclude_images(split_of(source), source, tmp_path / "list.txt")
    assert len(split.train) + len(split.test) == len(ANIMALS) - 1


def test_other_crops_are_another_source(traps):
    options = [{}, {"crop_margin": 0.2}, {"crop_square": False}, {"min_confidence": 0.0, "detector_categories": None}]
    sources = [read(traps, detections=str(traps / "md.json"), **one) for one in options]
    assert len({source.fingerprint for source in sources}) == len(options)


def test_a_table_of_the_source_is_read_as_the_same_images(traps, tmp_path):
    source = read(traps, detections=str(traps / "md.json"))
    write_image_table(source, tmp_path / "t.csv")
    again = camera_traps(name="traps", annotations=str(tmp_path / "t.csv"), root=str(traps), crop="box")
    assert rows(again) == rows(source)
    assert again.parts == source.parts
    np.testing.assert_allclose(again.images.crops.boxes, source.images.crops.boxes, atol=1e-6)


def test_a_missing_annotation_file_is_refused_with_the_required_ones(tmp_path):
    with pytest.raises(DataError, match=r"there is no file .*a.json. dataset.annotations must name an annotation file"):
        read(tmp_path, "a.json")


def test_a_megadetector_file_instead_of_labels_is_explained(traps):
    with pytest.raises(DataError, match=r"images\[0\]: a record of MegaDetector, for dataset.detections=FILE"):
        read(traps, "md.json")


@pytest.mark.parametrize("start", ["./", ".//", "{root}//", "{root}/./"])
def test_spellings_of_a_path_in_the_detections_match(traps, tmp_path, start):
    content = made.megadetector(SHOTS)
    for image in content["images"]:
        image["file"] = start.format(root=traps) + image["file"]
    (tmp_path / "md.json").write_text(json.dumps(content))
    source = read(traps, detections=str(tmp_path / "md.json"))
    assert rows(source) == sorted((shot.path, shot.label) for shot in ANIMALS)


def test_a_written_table_of_crops_is_read_as_crops(traps, tmp_path):
    source = read(traps, detections=str(traps / "md.json"))
    write_image_table(source, tmp_path / "t.csv")
    again = read(traps, tmp_path / "t.csv")
    assert rows(again) == rows(source)
    np.testing.assert_allclose(again.images.crops.boxes, source.images.crops.boxes, rtol=1e-6)
    assert {part: len(of) for part, of in again.parts.items()} == {part: len(of) for part, of in source.parts.items()}


def test_boxes_that_are_not_cropped_are_reported(traps):
    remark = "boxes are in boxes.json, and images are whole; dataset.crop=box cuts them"
    assert remark in read(traps, "boxes.json").remarks
    assert remark not in read(traps, "boxes.json", crop="box").remarks
    assert remark not in read(traps, "boxes.json", crop="none").remarks


def test_categories_of_one_name_form_one_class_and_are_reported(traps, tmp_path):
    content = made.coco(SHOTS)
    fox = next(category["id"] for category in content["categories"] if category["name"] == "fox")
    content["categories"].append({"id": 90, "name": "fox"})
    changed = next(label for label in content["annotations"] if label["category_id"] == fox)
    changed["category_id"] = 90
    (tmp_path / "a.json").write_text(json.dumps(content))
    source = read(traps, tmp_path / "a.json")
    assert source.class_names.count("fox") == 1
    assert "categories with the same name are one class: fox" in source.remarks


def test_images_without_a_readable_time_are_counted(traps, tmp_path):
    content = made.coco(SHOTS)
    content["images"][3]["datetime"] = "31.05.2024"
    (tmp_path / "a.json").write_text(json.dumps(content))
    total = len(content["images"])
    assert f"1 of {total} images have no time that can be read" in read(traps, tmp_path / "a.json").remarks


def test_missing_or_low_confidence_detections_are_explained(traps, tmp_path):
    with pytest.raises(DataError, match=r"there is no file .*none.json. dataset.detections must name"):
        read(traps, "annotations.json", detections=str(tmp_path / "none.json"))
    (tmp_path / "md.json").write_text(json.dumps(made.megadetector(SHOTS, confidence=0.1)))
    with pytest.raises(DataError, match=r"no box: \d+\)\. Is dataset.min_confidence=0.2 too high"):
        read(traps, "annotations.json", detections=str(tmp_path / "md.json"))


@pytest.mark.parametrize("name", ["labels.xlsx", "labels.csv"])
def test_a_workbook_instead_of_a_table_is_explained(traps, tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04" + bytes(60))
    with pytest.raises(DataError, match="Save it as CSV in UTF-8"):
        read(traps, tmp_path / name)
