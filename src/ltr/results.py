"""Schema of ``result.json``, which is checked once on reading."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ltr import files
from ltr.errors import DataError
from ltr.identity import flat_config_of_today

SCHEMA_VERSION = 1  # the newest layout that this version reads and writes
AGAIN = (
    "Move the run's result.json elsewhere and repeat the run's command, which writes the files again, without training "
    "if the stages are cached."
)

_LARGEST = 1e15  # of counts and amounts
_LARGEST_NUMBER = 1e300  # larger integers overflow in arithmetic with floats
_NAME = re.compile(r"[^\W\d][\w .=+,:-]{0,99}")  # of protocols, variants, scorers and splits, which name files
_SHOWN = 3  # at most this many mistakes are listed

Check = Callable[[Any], bool]


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        DataError: the file cannot be read or is not JSON.
    """
    if os.path.lexists(path) and not files.is_regular(path):  # reading a pipe could block
        raise DataError(f"{path} is not a regular file. {AGAIN}")
    try:
        return files.read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}). {AGAIN}") from error


def read_result_file(path: Path) -> dict[str, Any]:
    """Return the checked content of a ``result.json``; keys that older versions did not write have their defaults.

    Raises:
        DataError: the file cannot be read, or a value is not what runs write.
    """
    result = read_json(path)
    version = result.get("schema_version") if isinstance(result, dict) else None
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise DataError(f"{path} is not a result of ltr: it has no schema_version. {AGAIN}")
    if version > SCHEMA_VERSION:
        raise DataError(
            f"{path} has layout {version}, and this version of ltr reads up to {SCHEMA_VERSION}. Install a newer ltr."
        )
    lacking = [key for key in ("config", "rows") if not result.get(key)]
    if lacking:
        raise DataError(f"{path} lacks {', '.join(lacking)}. {AGAIN}")
    if mistakes := _mistakes(result):
        more = f" and {len(mistakes) - _SHOWN:,} more" if len(mistakes) > _SHOWN else ""
        raise DataError(f"{path} is damaged: {'; '.join(mistakes[:_SHOWN])}{more}. {AGAIN}")
    return _completed(result)


# -- allowed values ----------------------------------------------------------------------------------------------


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_whole(value) and 0 <= value <= _LARGEST


