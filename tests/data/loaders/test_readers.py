"""Killed worker processes: an error where a batch is awaited, never a hang."""

from __future__ import annotations

import os
import signal
import threading

import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import signal_handling

from ltr.data.loaders import readers
from ltr.data.loaders.readers import iterate_batches

COUNT, PATIENCE = 64, 60.0  # seconds; torch looks after its workers every five


class Numbers(Dataset):
    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> int:
        if index < 0:
            raise RuntimeError("not a number that can be read")
        return index


class Truncated(Numbers):
    def __getitem__(self, index: int) -> int:
        raise EOFError("of the data set")


def numbers(workers: int, order=range(COUNT)) -> DataLoader:
    return DataLoader(Numbers(), batch_size=None, sampler=order, num_workers=workers, generator=torch.Generator())


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_loader(workers):
    assert list(iterate_batches(numbers(workers))) == list(range(COUNT))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_a_data_set_is_raised(workers):
    with pytest.raises(RuntimeError, match="not a number that can be read"):
        list(iterate_batches(numbers(workers, order=[0, 1, -1, 2])))


def test_the_signal_handler_of_torch_is_not_installed(monkeypatch):
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)
    before = signal.getsignal(signal.SIGCHLD)
    batches = iterate_batches(numbers(2))
    assert next(batches) == 0
    assert signal.getsignal(signal.SIGCHLD) is before


def test_a_truncated_batch_is_reported_as_a_dead_worker():
    """Its process has not quite ended when the batch breaks off, so torch raises the error of the broken batch."""
    batches = iterate_batches(numbers(2))
    next(batches)
    loading = batches.gi_frame.f_locals["loading"]
    victim = loading._workers[0]

    def cut_off():
        os.kill(victim.pid, signal.SIGKILL)
        raise EOFError

    loading._try_get_data = cut_off
    with pytest.raises(RuntimeError, match=rf"DataLoader worker \(pid\(s\) {victim.pid}\) exited unexpectedly"):
        list(batches)


def test_an_end_of_file_error_of_a_data_set_is_raised_unchanged():
    with pytest.raises(EOFError, match="of the data set"):
        list(iterate_batches(DataLoader(Truncated(), batch_size=None, num_workers=2)))


def signalled(number):
    """Return batches of which the first two were read, after a signal to all workers, and the workers."""
    batches = iterate_batches(numbers(2))
    assert [next(batches), next(batches)] == [0, 1]  # one of each worker
    workers = batches.gi_frame.f_locals["loading"]._workers
    for worker in workers:
        os.kill(worker.pid, number)
    return batches, workers


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
def test_workers_leave_a_signal_to_their_group_to_the_process_that_started_them(number):
    batches, workers = signalled(number)
    assert list(batches) == list(range(2, COUNT))
    assert all(not worker.is_alive() for worker in workers)


def test_a_signalled_worker_ends_itself_after_a_grace_period(monkeypatch):
    monkeypatch.setattr(readers, "GRACE", 1)
    batches, workers = signalled(signal.SIGTERM)
    for worker in workers:
        worker.join(PATIENCE)
    assert [worker.exitcode for worker in workers] == [-signal.SIGALRM] * 2
    batches.close()


@pytest.mark.parametrize("locked", [False, True], ids=["at any moment", "with the lock that all workers share"])
def test_a_killed_worker_is_reported_and_does_not_hang(locked):
    errors: list[str] = []

    def read():
        batches = iterate_batches(numbers(2))
        next(batches)
        loading = batches.gi_frame.f_locals["loading"]
        if locked:  # what a worker leaves behind that is killed while it looks whether it should end
            loading._workers_done_event._event._cond.acquire()
        os.kill(loading._workers[0].pid, signal.SIGKILL)
        try:
            list(batches)
        except RuntimeError as error:
            errors.append(str(error))
        del loading, batches

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    reading.join(PATIENCE)
    assert not reading.is_alive()
    assert len(errors) == 1
    assert "DataLoader worker" in errors[0]
