"""Division of a machine's cores and GPUs among jobs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ltr.local_jobs.options import LocalOptions
from ltr.names import counted


@dataclass(frozen=True)
class Division:
    """Number of jobs at a time and the threads of each.

    Attributes:
        cores: that this process may use.
        at_a_time: jobs that compute at the same time.
        threads: threads of each job.
        gpus: as CUDA_VISIBLE_DEVICES names them; () without any.
    """

    cores: int
    at_a_time: int
    threads: int
    gpus: tuple[str, ...] = ()

    def __str__(self) -> str:
        of_gpus = f" and {counted(len(self.gpus), 'GPU')}" if self.gpus else ""
        return (
            f"{self.at_a_time} at a time on {counted(self.cores, 'core')}{of_gpus}, "
            f"{counted(self.threads, 'thread')} each"
        )


def divide(
    jobs: int,
    cores: int,
    gpus: Sequence[str] = (),
    options: LocalOptions = LocalOptions(),  # noqa: B008 - frozen
    environment: Mapping[str, str] = os.environ,
) -> Division:
    """Divide cores and GPUs among jobs.

    With automatic numbers there are never more threads than cores. A smaller OMP_NUM_THREADS limits the
    threads of a job.

    Args:
        jobs: jobs of the sweep, at least 1.
        cores: see `available_cores`.
        gpus: names of the GPUs that the jobs use.
        options: numbers of the user.
    """
    at_a_time: int | str = options.n_jobs
    threads: int | str = options.threads
    if isinstance(at_a_time, str):
        at_a_time = cores if isinstance(threads, str) else max(1, cores // threads)
        if gpus:
            at_a_time = min(at_a_time, options.jobs_per_gpu * len(gpus))
    at_a_time = max(1, min(jobs, at_a_time))
    if isinstance(threads, str):
        threads = max(1, cores // at_a_time)
        limit = environment.get("OMP_NUM_THREADS", "")
        if limit.isdecimal() and int(limit):
            threads = min(threads, int(limit))
    return Division(cores, at_a_time, threads, tuple(gpus))


def available_cores() -> int:
    """Return the cores that this process may use, by its affinity and the limits of its control group."""
    from joblib import cpu_count

    return max(1, cpu_count())


def visible_gpus(count: int, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the names of the GPUs for CUDA_VISIBLE_DEVICES.

    Args:
        count: count of those that CUDA shows this process.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(count)] if visible is None else visible.split(",")
    return tuple(name for name in names if name)[:count]


def least_used(gpus: Sequence[str], used: Sequence[str]) -> str | None:
    """Return the GPU that the fewest running jobs use, the first of several; None without GPUs.

    Args:
        used: the GPU of each running job.
    """
    return min(gpus, key=list(used).count) if gpus else None
