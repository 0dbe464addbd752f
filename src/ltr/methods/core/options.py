"""Declarations of options: name, type, range, default and meaning of each option in one place.

A method's options are a frozen dataclass with a docstring under each field:

    class M2mOptions(Options):
        beta: Annotated[float, "[0, 1)"] = 0.999
        \"\"\"Base of the acceptance probability 1 - beta^gap.\"\"\"

The method's constructor (`ltr.methods.core.stage.Method`), the rules that check configs (`ltr.configuration.rules`),
the options in a stage's key and in checkpoints, and the table of options in the docs all come from it. Declarations are
in modules called ``options``, which import nothing heavy, because configs are checked before torch is imported.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, dataclass_transform, get_type_hints

from ltr.configuration.allowed import as_text, find_problem
from ltr.configuration.annotations import rule_of
from ltr.configuration.declarations import fields_of
from ltr.errors import ConfigError
from ltr.methods.core.used_if import check_conditions, holds


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Options(Mapping[str, Any]):
    """Base class for declarations of options; a subclass is a frozen dataclass and a mapping of its fields.

    Rules follow from types, see `ltr.configuration.annotations.rule_of`. A wrong ``used_if`` is an error of the class
    statement.

    Attributes:
        used_if: options that are read only under a condition, see `ltr.methods.core.used_if`: an argument of the class
            statement, to which those of the base classes are added.

    Raises:
        ConfigError: lists each value outside its range or choices.
    """

    used_if: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, used_if: Mapping[str, str] | None = None) -> None:
        of_bases = {key: value for base in cls.__bases__ for key, value in getattr(base, "used_if", {}).items()}
        cls.used_if = {**of_bases, **(used_if or {})}
        dataclasses.dataclass(frozen=True, kw_only=True, eq=False)(cls)
        check_conditions(cls.__name__, cls.used_if, _names(cls))

    def __post_init__(self) -> None:
        rules = self.rules()
        reasons = {name: find_problem(self[name], rule) for name, rule in rules.items()}
        mistakes = [f"method.{name}={as_text(self[name])}: {reason}" for name, reason in reasons.items() if reason]
        for name, declaration in _nested(type(self)).items():
            values = self[name] if isinstance(self[name], Mapping) else {}
            for key, rule in declaration.rules().items():
                if key in values and (reason := find_problem(values[key], rule)):
                    mistakes.append(f"method.{name}.{key}={as_text(values[key])}: {reason}")
        if mistakes:
            raise ConfigError("\n  ".join(mistakes))

    def __getitem__(self, name: str) -> Any:
        if name not in _names(type(self)):
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(_names(type(self)))

    def __len__(self) -> int:
        return len(_names(type(self)))

    @classmethod
    def rules(cls) -> Mapping[str, str | list]:
        """Return the rule of each field, in the syntax of `ltr.configuration.allowed`."""
        return _rules_of_type(cls)

    @classmethod
    def changed(cls, values: Mapping[str, Any]) -> list[str]:
        """Return the names of the options that differ from their defaults; those without a default do not count."""
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        return [name for name, default in defaults.items()
                if default is not dataclasses.MISSING and values[name] != default]  # fmt: skip

    def unread(self) -> dict[str, str]:
        """Return the options that the method does not read at these values of the others, with their conditions."""
        return {name: condition for name, condition in self.used_if.items() if not holds(condition, self)}

    def part(self, declaration: type[Options]) -> dict[str, Any]:
        """Return the values of the fields of another declaration, usually a base class."""
        return {name: self[name] for name in _names(declaration)}


@functools.cache
def _names(declaration: type[Options]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(declaration))  # type: ignore[arg-type]


@functools.cache
def _nested(declaration: type[Options]) -> dict[str, type[Options]]:
    hints = get_type_hints(declaration)
    return {name: hints[name] for name in _names(declaration) if isinstance(hints[name], type)
            and issubclass(hints[name], Options)}  # fmt: skip


@functools.cache
def _rules_of_type(declaration: type[Options]) -> dict[str, str | list]:
    hints = get_type_hints(declaration, include_extras=True)
    rules = {name: rule_of(hints[name]) for name in _names(declaration)}
    return {name: rule for name, rule in rules.items() if rule is not None}


class StageOptions(Options):
    """Settings of a stage other than the main one, ``method.<stage>``."""

    sampler: Mapping[str, Any]
    """Its sampler."""
    loss: Mapping[str, Any]
    """Its loss."""
    optimizer: Mapping[str, Any]
    """Its optimiser."""
    scheduler: Mapping[str, Any]
    """Its schedule."""
    epochs: Annotated[int, "[1, inf)"] = 10
    """Its length."""
    selection: Literal["last", "best_val", "best_test"] = "last"
    """The checkpoint that later stages use."""


def signature_of(declaration: type[Options]) -> inspect.Signature:
    """Return the signature of a function with the declaration's fields as keyword arguments."""
    hints = get_type_hints(declaration)
    return inspect.Signature(
        [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default,
                annotation=hints[field.name],
            )
            for field in dataclasses.fields(declaration)  # type: ignore[arg-type]
        ]
    )


def meanings_of(declaration: type[Options]) -> dict[str, str]:
    """Return the docstring of each field of a declaration of ltr, joined to one line."""
    fields = fields_of(f"{declaration.__module__}.{declaration.__qualname__}")
    return {name: option.meaning for name, option in fields.items() if option.meaning}


def table_of(declaration: type[Options]) -> str:
    """Return the options of a declaration as a Markdown table: name, default, allowed values, meaning."""
    rules, meanings = declaration.rules(), meanings_of(declaration)
    lines = ["| option | default | allowed | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(declaration):  # type: ignore[arg-type]
        rule = rules.get(field.name, "")
        allowed = " ".join(f"`{as_text(choice)}`" for choice in rule) if isinstance(rule, list) else rule
        default = "of the config" if field.default is dataclasses.MISSING else f"`{as_text(field.default)}`"
        lines.append(f"| `{field.name}` | {default} | {allowed} | {meanings.get(field.name, '')} |")
    return "\n".join(lines)
