"""Levels of ``ltr-eval --decide``, for all classes and for single classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ltr.data.tables import read_columns
from ltr.errors import ConfigError, DataError, nearest
from ltr.escaping import csv_text

RULES = ("precision", "recall", "coverage")  # of thresholds, and of conformal sets
_SHOWN = 10


@dataclass
class Levels:
    """Levels of a rule.

    Attributes:
        common: level of all classes that are not in ``by_class``; None without one.
        by_class: levels of single classes, by name.
        named_in: argument or table line that gives each level of ``by_class``, for messages.
    """

    common: float | None = None
    by_class: dict[str, float] = field(default_factory=dict)
    named_in: dict[str, str] = field(default_factory=dict)

    def array(self, rule: str, class_names: Sequence[str]) -> np.ndarray:
        """Return the level of each class, float64 [C].

        Raises:
            ConfigError: a name is not a class, or a class has no level.
        """
        known = set(class_names)
        unknown = [name for name in self.by_class if name not in known]
        if unknown:
            more = f" ({len(unknown) - 1:,} more are unknown)" if len(unknown) > 1 else ""
            raise ConfigError(
                f"{self.named_in[unknown[0]]}: {unknown[0]!r} is not a class of the run{more}; its classes are "
                f"{_shown(class_names)}{nearest(unknown[0], class_names)}"
            )
        lacking = [name for name in class_names if name not in self.by_class]
        if self.common is None and lacking:
            raise ConfigError(
                f"--decide {rule}: classes without a level: {_shown(lacking)}. Add the level of all other classes: "
                f"--decide {rule}=0.9"
            )
        return np.array([self.by_class.get(name, self.common) for name in class_names], dtype=np.float64)


def read_rules(texts: Sequence[str]) -> dict[str, Levels]:
    """Return the levels of each rule of ``--decide``.

    A text is ``RULE=LEVEL`` for all classes, ``RULE:CLASS=LEVEL`` for one class, or ``RULE=FILE.csv`` for a table with
    the columns ``class`` and ``level``.

    Raises:
        ConfigError: an unknown rule, a level outside (0, 1), or two levels for the same classes.
        DataError: the table cannot be read.
    """
    rules: dict[str, Levels] = {}
    for text in texts:
        key, _, value = text.partition("=")
        rule, colon, class_name = key.partition(":")
        if colon:  # the name of a class may hold "="
            key, _, value = text.rpartition("=")
            class_name = key.partition(":")[2]
        if rule not in RULES:
            raise ConfigError(
                f"--decide {text}: allowed are {', '.join(f'{one}=LEVEL' for one in RULES)}{nearest(rule, RULES)}"
            )
        if rule != "coverage" and (set(rules) - {rule}) & {"precision", "recall"}:
            raise ConfigError(
                f"--decide {text}: precision and recall cannot both choose the thresholds. Leave one of them out; "
                "coverage combines with either"
            )
        levels = rules.setdefault(rule, Levels())
        argument = f"--decide {text}"
        if colon:
            _add(levels, class_name, value, argument)
        elif value.lower().endswith(".csv"):
            _add_table(levels, Path(value), argument)
        elif levels.common is not None:
            raise ConfigError(f"{argument}: a level of {rule} for all classes is given twice. Give it once")
        else:
            levels.common = _level(value, argument)
    return rules


def _add_table(levels: Levels, file: Path, argument: str) -> None:
    if not file.is_file():
        raise DataError(f"{argument}: there is no file {file}. Give a table with the columns class and level")
    table = read_columns(file, ("class", "level"))
    for row, (class_name, value) in enumerate(zip(table.texts["class"], table.texts["level"])):
        _add(levels, csv_text(class_name), value, f"{file}, {table.where(row)}")


def _add(levels: Levels, class_name: str, value: str, where: str) -> None:
    if class_name in levels.by_class:
        raise ConfigError(
            f"{where}: {levels.named_in[class_name]} also gives the level of the class {class_name!r}. Give it once"
        )
    levels.by_class[class_name] = _level(value, where)
    levels.named_in[class_name] = where


def _level(text: str, where: str) -> float:
    try:
        level = float(text)
    except ValueError:
        level = math.nan
    if not 0 < level < 1:
        raise ConfigError(
            f"{where}: the level {text!r} is not allowed; levels are greater than 0 and less than 1. Try 0.9"
        )
    return level


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
