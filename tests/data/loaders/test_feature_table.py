"""The table of features: looking up rows, and interruptions, which lose one block at most."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from ltr.data.loaders import feature_table
from ltr.data.loaders.feature_table import FeatureTable, fill
from ltr.errors import DataError

IMAGES, WIDTH = 100, 3
FEATURES = np.random.default_rng(0).normal(size=(IMAGES, WIDTH)).astype(np.float32)


def batches(indices):
    for first in range(0, len(indices), 4):
        yield FEATURES[indices[first : first + 4]]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of eight rows, and shards of two blocks."""
    monkeypatch.setattr(feature_table, "BLOCK_BYTES", 8 * 4 * WIDTH)
    monkeypatch.setattr(feature_table, "SHARD_ROWS", 16)


def opened(folder, lines=None):
    return FeatureTable(folder, IMAGES, WIDTH, (lambda text: None) if lines is None else lines.append)


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.f32"))}


def test_features_are_looked_up_by_source_index(tmp_path):
    indices = np.array([50, 3, 99, 3, 7])
    table = opened(tmp_path)
    assert fill(table, indices, batches, 4) == 4
    for one in (table, opened(tmp_path)):
        assert len(one) == 4
        assert np.array_equal(one.take(indices), FEATURES[indices])


def test_only_missing_rows_of_a_table_are_added(tmp_path):
    table = opened(tmp_path)
    fill(table, np.arange(0, 60, 2), batches, 4)
    assert table.missing(np.arange(10)).tolist() == [1, 3, 5, 7, 9]
    assert fill(table, np.arange(60), batches, 4) == 30
    assert fill(table, np.arange(60), batches, 4) == 0
    assert len(list(tmp_path.glob("*.f32"))) > 2
    assert np.array_equal(opened(tmp_path).take(np.arange(59, -1, -1)), FEATURES[59::-1])


def test_features_that_are_not_stored_are_an_error(tmp_path):
    table = opened(tmp_path)
    fill(table, np.arange(5), batches, 4)
    with pytest.raises(DataError, match="no features of image 5 are stored"):
        table.take(np.array([1, 5]))


def test_an_extraction_that_is_killed_resumes_and_gives_the_same_bytes(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    fill(opened(whole), np.arange(3, 90), batches, 4)

    def dying(indices):
        if indices[0] > 40:
            raise KeyboardInterrupt
        return batches(indices)

    with pytest.raises(KeyboardInterrupt):
        fill(opened(stopped), np.arange(3, 90), dying, 4)
    assert 0 < len(opened(stopped)) < 87
    fill(opened(stopped), np.arange(3, 90), batches, 4)
    assert content(whole) == content(stopped)


def test_rows_without_a_record_are_written_again(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        fill(opened(folder), np.arange(20), batches, 4)
    (stopped / "block-000002.npz").unlink()  # a kill between the rows and their record
    table = opened(stopped)
    assert table.missing(np.arange(20)).tolist() == [16, 17, 18, 19]
    fill(table, np.arange(20), batches, 4)
    assert content(whole) == content(stopped)


def test_a_full_disk_loses_only_the_current_block(tmp_path, monkeypatch):
    def full(file, data, offset):
        raise OSError(errno.ENOSPC, "No space left on device")

    table = opened(tmp_path)
    fill(table, np.arange(8), batches, 4)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left"):
            fill(table, np.arange(30), batches, 4)
    again = opened(tmp_path)
    assert len(again) == 8
    fill(again, np.arange(30), batches, 4)
    assert np.array_equal(again.take(np.arange(30)), FEATURES[:30])


def test_a_damaged_block_is_computed_again(tmp_path):
    fill(opened(tmp_path), np.arange(40), batches, 4)
    with open(tmp_path / "features-00001.f32", "rb+") as file:
        file.seek(5)
        file.write(b"\xff\xff")
    lines: list[str] = []
    table = opened(tmp_path, lines)
    assert "the block is damaged" in lines[0]
    assert table.missing(np.arange(40)).tolist() == list(range(16, 40))
    fill(table, np.arange(40), batches, 4)
    assert np.array_equal(opened(tmp_path).take(np.arange(40)), FEATURES[:40])


@pytest.mark.parametrize("damage", [b"", b"no zip", None], ids=["empty", "text", "cut short"])
def test_a_damaged_record_counts_as_missing(tmp_path, damage):
    fill(opened(tmp_path), np.arange(20), batches, 4)
    path = tmp_path / "block-000001.npz"
    path.write_bytes(path.read_bytes()[:100] if damage is None else damage)
    assert len(opened(tmp_path)) == 8


def aged(folder):
    """Set the shards' modification times back, past the time in which a table does not trust them."""
    for path in folder.glob("*.f32"):
        os.utime(path, (1e9, 1e9))


def test_a_process_hashes_a_table_once(tmp_path, monkeypatch):
    fill(opened(tmp_path), np.arange(40), batches, 4)
    aged(tmp_path)
    opened(tmp_path)
    monkeypatch.setattr(feature_table, "_digest", None)  # to call it is an error, which damages the block
    lines: list[str] = []
    assert len(opened(tmp_path, lines)) == 40
    assert not lines


def test_a_shard_that_was_modified_is_hashed_again(tmp_path):
    fill(opened(tmp_path), np.arange(40), batches, 4)
    aged(tmp_path)
    opened(tmp_path)
    with open(tmp_path / "features-00001.f32", "rb+") as file:
        file.write(b"\xff\xff")
    assert len(opened(tmp_path)) == 16


def test_a_shard_that_was_just_written_is_hashed_at_every_opening(tmp_path):
    fill(opened(tmp_path), np.arange(8), batches, 4)
    opened(tmp_path)
    before = os.stat(tmp_path / "features-00000.f32")
    with open(tmp_path / "features-00000.f32", "rb+") as file:
        file.write(b"\xff\xff")
    os.utime(tmp_path / "features-00000.f32", ns=(before.st_atime_ns, before.st_mtime_ns))  # as on a coarse clock
    assert len(opened(tmp_path)) == 0


def test_a_record_with_other_indices_is_refused_without_hashing(tmp_path):
    fill(opened(tmp_path), np.arange(8), batches, 4)
    aged(tmp_path)
    opened(tmp_path)
    with np.load(tmp_path / "block-000000.npz") as record:
        arrays = dict(record)
    np.savez(tmp_path / "block-000000.npz", **{**arrays, "indices": arrays["indices"][::-1]})
    assert len(opened(tmp_path)) == 0
