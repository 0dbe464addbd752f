"""Groups of a user's own images: by a column, a level of subfolders or a pattern; no group in two parts."""

from __future__ import annotations

import csv
import warnings

import numpy as np
import pytest

from ltr.data.image_table import write_image_table
from ltr.data.source import Source
from ltr.data.sources.camera_traps import camera_traps
from ltr.data.sources.folder import image_folder
from ltr.data.sources.table import image_table
from ltr.data.splitting.closed_set import natural
from ltr.data.splitting.group_description import describe_groups
from ltr.errors import ConfigError, DataError


@pytest.fixture
def images(tmp_path):
    """Write empty image files, which no source opens; returns the folder."""

    def write(paths):
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
        return tmp_path

    return write


def quiet(read, **options) -> Source:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read(name="own", **options)


def synthetic(seed: int, number: int = 120):
    """Random classes with a long tail and places of different sizes: (class, place) of each image."""
    random = np.random.default_rng(seed)
    places = random.choice(12, number, p=random.dirichlet(np.ones(12)))
    classes = random.choice(["ant", "bee", "cat", "dog"], number, p=[0.6, 0.25, 0.1, 0.05])
    return [(str(label), f"place{index}") for label, index in zip(classes, places)]


def groups_of(source: Source, indices) -> set[str]:
    assert source.group is not None
    grouping = source.groupings[source.group]
    return {grouping.values[code] for code in grouping.codes[np.asarray(indices)]}


def from_table(images, rows, **options):
    root = images(f"{number}.jpg" for number in range(len(rows)))
    with open(root / "images.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "place"])
        writer.writerows((f"{number}.jpg", *row) for number, row in enumerate(rows))
    return quiet(image_table, file=str(root / "images.csv"), group="place", **options)


def from_levels(images, rows, **options):
    root = images(f"levels/{label}/2024/{index}/{number}.jpg" for number, (label, index) in enumerate(rows))
    return quiet(image_folder, root=str(root / "levels"), group=2, **options)


def from_pattern(images, rows, **options):
    root = images(f"all/{label}/{index}_{number}.jpg" for number, (label, index) in enumerate(rows))
    return quiet(image_folder, root=str(root / "all"), group="^(place[0-9]+)_", **options)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("read", [from_table, from_levels, from_pattern])
def test_no_group_is_in_two_parts_and_every_class_is_trained(images, read, seed):
    rows = synthetic(seed)
    source = read(images, rows, test_fraction=0.25, split_seed=seed)
    split = natural(source, val="train_fraction", val_fraction=0.2, seed=seed)
    parts = [groups_of(source, indices) for indices in (split.train, split.val, split.test)]
    assert parts[0] | parts[1] | parts[2] == {index for _, index in rows}
    assert sum(map(len, parts)) == len(parts[0] | parts[1] | parts[2])
    assert {source.class_names[label] for label in source.labels[split.train]} == {label for label, _ in rows}
    assert len(source) == len(rows)


def test_every_way_to_name_the_same_groups_gives_the_same_images(images):
    rows = synthetic(7)
    tested = []
    for read in (from_table, from_levels, from_pattern):
        source = read(images, rows)
        paths = [source.images.relative(row) for row in source.parts["test"]]
        tested.append({int(path.rsplit("/", 1)[-1].rsplit("_", 1)[-1].removesuffix(".jpg")) for path in paths})
    assert tested[0] == tested[1] == tested[2]


def test_names_state_the_rule_and_descriptions_the_achieved_counts(images):
    source = from_table(images, synthetic(1), test_fraction=0.3)
    assert source.name == "own-place-test0.3-seed0"
    lines = list(describe_groups(source, natural(source, val="none", val_fraction=0.1, seed=0)))
    assert "groups by place are for testing" in lines[0]
    assert any(line.startswith("place: 12 groups; 0.0% of the test images") for line in lines)
    counts = next(line for line in lines if line.strip().startswith("ant:"))
    wanted = [int((source.labels[slice(part.start, part.stop)] == 0).sum()) for part in source.parts.values()]
    assert counts.strip() == f"ant: {wanted[0]}, {wanted[1]}"


def test_fixed_parts_are_unchanged_and_groups_in_two_parts_are_reported(images):
    root = images(f"{number}.jpg" for number in range(6))
    rows = ["a,x,train", "a,y,test", "b,x,train", "b,z,test", "a,x,train", "b,y,test"]
    lines = ["path,label,place,split", *(f"{number}.jpg,{row}" for number, row in enumerate(rows))]
    (root / "images.csv").write_text("\n".join(lines))
    source = quiet(image_table, file=str(root / "images.csv"), group="place")
    assert [len(part) for part in source.parts.values()] == [3, 3]
    (root / "images.csv").write_text("\n".join(lines).replace("2.jpg,b,x", "2.jpg,b,z"))
    with pytest.warns(UserWarning, match=r"divide 1 of 3 groups by place: z\. ltr-data describe"):
        image_table(name="own", file=str(root / "images.csv"), group="place")


def test_groups_of_earlier_tables_stay_with_corrected_labels(images):
    root = images(f"{number}.jpg" for number in range(4))
    (root / "old.csv").write_text("path,label,place\n0.jpg,a,x\n1.jpg,b,x\n2.jpg,a,y\n3.jpg,b,y\n")
    (root / "new.csv").write_text("path,label\n1.jpg,a\n")
    labels = [str(root / "old.csv"), str(root / "new.csv")]
    source = quiet(image_table, file="none.csv", labels=labels, group="place")
    assert sorted(map(len, source.parts.values())) == [2, 2]
    (root / "new.csv").write_text("path,label\n4.jpg,a\n")
    images(["4.jpg"])
    with pytest.raises(DataError, match=r"1 image has no place that would keep them together: 4\.jpg"):
        quiet(image_table, file="none.csv", labels=labels, group="place")


def test_a_table_with_its_groups_is_written_and_read_again(images, tmp_path):
    source = from_table(images, synthetic(3))
    write_image_table(source, tmp_path / "again.csv")
    text = (tmp_path / "again.csv").read_text().splitlines()
    assert "place" in text[0].split(",")
    again = quiet(image_table, file=str(tmp_path / "again.csv"), group="place")
    assert {part: groups_of(again, span) for part, span in again.parts.items()} == {
        part: groups_of(source, span) for part, span in source.parts.items()
    }


@pytest.mark.parametrize(
    ("head", "group", "reason"),
    [
        ("path,label,place", "plaec", "Choose one of path, label, place, or null .* Did you mean 'place'"),
        ("path;label;place", "location", "there is no such column in .*images.csv"),
    ],
)
def test_a_missing_column_is_refused(images, head, group, reason):
    root = images(["0.jpg", "1.jpg"])
    separator = ";" if ";" in head else ","
    rows = [head, *(separator.join((f"{number}.jpg", "a", str(number))) for number in range(2))]
    (root / "images.csv").write_text("\n".join(rows))
    with pytest.raises(ConfigError, match=reason):
        quiet(image_table, file=str(root / "images.csv"), group=group)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (["0.jpg,a,x", "1.jpg,a,"], "the column place of .* is empty in line 3"),
        (["0.jpg,a,x", "1.jpg,a,x"], "all 2 images have the place 'x', so none can be held out"),
        (["0.jpg,a,x", "1.jpg,b,y"], "every place has the only images of some class"),
    ],
)
def test_groups_that_cannot_be_divided_are_refused(images, rows, reason):
    root = images(["0.jpg", "1.jpg"])
    (root / "images.csv").write_text("\n".join(["path,label,place", *rows]))
    with pytest.raises(DataError, match=reason):
        quiet(image_table, file=str(root / "images.csv"), group="place")


