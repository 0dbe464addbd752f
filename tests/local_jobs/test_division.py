"""Division of cores and GPUs among the jobs of a local sweep."""

from __future__ import annotations

import os

import pytest

from ltr.local_jobs.division import Division, available_cores, divide, least_used, visible_gpus
from ltr.local_jobs.options import LocalOptions


@pytest.mark.parametrize(
    ("jobs", "cores", "at_a_time", "threads"),
    [(8, 2, 2, 1), (1, 2, 1, 2), (3, 16, 3, 5), (100, 1, 1, 1), (4, 4, 4, 1), (2, 5, 2, 2)],
)
def test_jobs_times_threads_never_exceed_the_cores(jobs, cores, at_a_time, threads):
    division = divide(jobs, cores, environment={})
    assert (division.at_a_time, division.threads) == (at_a_time, threads)
    assert division.at_a_time * division.threads <= cores


def test_a_number_of_threads_limits_the_jobs_and_a_number_of_jobs_the_threads():
    assert divide(8, 8, options=LocalOptions(threads=4), environment={}).at_a_time == 2
    assert divide(8, 8, options=LocalOptions(n_jobs=2), environment={}).threads == 4
    assert divide(8, 2, options=LocalOptions(n_jobs=4, threads=3), environment={}) == Division(2, 4, 3)  # as asked
    assert divide(2, 8, environment={"OMP_NUM_THREADS": "1"}).threads == 1
    assert divide(2, 8, environment={"OMP_NUM_THREADS": "64"}).threads == 4
    assert divide(2, 8, options=LocalOptions(threads=3), environment={"OMP_NUM_THREADS": "1"}).threads == 3


def test_gpus_limit_the_jobs_and_are_shared_evenly():
    division = divide(16, 32, ("0", "1"), options=LocalOptions(jobs_per_gpu=3), environment={})
    assert (division.at_a_time, division.threads) == (6, 5)
    used: list[str] = []
    for _ in range(6):
        used.append(least_used(division.gpus, used))
    assert used == ["0", "1"] * 3
    used.remove("1")
    assert least_used(division.gpus, used) == "1"
    assert least_used((), used) is None
    assert str(division) == "6 at a time on 32 cores and 2 GPUs, 5 threads each"


@pytest.mark.parametrize(
    ("visible", "count", "names"),
    [(None, 2, ("0", "1")), ("3,5", 2, ("3", "5")), ("", 0, ()), ("GPU-a", 1, ("GPU-a",))],
)
def test_the_visible_gpus_keep_their_names(visible, count, names):
    assert visible_gpus(count, {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}) == names


def test_the_affinity_of_the_process_limits_its_cores(monkeypatch):
    everything = available_cores()
    assert 1 <= everything <= len(os.sched_getaffinity(0))
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert available_cores() == 1
