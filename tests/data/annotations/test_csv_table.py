"""CSV tables of camera-trap images, also as spreadsheets save them."""

import numpy as np
import pytest

import camera_trap_files as made
from ltr.data.annotations.csv_table import read_csv
from ltr.errors import DataError

SHOTS = made.shots(locations=2)


@pytest.mark.parametrize(("separator", "start"), [(",", ""), (";", "\ufeff"), ("\t", "")])
def test_tables_of_spreadsheets_are_read(tmp_path, separator, start):
    file = made.table(tmp_path / "t.csv", SHOTS, separator, start)
    records = read_csv("traps", file, str(tmp_path))
    assert {records.files.relative(i): records.class_names[c] for i, c in zip(records.images, records.classes)} == {
        shot.path: shot.label for shot in SHOTS
    }
    assert set(records.groupings) == {"location", "seq_id", "date"}


def test_an_image_may_have_several_rows_and_boxes(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("path,label,x,y,width,height\na.jpg,deer,0.1,0.2,0.3,0.4\na.jpg,fox,,,,\n")
    records = read_csv("traps", file, str(tmp_path))
    assert len(records) == 1
    assert records.images.tolist() == [0, 0]
    np.testing.assert_allclose(records.boxes[0], [0.1, 0.2, 0.3, 0.4])
    assert np.isnan(records.boxes[1]).all()


def test_names_that_look_like_formulas_survive_a_round_trip(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("path,label,location\na.jpg,'=deer,'@home\n")
    records = read_csv("traps", file, str(tmp_path))
    assert records.class_names == ("=deer",)
    assert records.groupings["location"].values == ("@home",)


def test_a_label_that_is_not_utf_8_names_its_line(tmp_path):
    file = tmp_path / "t.csv"
    file.write_bytes(b"path,label\na.jpg,deer\nb.jpg,h\xe9ron\n")
    with pytest.raises(DataError, match=r"t.csv, line 3: the label is not UTF-8"):
        read_csv("traps", file, str(tmp_path))


def test_rows_without_a_label_are_left_out(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("path,label\na.jpg,deer\nb.jpg,\n")
    assert read_csv("traps", file, str(tmp_path)).left_out["no label"].tolist() == [1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,species\na.jpg,deer\n", "no column label"),
        ("path,label\n,deer\n", "line 2: path is blank"),
        ("path,label\n", "has no rows"),
        ("path,label,location\na.jpg,deer,A\na.jpg,fox,B\n", "line 3: a.jpg has another location"),
        ("path,label,x,y,width,height\na.jpg,deer,1,2,3,four\n", "line 2: the box [1, 2, 3, four]"),
        ("path,label\na.jpg,deer,more\n", "line 2 has 3 cells"),
    ],
)
def test_a_message_names_file_and_line(tmp_path, text, words):
    file = tmp_path / "t.csv"
    file.write_text(text)
    with pytest.raises(DataError) as refused:
        read_csv("traps", file, str(tmp_path))
    assert words in str(refused.value)
    assert str(file) in str(refused.value)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ("0.1,0.1,0.2,", "line 2: the box has no height; a box needs numbers in x, y, width, height"),
        (",,0.2,0.2", "line 2: the box has no x and no y"),
        ("0.1,0.1,wide,0.2", "a value that is not a number"),
        ("nan,0.1,0.2,0.2", "a value that is not a number"),
    ],
)
@pytest.mark.parametrize("label", ["deer", ""])
def test_an_invalid_box_names_its_line(tmp_path, cells, words, label):
    file = tmp_path / "t.csv"
    file.write_text(f"path,label,x,y,width,height\na.jpg,{label},{cells}\n")
    with pytest.raises(DataError, match=words):
        read_csv("traps", file, str(tmp_path))


def test_image_sizes_are_not_read_as_boxes(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("path,label,width,height\na.jpg,deer,640,480\n")
    assert np.isnan(read_csv("traps", file, str(tmp_path)).boxes).all()


@pytest.mark.parametrize("column", ["split", "datetime", "date", "location", "seq_id", "deployment"])
@pytest.mark.parametrize("spelling", [str.upper, str.title])
def test_a_column_in_other_capitals_is_refused(tmp_path, column, spelling):
    file = tmp_path / "t.csv"
    file.write_text(f"path,label,{spelling(column)}\na.jpg,deer,train\n")
    with pytest.raises(DataError, match=f"the column {spelling(column)} is not read. Rename it to {column}, or remove"):
        read_csv("traps", file, str(tmp_path))


@pytest.mark.parametrize("head", ["X,Y,Width,Height", "x,y,Width,Height", "X,y,width,height"])
def test_a_box_in_other_capitals_is_refused(tmp_path, head):
    file = tmp_path / "t.csv"
    file.write_text(f"path,label,{head}\na.jpg,deer,.1,.1,.5,.5\n")
    with pytest.raises(DataError, match=r"is not read\. Rename it to"):
        read_csv("traps", file, str(tmp_path))


@pytest.mark.parametrize("head", ["X,Y", "Width,Height", "datetime,Date"])
def test_coordinates_of_maps_and_sizes_of_images_may_have_capitals(tmp_path, head):
    file = tmp_path / "t.csv"
    file.write_text(f"path,label,{head}\na.jpg,deer,640000,480000\n")
    assert np.isnan(read_csv("traps", file, str(tmp_path)).boxes).all()


def test_a_column_of_groups_may_be_called_like_another_one(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("path,label,Location\na.jpg,deer,A\n")
    assert read_csv("traps", file, str(tmp_path), ("Location",)).groupings["Location"].values == ("A",)


def test_the_first_time_that_cannot_be_read_is_kept(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("path,label,datetime\na.jpg,deer,\nb.jpg,deer,1/7/2020 10:00\nc.jpg,deer,2/7/2020\n")
    records = read_csv("traps", file, str(tmp_path))
    assert records.unreadable_time == "1/7/2020 10:00"
    assert "date" not in records.groupings
