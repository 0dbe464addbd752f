"""Parts by group, by time and from a list."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

import camera_trap_files as made
from ltr.data.image_table import write_image_table
from ltr.data.source import ImageFiles
from ltr.data.sources.camera_traps import camera_traps
from ltr.data.splitting.camera_traps import camera_traps as split_of
from ltr.data.splitting.group_description import describe_groups
from ltr.data.splitting.groups import file_groups
from ltr.errors import ConfigError, DataError

SHOTS = made.shots()


@pytest.fixture(scope="session")
def traps(tmp_path_factory):
    return made.write(tmp_path_factory.mktemp("divided"), SHOTS)


def read(root, file="annotations.json", **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return camera_traps(name="traps", annotations=str(root / file), root=str(root), **options)


def values(source, key, part):
    grouping, indices = source.groupings[key], source.parts[part]
    return {grouping.values[code] for code in grouping.codes[indices.start : indices.stop]}


def test_the_latest_images_are_for_testing(traps):
    source = read(traps, division="time", test_fraction=0.25)
    assert source.name == "traps-coco_camera_traps-time-seq_id-test0.25"
    assert max(values(source, "date", "train")) <= min(values(source, "date", "test"))
    assert not values(source, "seq_id", "train") & values(source, "seq_id", "test")
    assert abs(len(source.parts["test"]) / len(source) - 0.25) < 0.1


def test_a_fraction_below_one_image_holds_out_the_latest_time(traps):
    source = read(traps, division="time", group="location", test_fraction=0.001)
    assert 0 < len(source.parts["test"]) < len(source.parts["train"])
    assert max(values(source, "date", "train")) <= max(values(source, "date", "test"))


def test_a_burst_across_the_cut_belongs_to_the_part_of_its_first_image(traps, tmp_path):
    content = made.coco(SHOTS)
    for image in content["images"]:
        image["datetime"] = image["datetime"][:14] + image["datetime"][17:19] + image["datetime"][16:]
    (tmp_path / "a.json").write_text(json.dumps(content))
    source = read(traps, tmp_path / "a.json", division="time", group="seq_id", test_fraction=0.3)
    assert not values(source, "seq_id", "train") & values(source, "seq_id", "test")


@pytest.mark.parametrize("kind", ["csv", "json"])
@pytest.mark.parametrize("zones", ["all", "some", "none"])
def test_images_are_ordered_by_instants_if_all_have_a_time_zone(tmp_path, zones, kind):
    # local time ascends with the number; instants order the places: east of them is earlier
    offsets = {"all": ["-09:00", "+00:00", "+09:00"], "some": ["", "+00:00", "+09:00"], "none": [""] * 3}[zones]
    images = []
    for number in range(30):
        path = f"{number:02d}.jpg"
        (tmp_path / path).touch()
        images.append((path, ("deer", "fox")[number % 2], f"2024-05-31T{number // 6 + 1:02d}:{number % 6}0:00"))
    zoned = [(path, label, f"{time}{offsets[number % 3]}") for number, (path, label, time) in enumerate(images)]
    if kind == "csv":
        file = tmp_path / "a.csv"
        file.write_text("\n".join(["path,label,datetime", *map(",".join, zoned)]))
    else:
        file = tmp_path / "a.json"
        categories = [{"id": 1, "name": "deer"}, {"id": 2, "name": "fox"}]
        listed = [{"id": path, "file_name": path, "datetime": time} for path, _, time in zoned]
        labels = [{"id": path, "image_id": path, "category_id": 1 + (label == "fox")} for path, label, _ in zoned]
        file.write_text(json.dumps({"images": listed, "annotations": labels, "categories": categories}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        source = camera_traps(name="traps", annotations=str(file), root=str(tmp_path), division="time",
                              group="none", test_fraction=0.3)  # fmt: skip
    tested = {int(source.images.relative(row)[:2]) for row in source.parts["test"]}
    assert tested == (set(range(3, 30, 3)) if zones == "all" else set(range(21, 30)))
    assert any(("(UTC)" if zones == "all" else "(local time)") in remark for remark in source.remarks)
    warned = any("20 of 30 images have a time zone" in str(warning.message) for warning in caught)
    assert warned == (zones == "some")


def test_images_without_a_time_are_named(traps, tmp_path):
    content = made.coco(SHOTS)
    content["images"][4]["datetime"] = "yesterday"
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"1 image has no time that can be read.*L0/0_empty_0.jpg"):
        read(traps, tmp_path / "a.json", division="time")


def test_images_with_equal_times_cannot_be_divided_by_time(traps, tmp_path):
    content = made.coco(SHOTS)
    for image in content["images"]:
        image["datetime"] = "2024-01-01 00:00:00"
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="at the same time"):
        read(traps, tmp_path / "a.json", division="time")


@pytest.mark.parametrize("kind", ["json", "csv of locations", "csv of paths"])
def test_a_list_names_the_parts(traps, tmp_path, kind):
    parts = {"train": ["L0", "L1", "L2"], "val": ["L3"], "test": ["L4", "L5"]}
    if kind == "json":
        file = tmp_path / "list.json"
        file.write_text(json.dumps({"splits": parts}))
    else:
        file = tmp_path / "list.csv"
        rows = [(part, index) for part, places in parts.items() for index in places]
        if kind.endswith("paths"):
            part_of = {index: part for part, index in rows}
            rows = [(part_of[shot.location], shot.path) for shot in SHOTS]
        head = "path" if kind.endswith("paths") else "location"
        file.write_text(f"split;{head}\n" + "".join(f"{part};{value}\n" for part, value in rows))
    source = read(traps, split_list=str(file))
    for part, places in parts.items():
        assert values(source, "location", part) == set(places)


def test_groups_that_the_list_leaves_out_are_listed(traps, tmp_path):
    (tmp_path / "list.json").write_text(json.dumps({"train": ["L0", "L1"], "test": ["L2"]}))
    source = read(traps, split_list=str(tmp_path / "list.json"))
    assert len(source.left_out["in no part of the list"]) == len(SHOTS) // 2


def test_classes_without_a_training_image_are_listed(traps, tmp_path):
    rows = [f"{'test' if shot.label == 'fox' else 'train'},{shot.path}" for shot in SHOTS if shot.location != "L5"]
    rows += [f"{'train' if shot.label == 'deer' else 'test'},{shot.path}" for shot in SHOTS if shot.location == "L5"]
    (tmp_path / "list.csv").write_text("split,path\n" + "\n".join(rows) + "\n")
    source = read(traps, split_list=str(tmp_path / "list.csv"))
    assert source.class_names == ("deer", "empty")
    assert len(source.left_out["its class has no training image"]) == len(SHOTS) // 3


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("l.json", '{"train": ["L0"], "rest": ["L1"]}', "rest[0]: the part is 'rest'. Allowed are train, val, test"),
        ("l.json", '{"train": ["L0"], "test": ["L0"]}', "test[0]: 'L0' is in two parts"),
        ("l.json", '{"train": ["L0"], "train": ["L1"]}', "an object has the key 'train' twice"),
        ("l.json", '{"train": ["L0"], "test": ["L9"]}', "lists groups of location that no image has: L9"),
        ("l.json", '["L0"]', "must have an object"),
        ("l.json", "{", "cannot be read as JSON"),
        ("l.csv", "split,camera\ntrain,1\n", "has the columns split, camera"),
        ("l.csv", "split,path\ntrain,gone.jpg\n", "lists paths that no image has: gone.jpg"),
        ("l.csv", "split,location\nbuild,L0\n", "line 2: the part is 'build'"),
    ],
)
def test_a_wrong_list_names_file_and_record(traps, tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as refused:
        read(traps, split_list=str(tmp_path / name))
    assert words in str(refused.value)
    assert name in str(refused.value)


def test_an_unknown_group_is_refused_with_the_existing_ones(traps):
    with pytest.raises(ConfigError, match=r"allowed are location, seq_id, date, auto, none. Did you mean 'location'"):
        read(traps, group="locations")


def test_images_without_the_group_are_named(traps, tmp_path):
    content = made.coco(SHOTS)
    content["images"][0]["location"] = None
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"1 image has no location .*L0/0_deer_0.jpg"):
        read(traps, tmp_path / "a.json", group="location")
    assert read(traps, tmp_path / "a.json").group == "seq_id"  # auto takes the next that all images have


def test_one_group_cannot_be_divided(traps, tmp_path):
    content = made.coco(SHOTS)
    for image in content["images"]:
        image["location"] = "here"
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="all 72 images have the location 'here'"):
        read(traps, tmp_path / "a.json", group="location")


def test_a_group_larger_than_the_wanted_part_is_named(traps, tmp_path):
    content = made.coco(SHOTS)
    for image in content["images"]:
        image["location"] = "big" if image["location"] != "L0" else "small"
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="16.7% of the images are for testing, .* asks for 40.0%.*'big', has 60 of 72"):
        camera_traps(name="traps", annotations=str(tmp_path / "a.json"), root=str(traps), test_fraction=0.4)


def test_without_any_group_images_are_divided_one_by_one_with_a_warning(traps, tmp_path):
    content = made.coco(SHOTS)
    content["images"] = [{key: image[key] for key in ("id", "file_name")} for image in content["images"]]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="images of one burst may be in training and in test"):
        source = camera_traps(name="traps", annotations=str(tmp_path / "a.json"), root=str(traps))
    assert source.group is None


def test_the_description_states_the_leak_of_a_random_split(traps):
    source = read(traps)
    lines = list(describe_groups(source, split_of(source)))
    location = next(line for line in lines if line.startswith("location"))
    assert (
        location
        == "location: 6 groups; 0.0% of the test images share theirs with training images (a random split: 100.0%)"
    )
    assert "  fox: 20, 4" in lines


def test_a_random_split_has_the_leak_of_the_description(traps):
    source = read(traps, group="none")
    train, test = (np.arange(source.parts[part].start, source.parts[part].stop) for part in ("train", "test"))
    codes = source.groupings["seq_id"].codes
    shared = np.isin(codes[test], codes[train]).mean()
    line = next(line for line in describe_groups(source, split_of(source)) if line.startswith("seq_id"))
    assert f"; {shared:.1%} of the test images" in line
    assert shared > 0.5


@pytest.fixture(scope="session")
def crowded(tmp_path_factory):
    """Plain COCO detections: 1 to 4 boxes of one or two classes in each photo, and nothing known of the cameras."""
    shots = made.shots(locations=4, labels=("deer", "fox"))
    root = made.write(tmp_path_factory.mktemp("crowded"), shots)
    content = made.coco(shots)
    for image in content["images"]:
        for key in ("location", "seq_id", "seq_num_frames", "frame_num", "datetime"):
            del image[key]
    content["annotations"] = [
        {"id": f"{number}-{box}", "image_id": shot.key, "category_id": 1 + (number + box) % 2, "bbox": [box, 2, 9, 9]}
        for number, shot in enumerate(shots)
        for box in range(1 + number % 4)
    ]
    (root / "coco.json").write_text(json.dumps(content))
    return root


def files_of(source, indices):
    return {source.images.relative(int(row)) for row in indices}


@pytest.mark.parametrize("options", [{}, {"group": "none"}, {"format": "csv"}])
@pytest.mark.parametrize("val", ["train_fraction", "test_fraction"])
@pytest.mark.parametrize("seed", range(4))
def test_crops_of_one_file_are_in_one_part(crowded, tmp_path, options, val, seed):
    source = read(crowded, "coco.json", split_seed=seed, test_fraction=0.4, group=options.get("group", "auto"))
    if "format" in options:  # the table that ltr-data import writes
        write_image_table(source, tmp_path / "t.csv")
        again = read(crowded, tmp_path / "t.csv")
        assert {part: len(of) for part, of in again.parts.items()} == {p: len(of) for p, of in source.parts.items()}
        source = again
    assert source.images.crops is not None
    assert len(files_of(source, range(len(source)))) < len(source)
    split = split_of(source, val=val, val_fraction=0.3, seed=seed)
    of_part = [files_of(source, indices) for indices in (split.train, split.val, split.test)]
    assert all(of_part)
    assert sum(map(len, of_part)) == len(set().union(*of_part))


def test_crops_of_one_file_are_in_one_part_of_a_source_without_groups(crowded):
    source = replace(read(crowded, "coco.json", test_fraction=0.4), group=None, groupings={})
    split = split_of(source, val="train_fraction", val_fraction=0.3)
    assert not files_of(source, split.train) & files_of(source, split.val)


def test_spellings_of_one_path_are_one_group():
    files = ImageFiles.from_paths("/data", ["A/0.jpg", "./A//0.jpg", "B/0.jpg"])
    assert file_groups(files).codes.tolist() == [0, 0, 1]
    assert file_groups(ImageFiles.from_paths("/data", ["A/0.jpg", "B/0.jpg"])) is None


def test_auto_reports_how_many_images_have_the_group_that_it_skips(traps, tmp_path):
    content = made.coco(SHOTS)
    del content["images"][3]["location"]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=f"{len(SHOTS) - 1} of {len(SHOTS)} images have a location, .*one seq_id"):
        source = camera_traps(name="traps", annotations=str(tmp_path / "a.json"), root=str(traps))
    assert source.group == "seq_id"
    for image in content["images"]:
        del image["seq_id"], image["datetime"]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=rf"known for every image \({len(SHOTS) - 1} of {len(SHOTS)} images have"):
        camera_traps(name="traps", annotations=str(tmp_path / "a.json"), root=str(traps))
