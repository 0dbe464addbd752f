"""The state of a process after a run: that of a new process."""

from __future__ import annotations

import os
import random
import warnings

import numpy as np
import pytest
import torch

from ltr.runs.processes.job_state import restored_state


def state() -> list:
    return [
        dict(os.environ),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        torch.get_rng_state().tolist(),
        torch.initial_seed(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_float32_matmul_precision(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.is_anomaly_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.backends.mkldnn.enabled,
        torch.utils.deterministic.fill_uninitialized_memory,
        list(warnings.filters),
    ]


def change_everything() -> None:
    os.environ["A_RUN_ADDS"] = "1"
    os.environ["A_RUN_CHANGES"] = "after"
    os.environ.pop("A_RUN_REMOVES")
    random.random()
    np.random.rand()  # noqa: NPY002
    torch.manual_seed(torch.initial_seed() + 1)  # another test may have seeded it
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.use_deterministic_algorithms(not torch.are_deterministic_algorithms_enabled(), warn_only=True)
    torch.set_float32_matmul_precision("medium")
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.autograd.set_detect_anomaly(True)
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic = not torch.backends.cudnn.deterministic
    torch.backends.mkldnn.enabled = False
    torch.utils.deterministic.fill_uninitialized_memory = False
    warnings.simplefilter("ignore")


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_restores_the_state_of_the_process(monkeypatch, fails):
    monkeypatch.setenv("A_RUN_CHANGES", "before")
    monkeypatch.setenv("A_RUN_REMOVES", "1")
    before = state()
    with pytest.raises(KeyError) if fails else warnings.catch_warnings(), restored_state():
        change_everything()
        changed = state()
        if fails:
            raise KeyError
    assert all(one != other for one, other in zip(before, changed))
    assert state() == before


def test_a_warning_that_was_printed_once_is_printed_again():
    with warnings.catch_warnings(record=True) as printed:
        warnings.simplefilter("default")
        for _ in range(2):
            with restored_state():
                for _ in range(2):
                    warnings.warn("once for each run", stacklevel=1)
    assert len(printed) == 2


def test_compiled_code_is_reset():
    import torch._dynamo

    calls = []

    def backend(graph, inputs):
        calls.append(1)
        return graph.forward

    compiled = torch.compile(lambda x: x + 1, backend=backend)
    for _ in range(2):
        with restored_state():
            compiled(torch.ones(2))
            compiled(torch.ones(2))
    assert len(calls) == 2
