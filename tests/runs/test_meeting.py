"""Processes that join a store with files of an earlier start."""

from __future__ import annotations

import threading
import time

import pytest
from torch import distributed

from ltr.runs.processes import distributed as group
from ltr.runs.processes.process_info import ProcessInfo


@pytest.fixture
def come(monkeypatch):
    """Let the process of a rank come to the common store, in a thread; the store that it gets is put into a list."""
    common = distributed.HashStore()

    def rendezvous(url, rank, world_size, timeout):
        yield common, rank, world_size

    monkeypatch.setattr(distributed, "rendezvous", rendezvous)

    def one(rank: int, stores: list, world_size: int = 2) -> threading.Thread:
        index = ProcessInfo(rank, world_size, rank, world_size, "env://")
        thread = threading.Thread(target=lambda: stores.append(group._join_store(index)), daemon=True)
        thread.start()
        return thread

    return one


def all_met(come, ranks: tuple[int, ...] = (0, 1)) -> list:
    stores: list = []
    for thread in [come(rank, stores, len(ranks)) for rank in ranks]:
        thread.join(20)
    assert len(stores) == len(ranks)
    return stores


@pytest.mark.parametrize("ranks", [(0, 1), (1, 0), (2, 0, 1)])
def test_processes_join_in_any_order(come, ranks):
    first, *others = all_met(come, ranks)
    first.set("said", "by one")
    assert all(other.get("said") == b"by one" for other in others)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_restarted_process_waits_for_the_others_to_restart(come, rank):
    (left, _) = all_met(come)
    left.set("said", "before")
    stores: list = []
    come(rank, stores)
    time.sleep(0.3)
    assert stores == []
    come(1 - rank, stores).join(20)
    assert not stores[0].check(["said"])


def test_a_missing_process_is_an_error(come, monkeypatch):
    monkeypatch.setattr(group, "MEETING", group.timedelta(seconds=0.2))
    with pytest.raises(group.ProcessLost, match="did not all start"):
        group._join_store(ProcessInfo(0, 2, 0, 2, "env://"))
