"""Messages for runs that run out of memory or disk space, or lose a data loading process."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ltr.errors import LtrError, TrainingError

# texts of plain RuntimeErrors for exhausted memory: from torch's CPU allocator, and from GPU libraries
_NO_MEMORY = ("can't allocate memory", "out of memory", "_ALLOC_FAILED", "bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, on a GPU or on the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def out_of_memory_in_evaluation(batch_size: int) -> str:
    """Return the advice for an evaluation that ran out of memory."""
    return (
        f"out of memory while images were evaluated, evaluation.batch_size={batch_size} at a time. Lower "
        "evaluation.batch_size: metrics do not depend on it"
    )


@contextmanager
def explain_failures(what: str, advice: Callable[[], str]) -> Iterator[None]:
    """Convert out-of-memory errors and dead worker processes in a block to a TrainingError with advice.

    Args:
        what: name of the block, for the message.
        advice: returns the requested amount and the option to lower, for out-of-memory errors.

    Raises:
        TrainingError: memory ran out, or a process that reads images has died.
    """
    try:
        yield
    except LtrError:
        raise
    except (RuntimeError, MemoryError, OSError) as error:
        if is_out_of_memory(error):
            raise TrainingError(f"{what}: {advice()}") from error
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            f"{what}: a process that reads images ended ({str(error).splitlines()[0]}). If memory ran out, lower "
            "trainer.num_workers; the same command continues from the last saved state"
        ) from error
