"""Task functions of jobs for the tests of ``+launcher=local``; the jobs' processes import this module."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from ltr.data.source import Source
from ltr.runs.processes.core_slot import core_lent


def folder() -> Path:
    return Path(os.environ["LOCAL_TASKS"])


def note(config: Any, what: str) -> None:
    with open(folder() / "events", "a") as file:
        file.write(f"{config.seed} {what}\n")


def threads(config: Any) -> float:
    """Return the threads of the job, and record its environment."""
    import torch

    note(
        config,
        f"{os.environ['OMP_NUM_THREADS']} {os.environ.get('CUDA_VISIBLE_DEVICES')} {os.getsid(0) == os.getpid()}",
    )
    return float(torch.get_num_threads())


def killed_if_seed_is_zero(config: Any) -> float:
    """End the process as a machine without memory does."""
    if config.seed == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1.0


def process_of_job(config: Any) -> float:
    """Return the number of the process, and leave an environment variable behind; the job with seed 2 fails."""
    note(config, os.environ.get("LEFT_BEHIND", "clean"))
    os.environ["LEFT_BEHIND"] = "left behind"
    if config.seed == 2:
        raise ValueError("seed 2")
    return float(os.getpid())


def lends(config: Any) -> float:
    """Wait, with the core lent, until the job with seed 1 has run."""
    if config.seed == 0:
        with core_lent():
            while not (folder() / "events").exists():
                time.sleep(0.02)
    note(config, "computes")
    return 0.0


def until_stopped(config: Any) -> float:
    """Compute until a signal comes."""
    note(config, "started")
    time.sleep(60)
    return 0.0


def reads(config: Any) -> float:
    """Read the data set as a run does; return the sum of its pixels."""
    import ltr.commands.train as train

    source = train._sources[0]({"_target_": "local_tasks.synthetic", "size": 6})
    note(config, f"maps {source.images.flags.writeable}")
    return float(source.images.sum())


def synthetic(size: int) -> Source:
    with open(folder() / "reads", "a") as file:
        file.write("read\n")
    time.sleep(0.2)  # the other job asks meanwhile
    images = np.arange(size * 4, dtype=np.uint8).reshape(size, 2, 2, 1)
    return Source("made up", images, np.zeros(size, dtype=np.int64), ("one",), {"train": range(size)})
