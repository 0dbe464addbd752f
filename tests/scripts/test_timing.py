"""Seconds of work on a device."""

from __future__ import annotations

import pytest
import torch

import timing


@pytest.mark.parametrize(("wall", "expected"), [(False, 10.0), (True, 1.0)])
def test_work_on_a_cpu_is_measured_in_processor_time_or_wall_time(monkeypatch, wall, expected):
    now = {"processor": 0.0, "wall": 0.0}
    monkeypatch.setattr(timing.time, "process_time", lambda: now["processor"])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now["wall"])

    def work() -> None:
        now["processor"] += 5.0
        now["wall"] += 0.5

    assert timing.seconds(work, torch.device("cpu"), times=2, wall=wall) == expected
