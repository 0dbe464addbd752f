"""Whether a saved training state is whole: checked before a training goes on from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ltr.errors import CheckpointError
from ltr.methods.core.checkpoint import check_weights, read_checkpoint


def read_training_state(path: Path, network: nn.Module | None = None) -> dict[str, Any]:
    """A training state, with the entries from which a training goes on.

    Args:
        network: that is trained; None leaves its weights unchecked.

    Raises:
        CheckpointError: it names the entry that is missing or wrong.
    """
    state = read_checkpoint(path)
    position_of(state, path)
    if not _is_whole(state.get("global_step")):
        raise _wrong(path, "global_step is no whole number of at least 0")
    for name, parts in (("optimizer_states", ("state", "param_groups")), ("lr_schedulers", ())):
        entries = state.get(name)
        if not isinstance(entries, list) or not all(
            isinstance(one, Mapping) and all(part in one for part in parts) for one in entries
        ):
            raise _wrong(path, f"{name} is no list of states")
    if not state["optimizer_states"]:
        raise _wrong(path, "optimizer_states is empty")
    if not isinstance(state.get("callbacks", {}), Mapping):
        raise _wrong(path, "callbacks is no mapping")
    if not isinstance(state.get("state_dict"), Mapping):
        raise _wrong(path, "state_dict is no mapping")
    if network is not None:
        check_weights(network, state["state_dict"], path)
    return state


def position_of(state: Mapping[str, Any], path: Path) -> tuple[int, int]:
    """(epoch, batch) at which training goes on from a state: both count from 0.

    Raises:
        CheckpointError: it does not say.
    """
    try:
        loops = state["loops"]["fit_loop"]
        epochs = loops["epoch_progress"]["current"]
        batch = loops["epoch_loop.batch_progress"]
        numbers = (epochs["processed"], epochs["started"], batch["current"]["processed"])
        is_last = batch["is_last_batch"]
    except (KeyError, TypeError, IndexError):
        raise _wrong(path, "loops does not say where training stood") from None
    if not all(map(_is_whole, numbers)) or not isinstance(is_last, bool):
        raise _wrong(path, "loops does not hold whole numbers of at least 0")
    done, started, batches = numbers
    return done, batches if started > done and not is_last else 0


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _wrong(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: a damaged training state: {what}")