def _is_amount(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= _LARGEST


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_name(value: Any) -> bool:
    """Return whether a value is a name that may be a part of a file name."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None and ".." not in value


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_digests(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _is_amounts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_amount, value.values()))


def _is_unit(value: Any) -> bool:
    return value in ("fraction", "number")


def _is_direction(value: Any) -> bool:
    return value in ("higher", "lower", "neither")


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


_is_seconds = _or_none(_is_amount)


def _is_metric(value: Any) -> bool:
    return value is None or (_is_number(value) and not _LARGEST < abs(value) < math.inf)  # for finite squares


# for messages
_WORDS: dict[Check, str] = {
    _is_metric: f"a number up to {_LARGEST:g} or null",
    _is_count: "a whole number, 0 or more",
    _is_amount: "a number, 0 or more",
    _is_seconds: "seconds or null",
    _is_text: "text",
    is_name: "a name",
    _is_flag: "true or false",
    _is_texts: "a list of texts",
    _is_digests: "digests by key",
    _is_amounts: "amounts by name",
    _is_unit: "fraction or number",
    _is_direction: "higher, lower or neither",
}

_METRIC: dict[str, Check] = {
    **dict.fromkeys(("name", "protocol"), is_name),
    **dict.fromkeys(("heading", "title"), _is_text),
    "unit": _is_unit,
    "better": _is_direction,
    "shown": _is_texts,
}
_ROW: dict[str, Check] = {
    "protocol": is_name,
    "split": is_name,
    "selection": is_name,
    "headline": _is_flag,
    "metrics": lambda value: isinstance(value, dict),
}
_ROW_DEFAULTS: dict[str, tuple[Check, Any]] = {
    "checkpoint": (_or_none(is_name), "final"),
    "variant": (is_name, "default"),
    "scorer": (_or_none(is_name), None),
}
_IDENTITY_OF_ROW = {
    **dict.fromkeys(("protocol", "split", "selection")),
    **{key: default for key, (_, default) in _ROW_DEFAULTS.items()},
}
_STAGE: dict[str, Check] = {"name": _is_text, "status": _is_text, "seconds": _is_seconds}
_STAGE_OPTIONAL: dict[str, Check] = {"incidents": _is_amounts}
_DATA: dict[str, Check] = {
    "split": _is_text,
    "split_digest": _is_text,
    "val_rule": _or_none(_is_text),
    "fingerprint": _or_none(_is_text),
    "files": _is_digests,
    "metadata": _is_digests,
}
# the settings that reports use; all others are only shown
_CONFIG: dict[str, Check] = {
    "seed": _is_whole,
    "data.fingerprint": _is_text,
    "name": lambda value: isinstance(value, (str, int, float)),  # name=1 is a number
    "dataset.name": _is_text,
    "method.name": _is_text,
    "trainer.max_epochs": _is_count,
    "trainer.limit_train_batches": _or_none(_is_amount),
    "batch_size": _is_count,
    "sampler.num_samples": _or_none(_is_amount),
    "sampler.batches": _or_none(_is_amount),
    "evaluation.calibration_bins": _is_count,
    "evaluation.many_above": _is_amount,
    "evaluation.few_below": _is_amount,
}
_TOP: dict[str, Check] = {
    **dict.fromkeys(("metric", "run_hash", "group_hash"), _is_text),
    "precision": _or_none(_is_text),
}


def _mistakes(result: Mapping[str, Any]) -> list[str]:
    """Return messages about values that are not what runs write; empty for a good result."""
    config, rows, data, stages = result["config"], result["rows"], result.get("data", {}), result.get("stages", [])
    declared = result.get("declared_metrics", [])
    mappings, lists = {"config": config, "data": data}, {"rows": rows, "stages": stages, "declared_metrics": declared}
    wrong = [f"{key} is not a mapping" for key, value in mappings.items() if not isinstance(value, dict)]
    wrong += [f"{key} is not a list" for key, value in lists.items() if not isinstance(value, list)]
    if wrong:
        return wrong
    if too_large := next(_too_large(result, ""), None):
        return [f"{too_large} is a number that is too large"]
    wrong += _wrong(result, _TOP, "")
    targets = dict.fromkeys((key for key in config if key.endswith("_target_")), _is_text)
    wrong += _wrong(config, {**targets, **_CONFIG}, "config.")
    counts: dict[str, Check] = dict.fromkeys(("classes", *(key for key in data if key.endswith("_images"))), _is_count)
    if "trained_on_images" in counts:  # null for networks with unknown training images
        counts["trained_on_images"] = _or_none(_is_count)
    wrong += _wrong(data, {**_DATA, **counts}, "data.")
    for index, metric in enumerate(declared):
        wrong += _of_mapping(metric, _METRIC, {}, f"declared_metrics[{index}]")
    for index, stage in enumerate(stages):
        wrong += _of_mapping(stage, _STAGE, _STAGE_OPTIONAL, f"stages[{index}]")
    optional = {key: check for key, (check, _) in _ROW_DEFAULTS.items()}
    for index, row in enumerate(rows):
        mistakes = _of_mapping(row, _ROW, optional, f"rows[{index}]")
        if not mistakes and not row["metrics"]:
            mistakes = [f"rows[{index}] has no metrics"]
        elif not mistakes:
            mistakes = _wrong(row["metrics"], dict.fromkeys(row["metrics"], _is_metric), f"rows[{index}].metrics.")
        wrong += mistakes
    return wrong or _repeated_rows(rows)


def _repeated_rows(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return messages about rows that another row has measured: of one split, protocol, checkpoint, variant, scorer."""
    first: dict[tuple[Any, ...], int] = {}
    wrong = []
    for index, row in enumerate(rows):
        what = tuple(row.get(key, default) for key, default in _IDENTITY_OF_ROW.items())
        if (earlier := first.setdefault(what, index)) != index:
            wrong.append(f"rows[{index}] is a second row of what rows[{earlier}] measures")
    return wrong


def provenance_mistakes(content: Any) -> list[str]:
    """Return messages about values of a ``provenance.json`` that are not what runs write; empty for a good one."""
    if not isinstance(content, dict) or not isinstance(content.get("code", {}), dict):
        return ["it is not a mapping, or its code is not"]
    wrong = _wrong(content, dict.fromkeys(("device", "precision"), _or_none(_is_text)), "")
    return wrong + _wrong(content.get("code", {}), {"commit": _or_none(_is_text), "dirty": _or_none(_is_flag)}, "code.")


def _of_mapping(node: Any, needed: Mapping[str, Check], optional: Mapping[str, Check], where: str) -> list[str]:
    """Return messages about missing keys and wrong values of a mapping."""
    if not isinstance(node, dict):
        return [f"{where} is not a mapping"]
    lacking = [f"{where} lacks {key}" for key in needed if key not in node]
    return lacking + _wrong(node, {**needed, **optional}, f"{where}.")


def _wrong(node: Mapping[str, Any], checks: Mapping[str, Check], where: str) -> list[str]:
    """Return messages about the values of ``node`` that fail their check; missing keys do not count."""
    mistakes = []
    for key, check in checks.items():
        if key in node and not check(node[key]):
            expected = f", which is not {_WORDS[check]}" if check in _WORDS else ""
            mistakes.append(f"{where}{key} is {_short(node[key])}{expected}")
    return mistakes


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _too_large(node: Any, where: str) -> Iterator[str]:
    """Yield the keys of integers that are too large for arithmetic with floats."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _too_large(value, f"{where}.{key}" if where else str(key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _too_large(value, f"{where}[{index}]")
    elif isinstance(node, int) and abs(node) > _LARGEST_NUMBER:
        yield where


def _completed(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result with the defaults of missing keys, and with today's keys of its configuration."""
    row_defaults = {key: value for key, (_, value) in _ROW_DEFAULTS.items()}
    rows = [{**row_defaults, **row} for row in result["rows"]]
    defaults: dict[str, Any] = {"data": {}, "stages": [], "declared_metrics": []}
    return {**defaults, **result, "config": flat_config_of_today(result["config"]), "rows": rows}
