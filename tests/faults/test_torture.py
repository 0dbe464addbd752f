"""The short form of ``scripts/torture.py``: kills at random instants, a torn checkpoint, a full disk, a race."""

from __future__ import annotations

import random

import pytest

import torture as script

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def torture(tmp_path_factory):
    # a test mounts no file system
    return script.Torture(tmp_path_factory.mktemp("torture"), random.Random(0), mounts=False)


def ends_the_same(torture, kind: str, *case, **more) -> None:
    tally = script.Tally(kind, script.Case(*case))
    getattr(torture, kind)(tally, **more)
    assert (tally.same, tally.wrong) == (1, [])


@pytest.mark.parametrize(("processes", "most"), [(1, 2), (2, 1)])
def test_a_run_that_was_killed_ends_with_the_same_bits(torture, processes, most):
    ends_the_same(torture, "killed", "erm", processes, most=most)


@pytest.mark.parametrize("kind", ["torn", "full", "racing"])
def test_a_run_that_was_disturbed_ends_with_the_same_bits(torture, kind):
    ends_the_same(torture, kind, "erm")


@pytest.mark.parametrize(("kind", "workers"), [("worker", 2), ("unreadable", 0)])
def test_a_run_on_files_that_was_disturbed_ends_with_the_same_bits(torture, kind, workers):
    ends_the_same(torture, kind, "files", 1, workers)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["stopped", "locked", "removed"])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_after_stops_locks_or_lost_outputs_ends_with_the_same_bits(torture, kind, processes):
    ends_the_same(torture, kind, "erm", processes)


@pytest.mark.long
@pytest.mark.parametrize("run", ["crt", "m2m", "sla", "background_splitting", "arpl", "herbs", "rkd", "files_skip"])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_of_any_method_that_was_killed_ends_with_the_same_bits(torture, run, processes):
    ends_the_same(torture, "killed", run, processes)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["vanished", "changed"])
@pytest.mark.parametrize("workers", [0, 4])
def test_a_run_whose_image_files_change_finishes_or_reports_it(torture, kind, workers):
    ends_the_same(torture, kind, "files", 1, workers)
