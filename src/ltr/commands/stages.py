"""``ltr-stages``: list, show and prune the finished stages of the store."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltr.commands.arguments import Parser, at_least, parse_arguments
from ltr.commands.named_runs import outputs_folder
from ltr.console import print_line
from ltr.errors import ConfigError, LtrError
from ltr.escaping import name
from ltr.identity import name_of

_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def main(argv: Sequence[str]) -> int:
    """Run ``ltr-stages list | show KEY | prune``; return the exit code.

    Raises:
        ConfigError: flags that are wrong, or a duration that cannot be read.
        LtrError: no such stage.
    """
    parser = Parser(prog="ltr-stages", description="The store of finished stages.")
    default = outputs_folder() / "stages"
    parser.add_argument(
        "--stages", type=Path, default=default, metavar="FOLDER", help=f"the store (default: {default})"
    )
    # before or after the command; only a typed value replaces the one before it
    store_flag = Parser(add_help=False)
    store_flag.add_argument("--stages", type=Path, default=argparse.SUPPRESS, metavar="FOLDER", help="the store")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list stages, newest first", parents=[store_flag])
    show = commands.add_parser("show", help="show the specification of a stage", parents=[store_flag])
    show.add_argument("key", help="key of a stage, or a prefix of it")
    prune = commands.add_parser("prune", help="delete stages; runs keep their own checkpoints", parents=[store_flag])
    prune.add_argument("--older-than", metavar="30d", help="delete only stages that finished longer ago (m, h, d or w)")
    prune.add_argument("--keep-last", type=int, default=0, metavar="N", help="always keep the N newest stages")
    prune.add_argument("--dry-run", action="store_true", help="print the stages without deleting them")
    arguments = parse_arguments(parser, argv)
    if arguments is None:
        return 0
    if arguments.command == "prune":
        at_least(arguments, "keep_last", 0)
    folder = arguments.stages
    if not folder.is_dir() and ("stages" in arguments.typed_flags or folder.exists()):
        reason = "it is no folder" if folder.exists() else "there is no such folder"
        raise ConfigError(f"--stages {folder}: {reason}. Name the store, which is paths.stages of the runs")
    from ltr.runs.store import StageStore

    store = StageStore(arguments.stages, lambda text: print_line(f"warning: {text}", sys.stderr))
    stages = store.finished()
    if arguments.command == "list":
        _list(stages, arguments.stages)
    elif arguments.command == "show":
        _show(stages, arguments.key)
    else:
        if arguments.older_than is None and not arguments.keep_last:
            raise ConfigError("prune needs --older-than or --keep-last: without them it would delete every stage")
        _prune(store, stages, arguments.older_than, arguments.keep_last, arguments.dry_run)
    return 0


def seconds(duration: str) -> float:
    """Return the seconds of ``30d``, ``12h``, ``5m`` or ``2w``.

    Raises:
        ConfigError: anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", duration)
    if match is None:
        raise ConfigError(f"--older-than {duration}: allowed is a number and m, h, d or w, such as 30d")
    return float(match[1]) * _UNITS[match[2]]


def _list(stages: Sequence[dict[str, Any]], folder: Path) -> None:
    if not stages:
        print_line(f"no finished stages in {folder}")
        return
    print_line(f"{'key':<13}{'stage':<17}{'what':<22}{'seed':>4}{'epochs':>8}{'trained in':>12}{'size':>10}{'age':>9}")
    for stage in stages:
        spec = stage["spec"]
        # a network that was taken from a checkpoint has no more than its file's digest, a computation may have no seed
        what = name(re.split(r"[./]", name_of(spec.get("target", "(checkpoint)")))[-1], 40)
        seed, epochs = (name(spec.get("seed", "–"), 8), name(spec.get("settings", {}).get("epochs", "–"), 8))
        print_line(
            f"{name(stage['key'][:12]):<13}{name(stage.get('name', '?'), 40):<17}{what:<22}{seed:>4}{epochs:>8}"
            f"{stage['seconds']:>10.0f} s{stage['bytes'] / 2**20:>7.1f} MB{_age(stage['age']):>9}"
        )


def _age(age: float) -> str:
    for unit in ("w", "d", "h", "m"):
        if age >= _UNITS[unit]:
            return f"{age / _UNITS[unit]:.0f}{unit} ago"
    return "just now"


def _show(stages: Sequence[dict[str, Any]], key: str) -> None:
    import yaml

    matching = [stage for stage in stages if stage["key"].startswith(key)]
    if len(matching) != 1:
        reason = f"{len(matching)} stages begin with it; give more of the key" if matching else "there is no such stage"
        raise LtrError(f"{key}: {reason} (ltr-stages list shows them)")
    stage = {**matching[0], "age": _age(matching[0]["age"])}
    print_line(yaml.safe_dump(stage, sort_keys=False).rstrip("\n"))


def _prune(store: Any, stages: Sequence[dict[str, Any]], older_than: str | None, keep_last: int, dry_run: bool) -> None:
    limit = seconds(older_than) if older_than else 0.0
    freed = 0
    for stage in stages[keep_last:]:
        if stage["age"] < limit:
            continue
        if dry_run:
            print_line(f"would delete {name(stage['key'][:12])} {name(stage.get('name', '?'))}")
        elif store.remove(stage["key"]):
            print_line(f"deleted {name(stage['key'][:12])} {name(stage.get('name', '?'))}")
        else:
            print_line(f"kept {name(stage['key'][:12])} {name(stage.get('name', '?'))}: a run is using it")
            continue
        freed += stage["bytes"]
    print_line(f"{freed / 2**20:.1f} MB {'would be ' if dry_run else ''}freed")
