"""Checks of the description in a checkpoint, before a network is built from it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ltr.errors import CheckpointError
from ltr.identity import options_of_today, path_of, with_paths
from ltr.methods.core.settings import DatasetInfo, Settings

_MAX_CLASSES = 10_000_000
_MAX_SIDE = 1 << 16  # pixels

Check = tuple[Callable[[Any], bool], str]  # a test of the value, and the allowed values in words


def _is_whole(least: int, most: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_list_of(check: Callable[[Any], bool], least: int = 0) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(check, value))


def _or_null(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_MAPPING: Check = (lambda value: isinstance(value, Mapping), "a mapping")
_TEXT: Check = (lambda value: isinstance(value, str) and 0 < len(value) < 1000, "a text")
_SIDE = _is_whole(1, _MAX_SIDE)
_CONFIG_OR_NULL: Check = (_or_null(_MAPPING[0]), "a mapping or null")

_TOP: dict[str, Check] = {
    "module": _TEXT,
    "settings": _MAPPING,
    "facts": _MAPPING,
    "seed": (_is_whole(0), "a whole number of at least 0"),
    "role": _TEXT,
    "options": _MAPPING,
    "dataset": _MAPPING,
}
_SETTINGS: dict[str, Check] = {
    **dict.fromkeys(("sampler", "loss", "augment", "head", "backbone", "optimizer", "scheduler"), _MAPPING),
    "epochs": (_is_whole(0), "a whole number of at least 0"),
    "batch_size": (_is_whole(0), "a whole number of at least 0"),
    "precision": (_is_text, "a text"),
    "selection": (_is_text, "a text"),
    "accumulate": (_is_whole(1), "a whole number of at least 1"),
    "gradient_clip": (_or_null(_is_number), "a number or null"),
    "ema_decay": (_or_null(_is_number), "a number or null"),
    "ema_warmup": (lambda value: isinstance(value, bool), "true or false"),
    "limit_train_batches": (_or_null(_is_whole(1)), "a whole number of at least 1, or null"),
    **dict.fromkeys(("extras", "views"), (_is_list_of(_MAPPING[0]), "a list of mappings")),
    **dict.fromkeys(("tune", "features", "sharpness"), _CONFIG_OR_NULL),
}
_DATASET_INFO: dict[str, Check] = {
    "image_shape": (lambda value: _is_list_of(_SIDE)(value) and len(value) == 3, "three whole numbers of at least 1"),
    "mean": (_is_list_of(_is_number, 1), "a list of numbers"),
    "std": (_is_list_of(lambda value: _is_number(value) and value > 0, 1), "a list of numbers above 0"),
    "class_names": (_is_list_of(_is_text, 1), "a list of texts"),
    "class_counts": (_is_list_of(_is_whole(0), 1), "a list of whole numbers of at least 0"),
    "image_resize": (
        _or_null(lambda value: _SIDE(value) or (_is_list_of(_SIDE)(value) and len(value) == 2)),
        "a side in pixels, two of them, or null",
    ),
    "protocols": (_is_list_of(_is_text, 1), "a list of texts"),
    "background": (_or_null(_is_whole(0)), "a class or null"),
    "matte": (
        _or_null(lambda value: _is_list_of(_is_whole(0, 255))(value) and len(value) == 3),
        "three whole numbers from 0 to 255, or null",
    ),
    "interpolation": (lambda value: value in (None, "bilinear", "bicubic"), "bilinear, bicubic or null"),
    "cut_by_box": (lambda value: value is None or isinstance(value, bool), "true, false or null"),
    "white_level": (_or_null(_is_whole(1, 65_535)), "a whole number from 1 to 65535, or null"),
}
# entries of the data set's config that resizing reads; the other entries are checked like those of a run's config
_DATASET: dict[str, Check] = {
    "name": _TEXT,
    "source": _MAPPING,
    "image_size": (_or_null(_SIDE), "a side in pixels or null"),
    "image_resize": _DATASET_INFO["image_resize"],
    "interpolation": _DATASET_INFO["interpolation"],
    "mean": _DATASET_INFO["mean"],
    "std": _DATASET_INFO["std"],
}


def read_description(text: Any, path: Path) -> dict[str, Any]:
    """Parse and check the description of a checkpoint.

    Raises:
        CheckpointError: an entry is missing or invalid.
    """
    if not isinstance(text, str):
        raise CheckpointError(f"{path}: damaged: its description is {_shown(text)}, not JSON text")
    try:
        description = with_paths(json.loads(text))
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else f"no JSON: {error}"
        raise CheckpointError(f"{path}: damaged: its description cannot be read ({reason})") from None
    if not isinstance(description, dict):
        raise CheckpointError(f"{path}: damaged: its description is {_shown(description)}, not a mapping")
    if isinstance(description.get("module"), str):
        description = {**description, "module": path_of(description["module"])}
        if isinstance(description.get("options"), dict):
            description["options"] = options_of_today(description["module"], description["options"])
    check_description(description, path)
    return description


def check_description(description: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError if an entry of a description is missing or has an invalid value."""
    _check(description, _TOP, "", path, required=tuple(_TOP), closed=False)
    _check(description["settings"], _SETTINGS, "settings.", path, required=_required(Settings))
    _check(description["dataset"], _DATASET, "dataset.", path, required=(), closed=False)
    dataset_info = description["facts"]
    _check(dataset_info, _DATASET_INFO, "facts.", path, required=_required(DatasetInfo))
    channels, classes = dataset_info["image_shape"][0], len(dataset_info["class_names"])
    for name, length, field in (
        ("mean", channels, "image_shape"),
        ("std", channels, "image_shape"),
        ("class_counts", classes, "class_names"),
    ):
        if len(dataset_info[name]) != length:
            raise _wrong(
                path, f"facts.{name} has {len(dataset_info[name])} numbers, and facts.{field} asks for {length}"
            )
    if classes > _MAX_CLASSES:
        raise _wrong(path, f"facts.class_names has {classes} names, and at most {_MAX_CLASSES} are allowed")
    if (dataset_info.get("background") or 0) >= classes:
        raise _wrong(path, f"facts.background={dataset_info.get('background')} is none of its {classes} classes")
    for name in ("head", "backbone", "loss"):
        target = description["settings"][name].get("_target_")
        if not isinstance(target, str):
            raise _wrong(path, f"settings.{name}._target_ is {_shown(target)}, not a text")


def _required(declaration: type) -> tuple[str, ...]:
    """Return the names of a dataclass's fields without default."""
    return tuple(field.name for field in dataclasses.fields(declaration) if field.default is dataclasses.MISSING)


def _check(
    values: Mapping[str, Any],
    checks: Mapping[str, Check],
    where: str,
    path: Path,
    *,
    required: Sequence[str],
    closed: bool = True,
) -> None:
    for name in required:
        if name not in values:
            raise _wrong(path, f"{where}{name} is missing")
    for name, value in values.items():
        if name not in checks:
            if closed:
                raise _wrong(path, f"{where}{str(name)[:60]} is not an entry of it")
            continue
        is_allowed, allowed = checks[name]
        if not is_allowed(value):
            raise _wrong(path, f"{where}{name} is {_shown(value)}, and must be {allowed}")


def _wrong(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path}: its description of the network is damaged, or of another version of ltr: {reason}")


def _shown(value: Any) -> str:
    """Return the repr of a value, shortened to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
