"""Shared memory for the pixels of a run: its processes on one machine share one copy."""

from __future__ import annotations

import contextlib
import hashlib
import math
import mmap
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ltr.data.source import ImageFiles, Source
from ltr.errors import DataError
from ltr.runs.processes import distributed


def share_pixels(source: Source, print_line: Callable[[str], None]) -> Source:
    """Return the source with its pixels in memory that all processes of this run on this machine share.

    The lowest rank of a machine copies its pixels into an anonymous file, which exists as long as a process reads it;
    the other ranks map the file and free their copy. All processes must call this function. A source of image files is
    returned unchanged.

    Args:
        source: the source of this process.
        print_line: prints a message if memory cannot be shared.

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
    owner = machines.index(_machine())
    is_owner = distributed.rank() == owner and machines.count(_machine()) > 1
    file = copy_to_memory_file(source.images) if is_owner else -1
    # the second collective returns once the owner's file holds the pixels
    pids, files = distributed.all_gather_int(os.getpid()), distributed.all_gather_int(file)
    images = source.images
    if files[owner] >= 0:
        with contextlib.suppress(OSError):
            images = map_file(f"/proc/{pids[owner]}/fd/{files[owner]}", source.images.shape)
    is_private = images is source.images and machines.count(_machine()) > 1
    if any(distributed.all_gather_int(int(is_private))):  # the open file is no longer needed
        print_line("every process keeps a copy of the pixels: this system does not let them share memory")
    if file >= 0:
        os.close(file)
    return replace(source, images=images)


def _machine() -> int:
    """Return a number that processes share if they can open each other's files under /proc."""
    identity = [os.uname().nodename]
    with contextlib.suppress(OSError):
        identity = [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")]
    return int.from_bytes(hashlib.sha256(repr(identity).encode()).digest()[:7], "big")


def copy_to_memory_file(images: np.ndarray) -> int:
    """Return the descriptor of a file in memory with these pixels, or -1 if the system has no such files."""
    try:
        file = os.memfd_create("ltr-pixels")
        os.posix_fallocate(file, 0, images.nbytes)
    except (AttributeError, OSError):
        return -1
    with mmap.mmap(file, images.nbytes) as memory, memoryview(memory) as view:
        np.copyto(np.frombuffer(view, dtype=np.uint8).reshape(images.shape), images)
    return file


def map_file(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the read-only pixels uint8 of this shape of a file that holds nothing else."""
    size = math.prod(shape)
    with open(path, "rb") as file:
        memory = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
    return np.frombuffer(memory, dtype=np.uint8).reshape(shape)
