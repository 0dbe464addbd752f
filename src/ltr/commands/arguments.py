"""Argument parsing that the commands share."""

from __future__ import annotations

import argparse
import csv
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ltr.errors import ConfigError, nearest
from ltr.names import canonical

_UNKNOWN = "unrecognized arguments: "  # argparse's words, in its own messages too

_CHOICE = re.compile(r"invalid choice: '(?P<given>.*)' \(choose from (?P<allowed>.*)\)$")


class Parser(argparse.ArgumentParser):
    """Argument parser that raises instead of exiting, so that invalid flags are reported like other mistakes.

    Attributes:
        further: name of the argument that takes words behind flags; '' for none. It serves commands with subcommands,
            for which argparse accepts no words between flags.
    """

    further = ""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Return the arguments; `further` gets the words behind flags."""
        arguments, words = self.parse_known_args(args, namespace)
        unknown = words if not hasattr(arguments, self.further) else [word for word in words if word.startswith("-")]
        if unknown:
            self.error(f"{_UNKNOWN}{' '.join(unknown)}")
        if words:
            setattr(arguments, self.further, [*getattr(arguments, self.further), *words])
        return arguments

    def error(self, message: str) -> NoReturn:
        if message.startswith(_UNKNOWN):
            first = message.removeprefix(_UNKNOWN).split()[0].partition("=")[0]
            owners = [command for command, subparser in _commands(self).items() if first in _flags(subparser)]
            if owners:
                message += f"; {first} is a flag of {self.prog} {', '.join(owners)}"
            elif first.startswith("-"):
                message += nearest(first, _flags(self))
        elif choice := _CHOICE.search(message):
            message += nearest(choice["given"], choice["allowed"].replace("'", "").split(", "))
        raise ConfigError(f"{message}\n{self.format_usage().rstrip()}")


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    """Return the flags of a parser and of its subcommands."""
    return list(dict.fromkeys(flag for action in _actions(parser) for flag in action.option_strings))


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the subcommands of a parser."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return {name: subparser for group in groups for name, subparser in group.choices.items()}


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the actions of a parser and of its subcommands."""
    yield from parser._actions
    for subparser in _commands(parser).values():
        yield from _actions(subparser)


def parse_arguments(parser: Parser, argv: Sequence[str], intermixed: bool = False) -> argparse.Namespace | None:
    """Return the arguments; None for ``--help``.

    Args:
        intermixed: accept words between flags.

    Raises:
        ConfigError: flags that are wrong, a blank argument, which as a path would mean the current folder, or a
            ``--config-dir`` that is no folder.
    """
    for before, argument in zip(["", *argv], argv):
        if not argument.strip() or "\0" in argument:
            after = f" after {before}" if before else ""
            raise ConfigError(
                f"the argument {argument!r}{after} is empty or no text. A variable of the shell that is not set leaves "
                "such a one: set it, or leave the argument out"
            )
    try:
        arguments = parser.parse_intermixed_args(argv) if intermixed else parser.parse_args(argv)
    except SystemExit:  # --help
        return None
    arguments.typed_flags = _typed_flags(parser, argv)
    config_dir = getattr(arguments, "config_dir", None)
    if config_dir is not None and not os.path.isdir(config_dir):
        raise ConfigError(f"--config-dir {config_dir}: there is no such folder. Name the folder of your own configs")
    return arguments


def _typed_flags(parser: argparse.ArgumentParser, argv: Sequence[str]) -> dict[str, str]:
    """Return the flags that a command line has, by the names of their values."""
    flags = _flags(parser)
    words = {argument.partition("=")[0] for argument in argv if argument.startswith("--")} - {"--"}
    # the commands with subcommands accept the beginning of a flag
    typed = {flag for word in words for flag in ([word] if word in flags else flags) if flag.startswith(word)}
    return {action.dest: flag for action in _actions(parser) for flag in action.option_strings if flag in typed}


def refuse_unread(arguments: argparse.Namespace, names: Iterable[str], because: str) -> None:
    """Raise ConfigError for typed flags that the rest of the command line leaves without effect.

    Args:
        arguments: of `parse_arguments`.
        names: names of their values, such as ``min_distance``.
        because: what leaves them without effect, and the next step.
    """
    typed = [arguments.typed_flags[name] for name in names if name in arguments.typed_flags]
    if typed:
        raise ConfigError(f"{' and '.join(typed)}: {because}")


def file_path(text: str) -> Path:
    """Return the path of a file to write; the type of flags such as ``--out FILE``.

    Raises:
        argparse.ArgumentTypeError: the text ends like a folder's, which a `Path` would not show.
    """
    if text.endswith(("/", os.sep)) or text.rpartition("/")[2] in (".", ".."):
        raise argparse.ArgumentTypeError(f"{text} is a folder; the name of a file is needed, such as {text}table.csv")
    return Path(text)


def add_allow(parser: argparse.ArgumentParser) -> None:
    """Add the flag ``--allow``."""
    parser.add_argument(
        "--allow", action="append", default=[], metavar="PREFIX", help="allow code of your package in configs"
    )


def at_least(arguments: argparse.Namespace, name: str, least: int) -> None:
    """Raise ConfigError where a number is given that is smaller."""
    value = getattr(arguments, name)
    if value is not None and value < least:
        raise ConfigError(f"--{name.replace('_', '-')} {value}: allowed is {least} or more")


def chosen_names(texts: Sequence[str], known: Collection[str]) -> list[str]:
    """Return the names that a flag lists, where names may hold commas themselves.

    A text that is a known name is that name. Others are lists: quotes as in CSV keep a name whole, and so does being
    known, the longest such name first.

    Args:
        texts: one for each time that the flag was given.
        known: names that there are; they are compared in Unicode's composed form.

    Returns:
        Names as ``known`` has them, each once; those that are not known as they were typed.

    Raises:
        ConfigError: texts without a name, such as ``''`` or ``,``.
    """
    by_canonical = {canonical(name): name for name in known}
    listed = [
        name for text in texts for name in ([text] if canonical(text) in by_canonical else _listed(text, by_canonical))
    ]
    names = [name for name in dict.fromkeys(by_canonical.get(canonical(name), name) for name in listed) if name]
    if texts and not names:
        raise ConfigError("an empty list of names was given; name at least one, or leave the flag out")
    return names


def _listed(text: str, known: Collection[str]) -> list[str]:
    if '"' in text:
        try:
            return [name.strip() for row in csv.reader([text], skipinitialspace=True, strict=True) for name in row]
        except csv.Error:
            pass  # quotes that do not match are letters
    names, pieces = [], text.replace("\\,", ",").split(",")
    while pieces:
        lengths = range(len(pieces), 0, -1)
        longest = next((n for n in lengths if canonical(",".join(pieces[:n]).strip()) in known), 1)
        names.append(",".join(pieces[:longest]).strip())
        pieces = pieces[longest:]
    return names


def names_in(text: str) -> list[str]:
    """Return the names of a comma-separated list, without blanks."""
    return [name.strip() for name in text.split(",") if name.strip()]
