"""Timing of work on a device, shared by benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def seconds(work: Callable[[], object], device: torch.device, times: int = 1, *, wall: bool = False) -> float:
    """Return the seconds of several calls: wall time on a GPU, processor time of this process on a CPU.

    Args:
        wall: True measures wall time on a CPU, too.
    """
    on_gpu = device.type == "cuda"
    clock = time.perf_counter if on_gpu or wall else time.process_time
    if on_gpu:
        torch.cuda.synchronize(device)
    started = clock()
    for _ in range(times):
        work()
    if on_gpu:
        torch.cuda.synchronize(device)
    return clock() - started