@pytest.mark.parametrize(
    ("group", "reason"),
    [
        (0, "level of subfolders"),
        (True, "level of subfolders"),
        (1.5, "level of subfolders"),
        ("cam", "has 0 pairs of parentheses"),
        ("(a)(b)", "has 2 pairs of parentheses"),
        ("(cam", "the pattern cannot be read"),
    ],
)
def test_a_wrong_level_or_pattern_is_refused_before_the_folder_is_read(group, reason):
    with pytest.raises(ConfigError, match=reason):
        image_folder(name="own", root="not there", group=group)


@pytest.mark.parametrize(("group", "key"), [(2, "subfolder"), ("(cam[0-9])_", "pattern")])
def test_images_without_the_group_are_named(images, group, key):
    root = images(["all/a/x/1.jpg", "all/a/x/y/cam1_2.jpg", "all/b/x/y/cam2_3.jpg"])
    with pytest.raises(DataError, match=rf"1 image has no {key} .*: a/x/1\.jpg"):
        quiet(image_folder, root=str(root / "all"), group=group)


def test_the_class_folder_of_named_parts_is_found(images):
    paths = [f"all/{part}/a/{index}/{part}.jpg" for part, index in (("train", "x"), ("test", "y"))]
    source = quiet(image_folder, root=str(images(paths) / "all"), group=1)
    assert groups_of(source, source.parts["train"]) == {"x"}
    assert groups_of(source, source.parts["test"]) == {"y"}


def test_without_group_options_the_division_is_unchanged(images):
    rows = synthetic(2)
    root = images(f"all/{label}/{index}_{number}.jpg" for number, (label, index) in enumerate(rows))
    source = quiet(image_folder, root=str(root / "all"))
    assert source.name == "own-test0.2-seed0"
    assert (source.group, source.groupings, source.remarks) == (None, {}, ())


