"""Files are whole or absent."""

import json
import math
import os

import pytest

from ltr.files import link_or_copy, write_csv, write_json, write_text, written_atomically


def test_a_failing_writer_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def interrupted():
        with written_atomically(path) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        interrupted()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_numbers_that_are_not_finite_are_written_as_null(tmp_path):
    write_json(tmp_path / "a.json", {"few": math.nan, "rows": [{"x": math.inf}, {"x": -math.inf}, 1.5]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"few": None, "rows": [{"x": None}, {"x": None}, 1.5]}


def test_csv_starts_with_the_first_columns_and_has_blanks_for_missing_values(tmp_path):
    write_csv(tmp_path / "m.csv", [{"b": 1}, {"a": 2, "c": 3}], first=["a"])
    assert (tmp_path / "m.csv").read_text().splitlines() == ["a,b,c", ",1,", "2,,3"]


def test_a_link_replaces_an_existing_file_and_outlives_its_source(tmp_path):
    source, destination = tmp_path / "s", tmp_path / "run" / "d"
    source.write_text("new")
    destination.parent.mkdir()
    destination.write_text("old")
    link_or_copy(source, destination)
    source.unlink()
    assert destination.read_text() == "new"


def test_without_hard_links_a_copy_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    (tmp_path / "s").write_text("x")
    link_or_copy(tmp_path / "s", tmp_path / "d")
    assert (tmp_path / "d").read_text() == "x"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the names of open files are read from /proc")
def test_a_file_is_synced_before_it_is_renamed_and_its_folder_afterwards(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    synced = []

    def fsync(descriptor: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(path, "new")
    assert synced == [(str(tmp_path / f".a.txt.{os.getpid()}.part"), False), (str(tmp_path), True)]
