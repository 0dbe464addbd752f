"""Errors of the processes of torchrun: printed once if all meet them, with the rank if one does."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from torch import distributed

from ltr.runs.processes.rank_errors import print_once


@pytest.fixture
def environment():
    """The environment of a process of torchrun, with its store."""
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=5), wait_for_workers=False)
    yield {
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": "3",
    }
    del store


def printed_by(environment, messages: list[str], seconds: float = 5.0) -> list[list[str]]:
    """Return what each rank prints when all fail at the same time, each with its message; '' for no error."""
    texts: list[list[str]] = [[] for _ in messages]
    threads = [
        threading.Thread(
            target=print_once, args=(message, texts[rank].append, {**environment, "RANK": str(rank)}, seconds)
        )
        for rank, message in enumerate(messages)
        if message
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return texts


def test_an_error_of_all_ranks_is_printed_by_rank_zero(environment):
    assert printed_by(environment, ["error: lr"] * 3) == [["error: lr"], [], []]


def test_an_error_of_one_rank_is_printed_with_the_rank(environment):
    assert printed_by(environment, ["", "", "error: no files"], 0.2) == [[], [], ["rank 2: error: no files"]]
    other = ["error: another process is gone"] * 2
    assert printed_by(environment, [*other, "error: no GPU"], 0.2) == [[other[0]], [], ["rank 2: error: no GPU"]]


def test_without_torchrun_every_process_prints():
    texts: list[str] = []
    print_once("error: lr", texts.append, {"RANK": "1", "WORLD_SIZE": "2"})
    assert texts == ["error: lr"]


@pytest.mark.parametrize("changed", [{"MASTER_PORT": "none"}, {"WORLD_SIZE": "three"}])
def test_without_a_store_the_message_is_printed(environment, changed):
    texts: list[str] = []
    print_once("error: lr", texts.append, {**environment, "RANK": "1", **changed}, 0.1)
    assert texts == ["rank 1: error: lr"]
