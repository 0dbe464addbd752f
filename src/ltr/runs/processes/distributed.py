"""Collectives of the processes of one run; with a single process every function here is a no-op."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from ltr.errors import ConfigError, LtrError, TrainingError
from ltr.runs.processes.process_info import ProcessInfo

T = TypeVar("T")
# a process may wait for another run's stage or for a computation of rank 0; dead processes are noticed in other ways
PATIENCE = timedelta(days=2)
MEETING = timedelta(minutes=5)
_POLL = 0.02  # seconds
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out", "connection was closed")


class ProcessLost(TrainingError):
    """Loss of another process of this run; the process that started them reports the cause."""

    exit_code = 120


class RankZeroError(LtrError):
    """Error on another rank after rank 0 has failed and printed the cause."""

    is_reported = True

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def is_distributed() -> bool:
    """Return whether the run has several processes."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def rank() -> int:
    return distributed.get_rank() if is_distributed() else 0


def world_size() -> int:
    return distributed.get_world_size() if is_distributed() else 1


def is_rank_zero() -> bool:
    """Return whether this process has rank 0, which writes and prints."""
    return rank() == 0


def broadcast_from_rank_zero(decision: Callable[[], T]) -> T:
    """Call a function on rank 0 and return its result in every process.

    Args:
        decision: called on rank 0 only; returns plain data (JSON types).

    Raises:
        RankZeroError: on the other ranks, if the function fails on rank 0.
    """
    if not is_distributed():
        return decision()
    if is_rank_zero():
        try:
            result = decision()
        except BaseException as error:
            _broadcast({"message": str(error), "exit_code": getattr(error, "exit_code", 1)})
            raise
        _broadcast({"result": result})
        return result
    message = _receive()
    if "result" not in message:
        raise RankZeroError(message["message"], message["exit_code"])
    return message["result"]


def _broadcast(content: Any) -> None:
    """Broadcast plain data as JSON text, without pickles."""
    text = torch.frombuffer(bytearray(json.dumps(content).encode()), dtype=torch.uint8)
    distributed.broadcast(torch.tensor([len(text)]), 0)
    distributed.broadcast(text, 0)


def _receive() -> Any:
    length = torch.zeros(1, dtype=torch.int64)
    distributed.broadcast(length, 0)
    text = torch.empty(int(length), dtype=torch.uint8)
    distributed.broadcast(text, 0)
    return json.loads(bytes(text.tolist()).decode())


def all_reduce_max(*values: int) -> tuple[int, ...]:
    """Return the largest of each number over all processes."""
    if not is_distributed():
        return values
    maxima = torch.tensor(values)
    distributed.all_reduce(maxima, distributed.ReduceOp.MAX)
    return tuple(maxima.tolist())


def all_gather_int(value: int) -> list[int]:
    """Return the numbers of all processes, by rank."""
    if not is_distributed():
        return [value]
    values = [torch.zeros(1, dtype=torch.int64) for _ in range(world_size())]
    distributed.all_gather(values, torch.tensor([value]))
    return [int(gathered) for gathered in values]


def all_reduce_sum(numbers: Tensor) -> Tensor:
    """Return the sum over all processes as a new tensor."""
    if not is_distributed():
        return numbers
    total = numbers.clone()
    distributed.all_reduce(total)
    return total


def broadcast_tensors(tensors: Iterator[Tensor]) -> None:
    """Overwrite tensors with the tensors of rank 0."""
    if is_distributed():
        for tensor in tensors:
            distributed.broadcast(tensor, 0)


@contextlib.contextmanager
def rank_by_rank() -> Iterator[None]:
    """Run a block on rank 0 first and on all other ranks afterwards, so that they find its files."""
    if is_distributed() and not is_rank_zero():
        distributed.barrier()
    try:
        yield
    except BaseException:
        # release the waiting ranks: they meet the same error, or notice that this process has ended
        if is_distributed() and is_rank_zero():
            distributed.barrier()
        raise
    if is_distributed() and is_rank_zero():
        distributed.barrier()


def _join_store(process: ProcessInfo) -> Any:
    """Return the store of the processes once all of them have joined it.

    When torchrun restarts processes, it keeps its store with the entries of earlier processes. Therefore each process
    draws a random word, and rank 0 lists the words until every process has found its word in the list. The list is the
    prefix of everything that these processes write.

    Raises:
        ProcessLost: a process has not joined in time.
    """
    store, _, _ = next(distributed.rendezvous(process.rendezvous, process.rank, process.world_size, timeout=MEETING))
    word, until = secrets.token_hex(8), time.monotonic() + MEETING.total_seconds()
    words = [f"ltr/word/{rank}" for rank in range(process.world_size)]
    answers = [f"ltr/answer/{rank}" for rank in range(process.world_size)]

    def read(keys: list[str]) -> list[str]:
        return [store.get(key).decode() for key in keys] if store.check(keys) else []

    store.set(words[process.rank], word)
    word_list = ""
    while time.monotonic() < until:
        if process.rank == 0 and word_list != (joined := ",".join(read(words))):
            word_list = joined
            store.set("ltr/shown", word_list)
        elif process.rank:
            (word_list,) = read(["ltr/shown"]) or [""]
        if word in word_list.split(","):
            if read([answers[process.rank]]) != [word_list]:
                store.set(answers[process.rank], word_list)
            if process.rank == 0 and set(read(answers)) == {word_list}:
                store.set("ltr/agreed", word_list)
            if read(["ltr/agreed"]) == [word_list]:
                return distributed.PrefixStore(f"ltr/{word_list}", store)
        time.sleep(_POLL)
    raise ProcessLost(
        f"the {process.world_size} processes of this run did not all start within {MEETING.seconds // 60} minutes"
    )


def backend_of(process: ProcessInfo, accelerator: str) -> str:
    """Return the backend of the process group: gloo on CPUs, nccl on GPUs, with one GPU for each process.

    Raises:
        ConfigError: more processes than GPUs on this machine.
    """
    if accelerator == "cpu" or not torch.cuda.is_available():
        return "gloo"
    if process.local_world_size > torch.cuda.device_count():
        raise ConfigError(
            f"{process.local_world_size} processes on this machine and {torch.cuda.device_count()} GPUs that this one "
            "sees: each needs a separate GPU and must see all (in SLURM: --gpus-per-node, not --gpus-per-task). Use as "
            "many processes as GPUs, or trainer.accelerator=cpu"
        )
    torch.cuda.set_device(process.local_rank)
    return "cpu:gloo,cuda:nccl"


@contextlib.contextmanager
def process_group(process: ProcessInfo | None, accelerator: str) -> Iterator[None]:
    """Join the process group of a run during a block; a no-op with a single process.

    Args:
        process: this process; None with a single process.
        accelerator: ``auto | cpu | gpu``, from the trainer's config.

    Raises:
        ConfigError: more processes than GPUs on this machine.
        ProcessLost: another process has ended.
    """
    if process is None or process.world_size == 1:
        yield
        return
    backend = backend_of(process, accelerator)
    store = _join_store(process)
    distributed.init_process_group(
        backend, store=store, rank=process.rank, world_size=process.world_size, timeout=PATIENCE
    )
    try:
        yield
    except RuntimeError as error:
        if any(sign in str(error) for sign in _LOST):
            raise ProcessLost(
                "another process of this run has ended; the same command continues from the last state"
            ) from error
        raise
    finally:
        with contextlib.suppress(Exception):
            distributed.destroy_process_group()
