"""Pixels that the processes of a run hold in common: one copy on each machine, however many processes read it."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ltr.data.source import ImageFiles, Source
from ltr.errors import DataError
from ltr.runs import distributed


def share_pixels(source: Source, print_line: Callable[[str], None]) -> Source:
    """Return the source with its pixels in memory that all processes of this run on this machine map.

    The lowest rank of a machine copies its pixels into a file that has no name and ends with its last reader, however
    that ends; the others map it and drop theirs. All processes have to call this. Image files are no pixels: they are
    read when they are needed.

    Args:
        print_line: prints a message where each process keeps its own pixels.

    Raises:
        DataError: the processes have read different data.
    """
    if not distributed.is_distributed() or isinstance(source.images, ImageFiles):
        return source
    if distributed.broadcast_from_rank_zero(lambda: source.fingerprint) != source.fingerprint:
        raise DataError(
            f"source '{source.name}': this process read other images or labels than the first one. Every machine of a "
            "run needs the same files"
        )
    machines = distributed.all_gather_int(_machine())
    giver = machines.index(_machine())
    gives = distributed.rank() == giver and machines.count(_machine()) > 1
    file = _filled(source.images) if gives else -1
    pids, files = distributed.all_gather_int(os.getpid()), distributed.all_gather_int(file)  # the pixels are there now
    images = source.images
    if files[giver] >= 0:
        with contextlib.suppress(OSError):
            images = _mapped(f"/proc/{pids[giver]}/fd/{files[giver]}", source.images)
    is_private = images is source.images and machines.count(_machine()) > 1
    if any(distributed.all_gather_int(int(is_private))):  # the open file is no longer needed
        print_line("every process keeps the pixels for itself: this system does not let them share memory")
    if file >= 0:
        os.close(file)
    return replace(source, images=images)


def _machine() -> int:
    """Return a number that processes share if they can open each other's files under /proc."""
    named = [os.uname().nodename]
    with contextlib.suppress(OSError):
        named = [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")]
    return int.from_bytes(hashlib.sha256(repr(named).encode()).digest()[:7], "big")


def _filled(images: np.ndarray) -> int:
    """Return the descriptor of a file in memory with these pixels, or -1 where the system has none."""
    try:
        file = os.memfd_create("ltr-pixels")
        os.posix_fallocate(file, 0, images.nbytes)
    except (AttributeError, OSError):
        return -1
    with mmap.mmap(file, images.nbytes) as memory, memoryview(memory) as view:
        np.copyto(np.frombuffer(view, dtype=np.uint8).reshape(images.shape), images)
    return file


def _mapped(path: str, like: np.ndarray) -> np.ndarray:
    """Return the pixels in a file, read-only."""
    with open(path, "rb") as file:
        memory = mmap.mmap(file.fileno(), like.nbytes, prot=mmap.PROT_READ)
    return np.frombuffer(memory, dtype=np.uint8).reshape(like.shape)
