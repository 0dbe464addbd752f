"""Several tables of labels, read together: later labels replace earlier ones."""

from __future__ import annotations

import os

import pyarrow
import pyarrow.parquet
import pytest

import trees
from ltr.data.sources.table import image_table
from ltr.errors import ConfigError, DataError
from ltr.escaping import csv_cell


def read(folder, *tables, **options):
    file = options.pop("file", str(folder / "none.csv"))
    return image_table(name="own", file=file, labels=[str(folder / table) for table in tables], **options)


def labels_of(source, folder):
    """Label and part of each image, by its path from ``folder``."""
    part_of = {row: part for part, rows in source.parts.items() for row in rows}
    return {
        os.path.relpath(source.images.path(row), folder): (source.class_names[source.labels[row]], part_of[row])
        for row in range(len(source.labels))
    }


@pytest.fixture
def folder(tmp_path):
    for number in range(8):
        trees.put(tmp_path / f"{number}.jpg", number)
    trees.lines(
        tmp_path / "old.csv",
        [
            "path,label,split",
            "0.jpg,dog,train",
            "1.jpg,cat,train",
            "2.jpg,dog,test",
            "3.jpg,cat,test",
            "6.jpg,dog,train",
        ],
    )
    return tmp_path


def test_a_later_label_replaces_an_earlier_one_without_changing_the_part(folder):
    trees.lines(folder / "new.csv", ["path,label", "./2.jpg,cat", "1.jpg,cat", "5.jpg,dog", "4.jpg,wolf"])
    with pytest.warns(UserWarning, match="own") as notices:
        source = read(folder, "old.csv", "new.csv")
    assert labels_of(source, folder) == {
        "0.jpg": ("dog", "train"),
        "1.jpg": ("cat", "train"),
        "2.jpg": ("cat", "test"),
        "3.jpg": ("cat", "test"),
        "4.jpg": ("wolf", "train"),
        "5.jpg": ("dog", "train"),
        "6.jpg": ("dog", "train"),
    }
    texts = [str(notice.message) for notice in notices]
    assert any(
        "new.csv relabels 2 images" in text and "1 label changes: ./2.jpg (dog -> cat)" in text for text in texts
    )
    assert any("new.csv has no column split, so its 2 further images are for training" in text for text in texts)


def test_the_last_of_three_tables_takes_precedence(folder):
    trees.lines(folder / "b.csv", ["path,label,split", "0.jpg,cat,test"])
    trees.lines(folder / "c.csv", ["path,label,split", "0.jpg,fox,train"])
    with pytest.warns(UserWarning, match="c.csv relabels 1 image"):
        source = read(folder, "old.csv", "b.csv", "c.csv")
    assert labels_of(source, folder)["0.jpg"] == ("fox", "train")


def test_a_list_of_one_table_equals_the_table(folder):
    listed = read(folder, "old.csv")
    assert listed.fingerprint == image_table(name="own", file=str(folder / "old.csv")).fingerprint


def test_an_empty_further_table_does_not_change_the_data(folder):
    trees.lines(folder / "same.csv", ["path,label", "0.jpg,dog"])
    with pytest.warns(UserWarning, match="No label changes"):
        assert read(folder, "old.csv", "same.csv").fingerprint == read(folder, "old.csv").fingerprint


def test_without_splits_the_held_out_images_stay_the_same(tmp_path):
    trees.table(tmp_path, each=10)
    alone = image_table(name="own", file=str(tmp_path / "images.csv"))
    trees.put(tmp_path / "pool" / "new.jpg", 3)
    trees.lines(tmp_path / "pool" / "labels.csv", ["path,label", f"new.jpg,{alone.class_names[0]}"])
    both = read(tmp_path, "images.csv", "pool/labels.csv")
    before, after = labels_of(alone, tmp_path), labels_of(both, tmp_path)
    assert set(after) == {*before, "pool/new.jpg"}
    assert sum(after[path] != before[path] for path in before) <= 1  # a share of one class may grow by one image


def test_relative_paths_refer_to_the_folder_of_their_table(folder):
    trees.put(folder / "pool" / "0.jpg", 1)
    trees.lines(folder / "pool" / "labels.csv", ["path,label", "0.jpg,cat", "../1.jpg,dog"])
    with pytest.raises(
        DataError, match=r"appears twice:\n.*1\.jpg \(line 3 of old\.csv\) and .*\(line 3 of labels\.csv"
    ):
        read(folder, "old.csv", "pool/labels.csv")
    trees.lines(folder / "pool" / "labels.csv", ["path,label", "0.jpg,cat"])
    source = read(folder, "old.csv", "pool/labels.csv")
    assert labels_of(source, folder)["pool/0.jpg"] == ("cat", "train")


