"""What the commands share in reading their arguments."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from ltr.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Raises instead of printing and exiting, so that a wrong flag is told like any other mistake."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}\n{self.format_usage().rstrip()}")


def parsed(parser: Parser, argv: Sequence[str], intermixed: bool = False) -> argparse.Namespace | None:
    """The arguments; None where only the help was asked for.

    Args:
        parser: knows the flags.
        argv: what was typed.
        intermixed: words may stand between flags.

    Raises:
        ConfigError: flags that are wrong.
    """
    try:
        return parser.parse_intermixed_args(argv) if intermixed else parser.parse_args(argv)
    except SystemExit:  # --help
        return None


def at_least(arguments: argparse.Namespace, name: str, least: int) -> None:
    """Raise ConfigError where a number is given that is smaller."""
    value = getattr(arguments, name)
    if value is not None and value < least:
        raise ConfigError(f"--{name.replace('_', '-')} {value}: allowed is {least} or more")
