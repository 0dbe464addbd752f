"""The checks that sources of image files share."""

import os

import numpy as np
import pytest

from ltr.data.source import ImageFiles
from ltr.data.sources import checks
from ltr.data.sources.checks import (
    check_image_files,
    read_mapping,
    read_table,
    refuse_duplicates,
    require,
)
from ltr.errors import DataError
from ltr.names import list_first


def files_below(root, paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return ImageFiles.from_paths(root, paths)


def check(files, **options):
    return check_image_files("tiny", files, named_in="list.txt", **options)


def test_ten_missing_of_ten_thousand_are_counted_and_shown_at_once(tmp_path):
    gone = [7 + 1000 * n for n in range(10)]
    for folder in range(20):
        (tmp_path / str(folder)).mkdir()
    files = ImageFiles.from_paths(tmp_path, [f"{n % 20}/{n}.jpg" for n in range(10_000)])
    for n in sorted(set(range(10_000)) - set(gone)):
        os.close(os.open(files.path(n), os.O_CREAT | os.O_WRONLY))
    with pytest.raises(DataError) as refused:
        check(files)
    message = str(refused.value)
    assert "10 of 10,000 image files named in list.txt are missing" in message
    assert all(files.path(n) in message for n in gone)


def test_of_many_missing_the_first_ten_are_shown(tmp_path):
    files = files_below(tmp_path, ["there.jpg"])
    paths = ["there.jpg", *(f"{n:02d}.jpg" for n in range(12))]
    with pytest.raises(DataError, match="12 of 13 image files") as refused:
        check(ImageFiles.from_paths(files.root, paths))
    assert "09.jpg" in str(refused.value)
    assert "10.jpg" not in str(refused.value)


def test_a_folder_is_listed_once_and_no_file_is_requested(tmp_path, monkeypatch):
    files = files_below(tmp_path, [f"{n % 3}/{n}.jpg" for n in range(30)])
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(checks.os, "scandir", lambda path: listed.append(path) or scandir(path))
    monkeypatch.setattr(checks.os, "stat", None)
    check(files)
    assert sorted(map(os.fsdecode, listed)) == [os.path.join(tmp_path, f"{n}/") for n in range(3)]


def test_order_and_paths_are_unchanged(tmp_path):
    paths = ["b/1.jpg", "a/2.jpg", "3.jpg", "b/größe 4.jpg"]
    checked = check(files_below(tmp_path, paths))
    assert [os.path.relpath(checked.path(n), tmp_path) for n in range(4)] == paths
    assert checked.sizes is None


def test_file_sizes_are_returned_if_requested(tmp_path):
    paths = ["b/1.jpg", "a/22.jpg", "333.jpg"]
    assert check(files_below(tmp_path, paths), sizes=True).sizes.tolist() == [7, 8, 7]


def test_a_folder_instead_of_a_file_counts_as_missing(tmp_path):
    (tmp_path / "a.jpg").mkdir()
    with pytest.raises(DataError, match="1 of 1 image files"):
        check(ImageFiles.from_paths(tmp_path, ["a.jpg"]))


@pytest.fixture
def outside(tmp_path):
    """A root, and a folder with an image next to it."""
    (tmp_path / "root").mkdir()
    files_below(tmp_path / "other", ["1.jpg"])
    return tmp_path / "root", tmp_path / "other"


def path_up(root, other):
    return "../other/1.jpg"


def path_absolute(root, other):
    return str(other / "1.jpg")


def file_link(root, other):
    (root / "1.jpg").symlink_to(other / "1.jpg")
    return "1.jpg"


def folder_link(root, other):
    (root / "linked").symlink_to(other)
    return "linked/1.jpg"


WAYS_OUT = pytest.mark.parametrize("way", [path_up, path_absolute, file_link, folder_link])


@WAYS_OUT
def test_a_path_or_link_out_of_the_root_is_refused(outside, way):
    root, other = outside
    with pytest.raises(DataError, match=r"1 of 1 image files .* lie outside") as refused:
        check(ImageFiles.from_paths(root, [way(root, other)]))
    assert "dataset.roots" in str(refused.value)


@WAYS_OUT
def test_a_folder_in_roots_is_allowed(outside, way):
    root, other = outside
    assert len(check(ImageFiles.from_paths(root, [way(root, other)]), roots=[str(other)])) == 1


@pytest.mark.parametrize("link", [False, True])
def test_absolute_paths_and_links_inside_the_root_are_accepted(tmp_path, link):
    files_below(tmp_path, ["a/1.jpg"])
    (tmp_path / "b").symlink_to(tmp_path / "a")
    path = "b/1.jpg" if link else str(tmp_path / "a" / "1.jpg")
    assert len(check(ImageFiles.from_paths(tmp_path, [path]))) == 1


def test_a_root_that_is_a_link_is_accepted(tmp_path):
    files_below(tmp_path / "real", ["a/1.jpg"])
    (tmp_path / "root").symlink_to(tmp_path / "real")
    assert len(check(ImageFiles.from_paths(tmp_path / "root", ["a/1.jpg"]))) == 1


def test_a_sibling_folder_with_the_same_prefix_is_outside(tmp_path):
    files_below(tmp_path / "root2", ["1.jpg"])
    (tmp_path / "root").mkdir()
    with pytest.raises(DataError, match="lie outside"):
        check(ImageFiles.from_paths(tmp_path / "root", ["../root2/1.jpg"]))


def test_a_zero_byte_in_a_path_is_refused(tmp_path):
    with pytest.raises(DataError, match="lie outside"):
        check(ImageFiles.from_paths(tmp_path, ["a\0b/1.jpg"]))


def test_an_empty_list_of_files_is_accepted(tmp_path):
    assert len(check(ImageFiles.from_paths(tmp_path, []))) == 0


def test_a_missing_file_is_reported_with_its_path_and_advice(tmp_path):
    (tmp_path / "here.txt").touch()
    with pytest.raises(DataError) as refused:
        require("tiny", tmp_path, ["here.txt", "gone.txt"], "unpack it there")
    for words in ("looked for here.txt, gone.txt", str(tmp_path), "lacks gone.txt", "unpack it there", "LTR_DATA"):
        assert words in str(refused.value)


def test_a_short_line_is_named(tmp_path):
    (tmp_path / "x.txt").write_text("1 a\n2\n")
    with pytest.raises(DataError, match=r"line 2 of .*x\.txt has 1 columns"):
        read_table("tiny", tmp_path / "x.txt", ("id", "name"))


def test_a_repeated_id_is_named(tmp_path):
    (tmp_path / "x.txt").write_text("1 a\n2 b\n1 c\n")
    with pytest.raises(DataError, match=r"id of .*x\.txt appears twice: 1\."):
        read_mapping("tiny", tmp_path / "x.txt", ("id", "name"))


def test_binary_content_instead_of_text_is_reported(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DataError, match="is not a text file"):
        read_table("tiny", tmp_path / "x.txt", ("id", "name"))


def test_each_duplicate_is_shown_once():
    with pytest.raises(DataError, match=r"appears twice: a, b\."):
        refuse_duplicates("tiny", "a path", ["a", "b", "a", "b", "a", "c"])


def test_a_long_list_is_truncated_after_ten():
    assert list_first(range(10)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert list_first(np.arange(11).tolist()) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... (11 in all)"
