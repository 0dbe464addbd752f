"""Pixels in memory that the processes of a run share."""

from __future__ import annotations

import multiprocessing
import os
import re
from pathlib import Path

import numpy as np
import pytest

from ltr.data.source import Source
from ltr.errors import DataError
from ltr.runs import pixels
from ltr.runs.processes import distributed
from ltr.runs.processes.process_info import ProcessInfo

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no files without a name")
MIB = 2**20


def source(first_pixel: int = 0) -> Source:
    images = np.random.default_rng(0).integers(0, 256, (1024, 64, 64, 3), dtype=np.uint8)  # 12 MiB
    images[0, 0, 0, 0] = first_pixel
    return Source("noise", images, np.arange(1024) % 4, tuple("abcd"), {"train": range(1024)})


def shared_in(folder: Path, rank: int) -> tuple[Source, list[str]]:
    message: list[str] = []
    with distributed.process_group(ProcessInfo(rank, 2, rank, 2, (folder / "meeting").as_uri()), "cpu"):
        shared = pixels.share_pixels(source(), message.append)
        distributed.all_gather_int(0)
    return shared, message


def _same_and_shared(folder: Path, rank: int) -> None:
    shared, message = shared_in(folder, rank)
    assert np.array_equal(shared.images, source().images)
    assert not message
    assert not shared.images.flags.writeable
    shared.images.max()  # every config is looked at
    (folder / f"{rank}.read").touch()
    while not (folder / f"{1 - rank}.read").is_file():
        pass
    maps = re.search(r"memfd:ltr-pixels.*?Rss: *(\d+) kB.*?Pss: *(\d+) kB", Path("/proc/self/smaps").read_text(), re.S)
    assert maps is not None
    assert (int(maps[1]) // 1024, int(maps[2]) // 1024) == (12, 6)  # MiB: all of it here, half of it ours
    (folder / f"{rank}.done").touch()
    while not (folder / f"{1 - rank}.done").is_file():
        pass


def _without(folder: Path, rank: int) -> None:
    if rank == 0:
        del os.memfd_create
    shared, message = shared_in(folder, rank)
    assert np.array_equal(shared.images, source().images)
    assert message == ["every process keeps a copy of the pixels: this system does not let them share memory"]


def _other_data(folder: Path, rank: int) -> None:
    with distributed.process_group(ProcessInfo(rank, 2, rank, 2, (folder / "meeting").as_uri()), "cpu"):
        if rank == 0:
            distributed.broadcast_from_rank_zero(lambda: source().fingerprint)
        else:
            with pytest.raises(DataError, match="other images or labels than the first one"):
                pixels.share_pixels(source(first_pixel=1), print)


@pytest.mark.parametrize("what", [_same_and_shared, _without, _other_data])
def test_pixels_are_read_once_and_shared_by_two_processes(tmp_path, what):
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=what, args=(tmp_path, rank)) for rank in range(2)]
    for process in running:
        process.start()
    for process in running:
        process.join(30)
    hanging = [process for process in running if process.is_alive()]
    for process in hanging:
        process.kill()
    assert [process.exitcode for process in running] == [0, 0]


def test_one_process_uses_its_source_unchanged():
    original = source()
    assert pixels.share_pixels(original, print) is original
