"""Parsing of overrides (``key=value``) with Hydra's grammar."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep

from ltr.configuration import removed
from ltr.configuration.configs import config_names
from ltr.configuration.quoting import quoting_hint
from ltr.configuration.unknown_configs import MIXED_UP

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


def parse(overrides: Iterable[str]) -> tuple[list[Parsed], list[str]]:
    """Parse overrides; return them and a message for each that cannot be parsed."""
    parser = OverridesParser.create()
    parsed, mistakes = [], []
    for text in overrides:
        try:
            override = parser.parse_override(text)
            if not override.key_or_group:
                raise ValueError("the key is missing")
            # evaluates the values of a sweep, which may raise
            values = _values_of(override)
            parsed.append(Parsed(text, override, values))
        except Exception as error:  # Hydra's grammar raises many types of exceptions
            hint = "" if "=" in text.strip("=") else _bare_word_hint(text)
            reason = f" ({in_short(error)})" if "=" in text else ""
            mistakes.append(f"{text or repr(text)}: not an override{hint}{reason}{quoting_hint(text)}")
    return parsed, mistakes


def _bare_word_hint(text: str) -> str:
    """Return the hint for a word without '=': the choices that have this name, or the help."""
    if text in ("help", "list", "version"):
        return f"; write ltr-train --{'version' if text == 'version' else 'help'}"
    choices = [f"{text}={name}" for name in config_names(text)[:1]] if text.isidentifier() else []
    choices += [f"{group}={text}" for group in MIXED_UP if text in config_names(group)]
    return f"; an override is written key=value{f', such as {choices[0]}' if choices else ''}"


def _values_of(override: Override) -> list[Any]:
    """Return the values of an override; both ends of an interval, or the pattern of a glob."""
    if isinstance(override.value(), Glob):
        return [override.value()]
    if override.is_discrete_sweep():
        return list(override.sweep_iterator())
    if override.is_interval_sweep():
        interval = override.value()
        assert isinstance(interval, IntervalSweep)
        return [interval.start, interval.end]
    return [override.value()]


@dataclass(frozen=True)
class Parsed:
    """Parsed override: its text, Hydra's object, and its values (several in a sweep)."""

    text: str
    override: Override
    values: list[Any]

    @property
    def key(self) -> str:
        return self.override.key_or_group

    @property
    def before(self) -> str:
        """Text before the value, ``method=`` or ``+sampler@method.sampler=``."""
        return self.text[: self.text.index("=") + 1]

    @property
    def is_sweep(self) -> bool:
        return self.override.is_sweep_override()

    @property
    def adds(self) -> bool:
        return self.override.is_add() or self.override.is_force_add()


# replacements for Hydra's advice, which is wrong on a command line
_WORDS = (
    (
        r".*Could not override 'recipe/shared'\..*",
        "the primary config has no place for the recipe that the data set chooses. Add '- recipe/shared: null' to its "
        "defaults list, before the data set",
    ),
    (
        r"Could not override '[\w/]+@(?:experiment|sweep|debug|recipe)\.[^']*'\..*",
        "the config lies at the key of its group, not at the top level. Write '# @package _global_' as its first line",
    ),
    (
        r"Could not override '([\w/]+)'\. No match in the defaults list\.?",
        r"the defaults list has no '\1' to override. `ltr-train --help` lists the groups; an experiment is chosen as "
        "experiment=NAME, not by --config-name",
    ),
    (
        r"Could not load '([\w/]+)'\.?.*",
        r"there is no config '\1', neither a shipped one nor in the folder of --config-dir. Correct its name",
    ),
    (
        r"Cannot find primary config '([^']+)'\..*",
        r"there is no primary config '\1'. A config of a group is chosen as GROUP=NAME, such as experiment=\1",
    ),
    (
        r"Could not override '([\w/]+@[^']+)'\..*",
        r"no config of this group is chosen at \1. A nested one is chosen by its key, e.g. "
        "method.classifier.optimizer=NAME with method=crt",
    ),
    (
        r"Multiple values for ([^ ]+)\. .*",
        r"a config is chosen there already. Write it without '+', in a defaults list as '- override /\1: NAME'",
    ),
    (
        r"Error in call to target '[\w.]+\.(\w+)': (\w+)\([\"'](.*)[\"']\)",
        r"\1 does not take this: \2: \3",
    ),
)


def in_short(error: Exception) -> str:
    """Shorten an error message of Hydra: no search path, no links to its documentation."""
    if str(error).startswith("Error merging override") and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if (instead := removed.advice_on(error)) is not None:
        return instead
    if isinstance(error, RecursionError):
        return "its configs refer to each other in a circle. Remove one of the references (defaults lists, anchors)"
    if isinstance(error, UnicodeDecodeError):
        return f"a config file is not text in UTF-8 ({error}). Save it as UTF-8"
    text = re.split(r"\n\s*(?:Config search path|See https?://|full_key:|object_type=)", str(error).strip())[0]
    text = " ".join(text.replace("LexerNoViableAltException: ", "cannot be read: ").split())
    for pattern, words in _WORDS:
        text = re.sub(pattern, words, text)
    return text or type(error).__name__
