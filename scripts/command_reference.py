"""Write docs/commands.md, every command with its arguments and flags; run it after changing one."""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from unittest import mock

from ltr.commands.arguments import Parser

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "commands.md"
INTRODUCTION = """\
# Reference of the commands

Every command with its arguments and flags; `--help` prints the same. After a wrong argument the message names what is
allowed, and the [exit code](runs.md) is 2. The same holds for a flag that the other flags leave without effect, and for
an output that would replace a file that the command reads, a file of a finished run, or a file that the command neither
wrote nor was told to write: where only a folder is named, its files of other programs are kept.

`python scripts/command_reference.py` writes this page from the code.
"""
TRAIN = """\
## ltr-train

Train and evaluate a method on a data set. Arguments are flags, `group=CONFIG` and `key=value`, in any order;
[configuration](configuration.md) explains them, and [the other reference](reference.md) lists groups and keys.

| flag | meaning |
|---|---|
"""
TRAIN_FLAGS = {
    "--help": "the groups; `--help GROUP` its configs, `--help GROUP/CONFIG` the keys of one, `--help KEY` one key",
    "--version": "the version of ltr",
    "--multirun": "run every combination of comma-separated values, see [sweeps](sweeps.md)",
    "--config-dir": "a folder with configs of your own",
    "--allow": "a package whose code configs may name; once for each package",
    "--cfg": "print the configuration (`job`, `hydra` or `all`) and run nothing",
    "--resolve": "with `--cfg`: with interpolations resolved",
    "--package": "with `--cfg`: only what is below this key",
    "--info": "print where the configuration comes from (`defaults`, `searchpath`, ...) and run nothing",
    "--config-name": "another primary config than `train`",
    "--config-path": "another folder of the primary config",
    "--run": "a single run, the default",
    "--hydra-help": "the help of Hydra",
    "--shell-completion": "install or remove the completion of a shell",
}


_CALLS = ("parse_known_args", "parse_intermixed_args")


class _Parsing(BaseException):
    """Carries a parser out of the command that builds it; no Exception, so that no command handles it."""

    def __init__(self, parser: Parser) -> None:
        self.parser = parser


def page() -> str:
    """Return the text of the page."""
    flags = "".join(f"| {_code(flag)} | {meaning} |\n" for flag, meaning in TRAIN_FLAGS.items())
    sections = [section for name in _commands() for section in _sections(parser_of(name))]
    return "\n".join([INTRODUCTION, TRAIN + flags, *sections])


def _commands() -> list[str]:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    return [name for name in scripts if name != "ltr-train"]


def parser_of(program: str) -> Parser:
    """Return the parser of a command: call the command until it parses its arguments."""

    def stop(parser: Parser, *_: object) -> None:
        raise _Parsing(parser)

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, _, name = scripts[program].partition(":")
    patches = [mock.patch.object(Parser, call, stop) for call in _CALLS]
    try:
        with mock.patch.dict("os.environ"), mock.patch("sys.argv", [program]), patches[0], patches[1]:
            os.environ.pop("LTR_OUTPUTS", None)  # its defaults are shown
            getattr(import_module(module), name)()
    except _Parsing as error:
        return error.parser
    raise AssertionError(f"{program} has not parsed its arguments")


def _sections(parser: Parser, about: str = "", level: int = 2) -> Iterator[str]:
    rows, parts = [], []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            parts += [text for name, part in action.choices.items() for text in _sections(part, helps[name], level + 1)]
        elif action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction):
            rows.append(f"| {_names(action)} | {_meaning(action)} |\n")
    about = " ".join((parser.description or about).split())
    table = "".join(["\n| argument | meaning |\n|---|---|\n", *rows]) if rows else ""
    yield f"{'#' * level} {parser.prog}\n\n{about[:1].upper()}{about[1:].rstrip('.')}.\n{table}"
    yield from parts


def _names(action: argparse.Action) -> str:
    if not action.option_strings:
        return _code(str(action.metavar or action.dest))
    value = action.metavar or (
        "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
    )
    after = "" if action.nargs == 0 else f" {value}"
    return ", ".join(_code(f"{name}{after}") for name in action.option_strings)


def _meaning(action: argparse.Action) -> str:
    meaning = ((action.help or "") % {**vars(action), "prog": ""}).replace("|", "\\|")
    has_value = action.default not in (None, "", [], argparse.SUPPRESS)
    is_set = bool(action.option_strings) and action.nargs != 0 and has_value
    return f"{meaning} (default: {action.default})" if is_set and "default" not in meaning else meaning


def _code(text: str) -> str:
    return f"`{text.replace('|', chr(92) + '|')}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