def test_relative_paths_refer_to_the_root_if_it_is_set(folder):
    trees.lines(folder / "downloads" / "labels.csv", ["path,label", "0.jpg,cat"])
    with pytest.warns(UserWarning, match="1 label changes"):
        source = read(folder, "old.csv", "downloads/labels.csv", root=str(folder))
    assert labels_of(source, folder)["0.jpg"] == ("cat", "train")


def test_the_apostrophe_that_protects_formulas_is_removed(tmp_path):
    for name in ("=1+1.jpg", "-x.jpg", "plain.jpg"):
        trees.put(tmp_path / name, 0)
    rows = [("=1+1.jpg", "@wolf"), ("-x.jpg", "'quoted"), ("plain.jpg", "-1")]
    trees.lines(tmp_path / "a.csv", ["path,label", *(f"{csv_cell(path)},{csv_cell(label)}" for path, label in rows)])
    assert "'=1+1.jpg,'@wolf" in (tmp_path / "a.csv").read_text()
    trees.lines(tmp_path / "c.csv", ["path,label", "plain.jpg,@wolf"])
    with pytest.warns(UserWarning, match="-1 -> @wolf"):
        source = read(tmp_path, "a.csv", "c.csv")
    assert {path: label for path, (label, _) in labels_of(source, tmp_path).items()} == {
        "=1+1.jpg": "@wolf",
        "-x.jpg": "'quoted",
        "plain.jpg": "@wolf",
    }


def test_apostrophes_of_parquet_cells_are_unchanged(folder):
    columns = {"path": ["4.jpg", "5.jpg"], "label": ["'=a", "'=a"]}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "new.parquet")
    with pytest.warns(UserWarning, match="no column split"):
        assert "'=a" in read(folder, "old.csv", "new.parquet").class_names


def test_a_table_that_a_spreadsheet_saved_is_read(folder):
    text = '\ufeffpath;label;note;\r\n"4.jpg";"dog";"said ""yes""; twice";\r\n;;;\r\n\r\n5.jpg;cat;;\r\n'
    (folder / "new.csv").write_bytes(text.replace(";;;\r\n", "", 1).encode())
    with pytest.warns(UserWarning, match="no column split"):
        assert labels_of(read(folder, "old.csv", "new.csv"), folder)["5.jpg"] == ("cat", "train")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\n4.jpg,dog\n5.jpg,\n", r"the column label of .*new\.csv is empty in line 3"),
        (
            "path,label\n4.jpg,dog\n4.jpg,cat\n",
            r"appears twice:\n  4\.jpg \(line 2 of new\.csv\) and 4\.jpg \(line 3 of",
        ),
        ("path,label\n4.jpg,dog\n1.jpg,cat\n./1.jpg,dog\n", r"appears twice:\n.*\(line 3 of new\.csv\) and .*\(line 4"),
        ("path,label\n9.jpg,dog\n", r"9\.jpg \(line 2 of new\.csv\)"),
        ("path,label,split\n4.jpg,dog,train\n5.jpg,dog,Test\n", r"line 3 of new\.csv: the column split .*'Test'"),
        ("path,label,split\n4.jpg,dog,train\n5.jpg,dgo,test\n", r"training image: dgo.*first is in line 3 of new\.csv"),
        ("path;klass\n4.jpg;dog\n", r"new\.csv has no column"),
    ],
)
@pytest.mark.filterwarnings("ignore:own")
def test_mistakes_name_the_file_and_the_row(folder, text, words):
    (folder / "new.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        read(folder, "old.csv", "new.csv")


def test_messages_name_the_folders_of_tables_of_the_same_name(folder):
    for name in ("a", "b"):
        trees.lines(folder / name / "labels.csv", ["path,label", f"{name}.jpg,dog"])
    with pytest.raises(DataError, match=r"line 2 of /.*/b/labels\.csv"):
        read(folder, "a/labels.csv", "b/labels.csv", root=str(folder))


@pytest.mark.parametrize("labels", ["new.csv", [], [3], ["old.csv", "./old.csv"]])
def test_an_empty_list_or_one_with_repetitions_is_refused(folder, monkeypatch, labels):
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match=r"dataset\.labels"):
        image_table(name="own", file="none.csv", labels=labels)


def test_a_missing_table_is_named(folder):
    with pytest.raises(DataError, match=r"there is no file .*gone\.csv\. dataset\.labels must be"):
        read(folder, "old.csv", "gone.csv")


def test_a_file_that_is_not_among_the_labels_is_pointed_out(folder):
    trees.lines(folder / "images.csv", ["path,label", "4.jpg,dog"])
    with pytest.warns(UserWarning, match=r"images\.csv is not read"):
        read(folder, "old.csv", file=str(folder / "images.csv"))
