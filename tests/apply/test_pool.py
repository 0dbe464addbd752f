"""Pools of images: folders, tables, and paths that lead outside."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ltr.apply.pool import image_pool, table_column
from ltr.apply.tables import FORMATS, open_table
from ltr.errors import ConfigError, DataError


def names(files) -> list[str]:
    return [files.relative(index) for index in range(len(files))]


def test_a_folder_gives_all_images_below_it_in_order(pool):
    (pool / ".hidden").mkdir()
    (pool / ".hidden" / "x.png").touch()
    listed = names(image_pool(pool))
    assert len(listed) == 13
    assert listed == sorted(listed)
    assert "notes.txt" not in listed
    assert not any("hidden" in name for name in listed)


def test_a_folder_without_an_image_is_named(tmp_path):
    with pytest.raises(DataError, match="has no image"):
        image_pool(tmp_path)


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(DataError, match=r"there is no such file\. Give a folder of images"):
        image_pool(tmp_path / "nothing")


def test_a_single_image_is_a_pool_of_one(pool):
    image = next(path for path in sorted(pool.rglob("*.png")) if path.stat().st_size)
    assert names(image_pool(image)) == [image.name]


def test_a_file_that_is_not_a_table_is_refused(pool):
    with pytest.raises(DataError, match="the extension of neither an image nor a table"):
        image_pool(pool / "notes.txt")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_gives_its_rows_in_order(pool, suffix):
    wanted = ["part 1/03.png", "part 0/00.png", "nowhere.png"]
    table = pool / f"images{suffix}"
    if suffix == ".csv":
        table.write_text("label,path\n" + "".join(f"x,{path}\n" for path in wanted))
    else:
        pq.write_table(pa.table({"path": wanted, "label": ["x"] * 3}), table)
    files = image_pool(table)
    assert names(files) == wanted
    assert files.path(0) == str(pool / "part 1" / "03.png")


def test_a_table_of_predictions_is_a_pool_of_the_same_images(tmp_path):
    paths = ["-dash/0.png", "=1+1.png", "plain.png", "'quoted.png"]
    for suffix in FORMATS:
        with open_table(tmp_path / f"predictions{suffix}") as writer:
            writer.write({"path": paths, "class": ["@wolf"] * len(paths)})
        assert names(image_pool(tmp_path / f"predictions{suffix}")) == paths
    assert "'-dash/0.png" in (tmp_path / "predictions.csv").read_text()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("file\na.png\n", "has no column path"),
        ("path\n", "no rows"),
        ("path,label\n,x\n", "empty in line 2"),
        ("", "it is empty"),
    ],
)
def test_an_unusable_table_is_refused_with_the_reason(tmp_path, text, reason):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=reason):
        table_column(tmp_path / "t.csv", "path")


def test_a_damaged_parquet_file_is_named(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="cannot be read as a table"):
        table_column(tmp_path / "t.parquet", "path")


@pytest.mark.parametrize("path", ["../secret.png", "sub/../../secret.png", "{root}/secret.png", "link.png"])
def test_paths_of_a_table_stay_inside_its_folder(tmp_path, path):
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "secret.png").touch()
    os.symlink(tmp_path / "secret.png", folder / "link.png")
    table = folder / "t.csv"
    table.write_text(f"path\n{path.format(root=tmp_path)}\n")
    with pytest.raises(DataError, match="paths lead outside"):
        image_pool(table)
    assert len(image_pool(table, [str(tmp_path)])) == 1


def test_links_out_of_a_folder_are_refused_and_a_named_root_allows_them(pool, tmp_path, draw):
    draw(tmp_path / "other" / "x.png", 1)
    os.symlink(tmp_path / "other", pool / "link")
    with pytest.raises(DataError, match="--root"):
        image_pool(pool)
    assert "link/x.png" in names(image_pool(pool, [str(tmp_path / "other")]))


def test_a_link_to_a_parent_folder_is_followed_once(pool):
    os.symlink(pool, pool / "part 0" / "again")
    assert len(image_pool(pool)) == 13


def test_file_names_may_contain_any_bytes(tmp_path, draw):
    name = os.fsdecode(b"caf\xe9 \n <b>.png")
    draw(tmp_path / name, 0)
    assert names(image_pool(tmp_path)) == [name]


def test_link_loops_and_pipes_are_reported_and_do_not_stop_the_listing(pool):
    (pool / "loop.jpg").symlink_to("loop.jpg")
    (pool / "part 0" / "folder").symlink_to("folder")
    os.mkfifo(pool / "pipe.jpg")
    listed = names(image_pool(pool))
    assert len(listed) == 15
    assert {"loop.jpg", "pipe.jpg"} <= set(listed)


def test_a_table_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match=r"there is no such file\. Give a folder of images"):
        image_pool(tmp_path / "pipe.csv")


def test_a_missing_second_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"--root .*nowhere: there is no such folder"):
        image_pool(tmp_path, [str(tmp_path / "nowhere")])
