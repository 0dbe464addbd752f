"""Named tensors of weights files: of a state dict, of an entry of a training checkpoint, of a tuned run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ltr.configuration.configs import node_at
from ltr.errors import CheckpointError
from ltr.escaping import one_line
from ltr.files import TORCH_SUFFIXES, WEIGHTS_SUFFIXES
from ltr.models.lora_state import has_updates, merged_updates, scale_of
from ltr.models.weights_file import load_safetensors_file, load_torch_file, refuse_other_files

State = dict[str, Tensor]


def read_state(path: str | Path, entry: str | None = None) -> State:
    """Read the named tensors of a file to the CPU.

    Nothing in the file is executed: torch files are read with ``weights_only=True``. For a training checkpoint, the
    function reads the entry ``state_dict`` or ``model``. Prefixes of wrappers (``module.``, ``_orig_mod.``) are
    removed. Low-rank updates of a run with ``tune=lora`` are merged into their weights.

    Args:
        entry: entry to read instead, with dots between nested keys. Keys nested inside it become prefixes.

    Raises:
        CheckpointError: the file is missing or damaged, has an unknown suffix, lacks the entry, or holds no tensors.
    """
    path = Path(path)
    if not path.exists():
        folder = "" if path.is_absolute() else f" in '{Path.cwd()}'"
        raise CheckpointError(f"There is no weights file '{path}'{folder}. Name one that exists")
    if path.is_dir():
        refuse_other_files(path)
    if path.suffix == ".safetensors":
        content: object = load_safetensors_file(path)
    elif path.suffix in TORCH_SUFFIXES:
        content = load_torch_file(path)
    else:
        allowed = ", ".join(WEIGHTS_SUFFIXES)
        raise CheckpointError(f"Weights '{path}' have the suffix '{path.suffix}'; allowed: {allowed}. Convert the file")
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"'{path}' holds one {type(content).__name__}, not a state dict. Save `module.state_dict()` into it"
        )
    if "base" in content and content.get("format") == "ltr-stage":
        raise CheckpointError(
            f"'{path}' holds only the tuned part of its weights. Export the run (ltr-export RUN --out FOLDER) and "
            "start from FOLDER/model.safetensors, or train the run that wrote it with checkpoint.tuned=whole"
        )
    if entry is not None:
        return _named_entry(content, entry, path)
    inner = next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), Mapping)), content)
    state = {_plain_name(str(name)): value for name, value in inner.items() if isinstance(value, Tensor)}
    if not state:
        nested = [str(key) for key, value in content.items() if isinstance(value, Mapping) and _flat(value)]
        places = f" at its top level; they are in: {one_line(', '.join(nested))}"
        raise CheckpointError(
            f"'{path}' holds no named tensors{places if nested else ''}. Save `module.state_dict()` alone into a file"
        )
    if content.get("format") == "ltr-stage" and has_updates(state):
        state = _merged(state, scale_of(content.get("description"), path), path)
    return state


def _merged(state: State, scale: float, path: Path) -> State:
    """Return the state of a run with ``tune=lora`` with its updates merged into the weights."""
    try:
        return merged_updates(state, scale)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"'{path}' is damaged: a low-rank update does not fit its weight ({error})") from error


def is_state(path: str | Path) -> bool:
    """Return whether a file can be read as named tensors."""
    try:
        return bool(read_state(path))
    except CheckpointError:
        return False


def _named_entry(content: Mapping, entry: str, path: Path) -> State:
    value = node_at(content, entry)
    state = _flat(value) if isinstance(value, Mapping) else {}
    if not state:
        nested = [one_line(str(key)) for key, value in content.items() if isinstance(value, Mapping) and _flat(value)]
        raise CheckpointError(
            f"'{path}' has no named tensors in an entry '{entry}'; entries with tensors: {', '.join(nested) or 'none'}"
        )
    return state


def _flat(content: Mapping) -> State:
    """Return tensors at any depth, named by the path of their keys."""
    state: State = {}
    for name, value in content.items():
        if isinstance(value, Tensor):
            state[_plain_name(str(name))] = value
        elif isinstance(value, Mapping):
            state |= {f"{name}.{inner}": tensor for inner, tensor in _flat(value).items()}
    return state


def _plain_name(name: str) -> str:
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return ".".join(part for part in name.split(".") if part != "_orig_mod")
