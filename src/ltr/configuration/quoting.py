"""Quoting of texts as values of overrides, so that Hydra and the shell leave them unchanged."""

from __future__ import annotations

import re
import shlex

_KEY = re.compile(r"[+~]*[A-Za-z_][\w./@:-]*")
_PLAIN = re.compile(r"[\w./~@%+-]+")
# special characters of bash within double quotes; "!" in an interactive shell
_IN_DOUBLE_QUOTES = re.compile(r"[\"$`\\!\n\r\t]")


def quoted(text: str) -> str:
    """Quote ``text`` for Hydra's grammar: single quotes, with interpolations escaped for OmegaConf."""
    escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    # Hydra keeps backslashes unless a quote follows
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", escaped)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


def as_typed(key: str, text: str) -> str:
    """Return the override ``key=text`` as typed in a shell, where ``text`` holds special characters."""
    argument = f"{key}={quoted(text)}"
    return shlex.quote(argument) if _IN_DOUBLE_QUOTES.search(argument) else f'"{argument}"'


def typed(key: str, text: str) -> str:
    """Return the override ``key=text`` as typed in a shell, quoted only if ``text`` needs it."""
    return f"{key}={text}" if _PLAIN.fullmatch(text) else as_typed(key, text)


def quoting_hint(override: str) -> str:
    """Return the end of a sentence that quotes an override which cannot be read, or ''."""
    key, equals, value = override.partition("=")
    if not equals or not value or not _KEY.fullmatch(key):
        return ""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    return f". If the value is a text, such as a path, type {as_typed(key, value)}"
