"""The processes of one run: what they decide together. With one process, everything here is a matter of course."""

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
from ltr.runs.process_info import Place

T = TypeVar("T")
# one process may wait for another run's stage or for what rank 0 computes; a process that dies is noticed otherwise
PATIENCE = timedelta(days=2)
MEETING = timedelta(minutes=5)
_POLL = 0.02  # seconds
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out", "connection was closed")


class ProcessLost(TrainingError):
    """Another process of this run is gone; whoever watches over them knows why."""

    exit_code = 120


class ToldByFirst(LtrError):
    """What the process of rank 0 failed with; it has told so."""

    told = True

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def several() -> bool:
    """Whether this process is one of several of its run."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def rank() -> int:
    return distributed.get_rank() if several() else 0


def size() -> int:
    return distributed.get_world_size() if several() else 1


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return rank() == 0


def decided(decision: Callable[[], T]) -> T:
    """What the first process decides, known to all; the others wait.

    Args:
        decision: carried out in the first process alone; gives plain data (what JSON holds).

    Raises:
        ToldByFirst: in the other processes, where the decision fails in the first.
    """
    if not several():
        return decision()
    if is_first():
        try:
            found = decision()
        except BaseException as error:
            _say({"message": str(error), "exit_code": getattr(error, "exit_code", 1)})
            raise
        _say({"found": found})
        return found
    told = _listen()
    if "found" not in told:
        raise ToldByFirst(told["message"], told["exit_code"])
    return told["found"]


def _say(told: Any) -> None:
    """Plain text and no pickles, although it comes from ourselves."""
    text = torch.frombuffer(bytearray(json.dumps(told).encode()), dtype=torch.uint8)
    distributed.broadcast(torch.tensor([len(text)]), 0)
    distributed.broadcast(text, 0)


def _listen() -> Any:
    length = torch.zeros(1, dtype=torch.int64)
    distributed.broadcast(length, 0)
    text = torch.empty(int(length), dtype=torch.uint8)
    distributed.broadcast(text, 0)
    return json.loads(bytes(text.tolist()).decode())


def highest(*values: int) -> tuple[int, ...]:
    """The highest of each number over all processes."""
    if not several():
        return values
    together = torch.tensor(values)
    distributed.all_reduce(together, distributed.ReduceOp.MAX)
    return tuple(together.tolist())


def told(value: int) -> list[int]:
    """The numbers of all processes, by rank."""
    if not several():
        return [value]
    every = [torch.zeros(1, dtype=torch.int64) for _ in range(size())]
    distributed.all_gather(every, torch.tensor([value]))
    return [int(one) for one in every]


def summed(numbers: Tensor) -> Tensor:
    """The sum over all processes; ``numbers`` itself is left alone."""
    if not several():
        return numbers
    together = numbers.clone()
    distributed.all_reduce(together)
    return together


def from_first(tensors: Iterator[Tensor]) -> None:
    """Overwrite tensors with those of the first process."""
    if several():
        for tensor in tensors:
            distributed.broadcast(tensor, 0)


@contextlib.contextmanager
def in_turn() -> Iterator[None]:
    """The first process goes first, the others follow: what it puts on the disk is there for them."""
    if several() and not is_first():
        distributed.barrier()
    try:
        yield
    except BaseException:
        # the others are not kept waiting for what will not come; they meet the same trouble, or find us gone
        if several() and is_first():
            distributed.barrier()
        raise
    if several() and is_first():
        distributed.barrier()


def _met(place: Place) -> Any:
    """The store of the processes, once all of them have come to it.

    torchrun keeps its store when it starts processes again, with all that those before them wrote. So each process
    draws a word, the first one shows the words that it finds until every process has recognised its own, and what
    they write then is kept apart under these words.

    Raises:
        ProcessLost: one has not come in time.
    """
    store, _, _ = next(distributed.rendezvous(place.rendezvous, place.rank, place.world_size, timeout=MEETING))
    own, until = secrets.token_hex(8), time.monotonic() + MEETING.total_seconds()
    words = [f"ltr/word/{rank}" for rank in range(place.world_size)]
    answers = [f"ltr/answer/{rank}" for rank in range(place.world_size)]

    def read(keys: list[str]) -> list[str]:
        return [store.get(key).decode() for key in keys] if store.check(keys) else []

    store.set(words[place.rank], own)
    shown = ""
    while time.monotonic() < until:
        if place.rank == 0 and shown != (found := ",".join(read(words))):
            shown = found
            store.set("ltr/shown", shown)
        elif place.rank:
            (shown,) = read(["ltr/shown"]) or [""]
        if own in shown.split(","):
            if read([answers[place.rank]]) != [shown]:
                store.set(answers[place.rank], shown)
            if place.rank == 0 and set(read(answers)) == {shown}:
                store.set("ltr/agreed", shown)
            if read(["ltr/agreed"]) == [shown]:
                return distributed.PrefixStore(f"ltr/{shown}", store)
        time.sleep(_POLL)
    raise ProcessLost(
        f"the {place.world_size} processes of this run did not all start within {MEETING.seconds // 60} minutes"
    )


def backend_of(place: Place, accelerator: str) -> str:
    """What the processes talk by: gloo on CPUs, nccl between GPUs, of which each process takes its own.

    Raises:
        ConfigError: more processes than GPUs on this machine.
    """
    if accelerator == "cpu" or not torch.cuda.is_available():
        return "gloo"
    if place.local_world_size > torch.cuda.device_count():
        raise ConfigError(
            f"{place.local_world_size} processes on this machine and {torch.cuda.device_count()} GPUs that this one "
            "sees: each needs one of its own, and sees all (in SLURM: --gpus-per-node, not --gpus-per-task). Use as "
            "many processes as GPUs, or trainer.accelerator=cpu"
        )
    torch.cuda.set_device(place.local_rank)
    return "cpu:gloo,cuda:nccl"


@contextlib.contextmanager
def joined(place: Place | None, accelerator: str) -> Iterator[None]:
    """Be one of the processes of a run, for the time of a block; nothing happens where this is the only one.

    Args:
        accelerator: ``auto | cpu | gpu``, of the trainer's page.

    Raises:
        ConfigError: more processes than GPUs on this machine.
        ProcessLost: another process is gone.
    """
    if place is None or place.world_size == 1:
        yield
        return
    backend = backend_of(place, accelerator)
    store = _met(place)
    distributed.init_process_group(backend, store=store, rank=place.rank, world_size=place.world_size, timeout=PATIENCE)
    try:
        yield
    except RuntimeError as error:
        if any(sign in str(error) for sign in _LOST):
            raise ProcessLost(
                "another process of this run is gone; the same command goes on from the last state"
            ) from error
        raise
    finally:
        with contextlib.suppress(Exception):
            distributed.destroy_process_group()
