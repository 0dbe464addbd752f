"""Refusal of outputs that would replace an input of the command, or a file of a finished run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ltr.errors import ConfigError

_TYPED = "typed_flags"  # of `ltr.commands.arguments.parse_arguments`, which holds names and no values
# files of a run that other commands read; the predictions and reports that a command writes there do not belong to them
_OF_RUN = {"config.yaml", "overrides.yaml", "split.npz", "metrics.csv", "provenance.json", "status.json"}
_OF_RUN |= {"result.json", "decisions.json", "predictions.parquet", "per_class.parquet", "curve.csv"}
_FOLDERS_OF_RUN = ("checkpoints", "artifacts")


def refuse_inputs(outputs: Mapping[Path, str], *inputs: Any) -> None:
    """Refuse outputs that are the same file as an input, through links too, or a file of a finished run.

    Args:
        outputs: files to write, and the argument that chose each, such as ``--out table.csv``.
        inputs: arguments and configs of the command, see `existing_files`.

    Raises:
        ConfigError: names the output and the input.
    """
    existing = {path: typed for path, typed in outputs.items() if os.path.exists(path)}
    if not existing:
        return
    for path, typed in existing.items():
        shown = typed if str(path) in typed else f"{typed}: {path}"
        for file in existing_files(inputs):
            if os.path.samefile(path, file):
                link = "" if str(file) in shown else f" is {file}"
                raise ConfigError(f"{shown}{link}: the command reads this file, and it would be replaced. Name another")
        if is_of_run(path):
            raise ConfigError(f"{shown} is a file of a finished run, and would be replaced. Name another")


def is_of_run(path: Path) -> bool:
    """Return whether a path is a file that a run wrote and that reports or evaluations read."""
    real = Path(os.path.realpath(path))
    if real.parent.name in _FOLDERS_OF_RUN:
        return (real.parent.parent / "config.yaml").is_file()
    return real.name in _OF_RUN and any((real.parent / name).is_file() for name in ("result.json", "config.yaml"))


def existing_files(value: Any, folders: Sequence[Path] = (Path(),)) -> Iterator[Path]:
    """Yield the existing files that the texts and paths of arguments and configs name, of ``key=FILE`` the file.

    Args:
        value: texts, paths, namespaces, mappings and sequences, nested as they are.
        folders: folders from which relative paths start; a mapping's ``root`` is a further one.
    """
    if isinstance(value, (str, Path)):
        texts = dict.fromkeys((str(value), str(value).partition("=")[2], str(value).rpartition("=")[2]))
        for text in filter(None, texts):
            for folder in folders:
                path = folder / os.path.expanduser(text)
                if "\0" not in text and os.path.isfile(path):
                    yield path
    elif isinstance(value, Mapping):
        root = value.get("root")
        inside = (*folders, Path(root)) if isinstance(root, str) and root else folders
        for one in value.values():
            yield from existing_files(one, inside)
    elif isinstance(value, Iterable) and not isinstance(value, bytes):
        for one in value:
            yield from existing_files(one, folders)
    elif hasattr(value, "__dict__"):  # a namespace
        yield from existing_files({name: one for name, one in vars(value).items() if name != _TYPED}, folders)


def read_arguments(arguments: Any, *written: str) -> dict[str, Any]:
    """Return the arguments of a command without those that name outputs."""
    return {name: value for name, value in vars(arguments).items() if name not in (*written, _TYPED)}
