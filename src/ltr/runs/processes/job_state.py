"""State of a process that a run changes and the next run in the same process must not see."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


@contextlib.contextmanager
def restored_state() -> Iterator[None]:
    """Restore the global state of the process after a block, so that the next run gets that of a new process.

    Restored are environment variables, the warnings that were printed once, the default generators of Python, NumPy
    and torch, torch's threads and flags (deterministic algorithms, cuDNN, precision of products, default type) and
    what ``torch.compile`` keeps in memory.
    """
    environment = dict(os.environ)
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - code outside ltr draws from it
    torch_state, seed = torch.get_rng_state(), torch.initial_seed()
    flags = _read_flags()
    with warnings.catch_warnings():  # also lets each warning be printed again
        try:
            yield
        finally:
            _restore_environment(environment)
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
            torch.set_rng_state(torch_state)
            if torch.cuda.is_initialized():
                torch.cuda.manual_seed_all(seed)
            _write_flags(flags)
            if "torch._dynamo" in sys.modules:
                torch._dynamo.reset()  # torch gives up compiling code that it has compiled often


def _restore_environment(before: dict[str, str]) -> None:
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})


_FLAGS: tuple[tuple[Any, str], ...] = (
    *((torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic")),
    (torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction"),
    (torch.backends.mkldnn, "enabled"),
    (torch.utils.deterministic, "fill_uninitialized_memory"),
)


def _read_flags() -> dict[str, Any]:
    return {
        "threads": torch.get_num_threads(),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "precision": torch.get_float32_matmul_precision(),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "anomaly": (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        "attributes": [getattr(owner, name) for owner, name in _FLAGS],
    }


def _write_flags(flags: dict[str, Any]) -> None:
    if torch.get_num_threads() != flags["threads"]:
        torch.set_num_threads(flags["threads"])
    is_on, warns_only = flags["deterministic"]
    torch.use_deterministic_algorithms(is_on, warn_only=warns_only)
    torch.set_float32_matmul_precision(flags["precision"])
    torch.set_default_dtype(flags["dtype"])
    torch.set_grad_enabled(flags["grad"])
    torch.autograd.set_detect_anomaly(*flags["anomaly"])
    for (owner, name), value in zip(_FLAGS, flags["attributes"]):
        if getattr(owner, name) != value:
            setattr(owner, name, value)