def camera_table(root, places, **options):
    """Read a table of camera-trap images, 4 of each class at each place."""
    with open(root / "places.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "location"])
        for number, location in enumerate(places):
            writer.writerow([f"{number}.jpg", ("ant", "bee")[number // 2 % 2], location])
    return camera_traps(name="own", annotations=str(root / "places.csv"), root=str(root), group="location", **options)


def custom_table(root, places, **options):
    with open(root / "places.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "location"])
        writer.writerows((f"{n}.jpg", ("ant", "bee")[n // 2 % 2], location) for n, location in enumerate(places))
    return image_table(name="own", file=str(root / "places.csv"), group="location", **options)


READERS = pytest.mark.parametrize("read", [camera_table, custom_table])


@READERS
@pytest.mark.parametrize("other", ["B ", " B", "\tB", "B\u00a0"])
def test_groups_that_differ_in_the_space_beside_them_are_one(images, read, other):
    root = images(f"{number}.jpg" for number in range(24))
    source = read(root, [("B", other, "A", "C")[number % 4] for number in range(24)])
    assert set(source.groupings["location"].values) == {"A", "B", "C"}
    assert not groups_of(source, source.parts["train"]) & groups_of(source, source.parts["test"])


@READERS
def test_groups_that_differ_in_unicode_form_are_one(images, read):
    root = images(f"{number}.jpg" for number in range(24))
    source = read(root, [("Br\u00fccke", "Bru\u0308cke", "A", "C")[number % 4] for number in range(24)])
    assert set(source.groupings["location"].values) == {"A", "Br\u00fccke", "C"}


@READERS
@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ("site 0", "Site 0", "differ only in case, width"),
        ("site 0", "site  0", "differ only in case, width"),
        ("B", "B\u200b", "differ only in case, width"),
        ("1", "1.0", "write the same number"),
        ("1", "01", "write the same number"),
    ],
)
def test_groups_that_are_easily_confused_are_warned_of(images, read, one, other, reason):
    root = images(f"{number}.jpg" for number in range(24))
    with pytest.warns(UserWarning, match=f"groups by location whose names {reason}"):
        read(root, [(one, other, "A", "C")[number % 4] for number in range(24)])


@READERS
def test_groups_with_usual_names_are_not_warned_of(images, read, recwarn):
    root = images(f"{number}.jpg" for number in range(24))
    read(root, [("1", "10", "L1", "L2")[number % 4] for number in range(24)])
    assert not [str(one.message) for one in recwarn if "whose names" in str(one.message)]


@READERS
@pytest.mark.parametrize("missing", ["nan", "NA", "None", "null", "N/A", "?", " NaN "])
def test_words_for_missing_groups_are_unknown(images, read, missing):
    root = images(f"{number}.jpg" for number in range(24))
    with pytest.raises(DataError, match="6 images have no location that would keep them together"):
        read(root, [(missing, "A", "B", "C")[number % 4] for number in range(24)])


@READERS
def test_minus_one_is_an_unknown_group_only_beside_numbers_from_zero(images, read):
    root = images(f"{number}.jpg" for number in range(24))
    with pytest.raises(DataError, match="6 images have no location"):
        read(root, [("-1", "0", "1", "2")[number % 4] for number in range(24)])
    assert "-1" in read(root, [("-1", "-2", "0", "1")[number % 4] for number in range(24)]).groupings["location"].values


def test_groups_of_subfolders_and_patterns_follow_the_same_rules(images):
    root = images(f"x/{label}/{('B', 'B ', 'A', 'C')[n % 4]}/{n}.jpg" for label in ("a", "b") for n in range(8))
    assert set(quiet(image_folder, root=str(root / "x"), group=1).groupings["subfolder"].values) == {"A", "B", "C"}
    root = images(f"y/{label}/{('cam', 'Cam', 'eye')[n % 3]}_{n}.jpg" for label in ("a", "b") for n in range(9))
    with pytest.warns(UserWarning, match="groups by pattern whose names differ only in case"):
        image_folder(name="own", root=str(root / "y"), group="^([A-Za-z]+)_")


def test_a_list_of_parts_names_groups_in_any_form(images):
    root = images(f"{number}.jpg" for number in range(24))
    (root / "parts.json").write_text('{"train": [" A", "Bru\u0308cke"], "test": ["C "]}', encoding="utf-8")
    places = [("Br\u00fccke", "A ", "C")[number % 3] for number in range(24)]
    source = camera_table(root, places, split_list=str(root / "parts.json"))
    assert groups_of(source, source.parts["test"]) == {"C"}
    assert not source.left_out
