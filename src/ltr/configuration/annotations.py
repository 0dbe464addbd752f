"""Types of options and the rules that follow from them."""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin


def rule_of(hint: Any) -> str | list | None:
    """Return the rule of a type in the grammar of `ltr.configuration.allowed`; None if any value of the type fits.

    Types are those of YAML: ``bool``, ``Literal`` for choices, ``Annotated[float, "[0, 1)"]`` for ranges; ``int``,
    ``None`` and literals in a union with a number follow from the type, and ``Sequence`` of a type with a rule is a
    list.
    """
    if hint is bool:
        return [True, False]
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    ranges = [member for member in members if get_origin(member) is Annotated]
    lists = [member for member in members if _is_list(member)]
    words = ["null" if member is types.NoneType else get_args(member)[0] for member in members if _is_word(member)]
    if len(ranges) == 1 and len(ranges) + len(lists) + len(words) == len(members):
        rule = _range(ranges[0]) + "".join(f" or {word}" for word in words)
        return " or ".join([rule, *(f"list of {rule_of(_item(one))}" for one in lists)])
    if len(members) == 1 and lists:
        of_each = rule_of(_item(lists[0]))
        return None if of_each is None else [of_each] if isinstance(of_each, list) else f"list of {of_each}"
    choices = [get_args(member) for member in members if get_origin(member) is Literal]
    if choices and all(member is types.NoneType or get_origin(member) is Literal for member in members):
        return [*([None] if types.NoneType in members else []), *(choice for group in choices for choice in group)]
    return None


def _range(hint: Any) -> str:
    kind, interval = get_args(hint)[:2]
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    words = ["null" if part is types.NoneType else get_args(part)[0] for part in kinds if part not in (int, float)]
    return f"{'int ' if int in kinds else ''}{interval}{''.join(f' or {word}' for word in words)}"


def _is_word(hint: Any) -> bool:
    return hint is types.NoneType or (get_origin(hint) is Literal and len(get_args(hint)) == 1)


def _is_list(hint: Any) -> bool:
    origin = get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, Sequence) and rule_of(_item(hint)) is not None


def _item(hint: Any) -> Any:
    return get_args(hint)[0]


def in_words(hint: Any) -> str:
    """Return a type in words: ``a list of numbers or null``."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(in_words(one) for one in inner))
    if origin is Annotated:
        return in_words(inner[0])
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    names = {None: "null", type(None): "null", bool: "true or false", int: "a whole number", float: "a number",
             str: "a text"}  # fmt: skip
    container = origin or hint
    if hint in names:
        return names[hint]
    if inspect.isclass(container) and issubclass(container, Sequence):
        plural = {float: " of numbers", int: " of whole numbers", str: " of texts"}
        of_each = [get_args(one)[0] if get_origin(one) is Annotated else one for one in inner[:1]]
        return "a list" + "".join(plural.get(one, "") for one in of_each)
    return "a group of keys" if inspect.isclass(container) and issubclass(container, Mapping) else str(hint)
