"""``ltr-report --leaderboard``: a folder of checked results as HTML; checks and additions of runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from ltr.commands.arguments import refuse_unread
from ltr.console import print_line
from ltr.errors import ConfigError
from ltr.files import write_text
from ltr.names import counted
from ltr.writing import check_file, check_named_files

_FORMATS = ("html", "markdown")
HTML, IMAGES = (".html", ".htm"), (".png", ".jpg", ".jpeg", ".svg", ".pdf")  # endings of --out


def check_leaderboard(arguments: argparse.Namespace, folders: Sequence[Path]) -> None:
    """Raise ConfigError for flags that do not go with ``--leaderboard``."""
    from ltr.report.results_folder import BOARD

    if len(folders) != 1:
        raise ConfigError(
            f"--leaderboard with {counted(len(folders), 'folder')}: one folder of results is needed. Name it, e.g. "
            "ltr-report --leaderboard results"
        )
    if arguments.format not in _FORMATS and "format" in arguments.typed_flags:
        raise ConfigError(
            f"--leaderboard --format {arguments.format}: allowed are {' and '.join(_FORMATS)}. For other formats, "
            f"report the folder without --leaderboard: ltr-report {quote(str(folders[0]))} --format {arguments.format}"
        )
    names = ("metric", "dataset", "against", "curve", "figures", "spread")
    if conflicting := [name for name in names if getattr(arguments, name)]:
        raise ConfigError(
            f"--leaderboard --{conflicting[0]}: a leaderboard shows every result of its folder, and its table filters. "
            "Leave one of the two flags out"
        )
    refuse_unread(
        arguments,
        ["by", "level", "figure_runs"],
        "--leaderboard shows every result of its folder in one HTML file. Leave it out",
    )
    if arguments.check and (arguments.add or arguments.out):
        raise ConfigError("--check: it writes nothing, so it goes without --add and --out. Leave one of them out")
    if arguments.check or arguments.add:
        mode = "--check" if arguments.check else "--add"
        because = f"--leaderboard {mode} writes no HTML. Leave it out; the command without {mode} writes it"
        refuse_unread(arguments, ["out", "format"], because)
        return
    ending = "" if arguments.out is None else arguments.out.suffix.lower()
    if ending in (*IMAGES, *((".md",) if arguments.format != "markdown" else HTML)):
        raise ConfigError(
            f"--out {arguments.out}: a leaderboard is an HTML file, or a table with --format markdown. Name the file so"
        )
    if arguments.out is None and folders[0].is_dir():
        check_file(folders[0] / BOARD, f"--out {folders[0] / BOARD}")
        check_named_files(folders[0], {BOARD: ()}, f"--leaderboard {folders[0]}")


def write_leaderboard(arguments: argparse.Namespace, folder: Path) -> int:
    """Add a run, check a folder of results, or write it as HTML; return the exit code: 1 if a result is refused."""
    from ltr.report.leaderboard import leaderboard_rows, summary_markdown
    from ltr.report.leaderboard_html import leaderboard_html
    from ltr.report.results_folder import BOARD, add_runs, read_results_folder

    if arguments.add:
        for entry in add_runs(folder, arguments.add):
            print_line(f"added {entry}")
        return 0
    results = read_results_folder(folder)
    for line in results.refused:
        print_line(f"refused: {line}", sys.stderr)
    accepted = counted(len(results.accepted), "result")
    if arguments.check:
        print_line(f"{folder}: {accepted} accepted, {len(results.refused):,} refused")
        return int(bool(results.refused))
    rows = leaderboard_rows(results)
    if arguments.format == "markdown" and arguments.out is None:
        print(summary_markdown(rows))  # its names are written for its format already
        return int(bool(results.refused))
    content = summary_markdown(rows) + "\n" if arguments.format == "markdown" else leaderboard_html(rows)
    out = arguments.out or folder / BOARD
    write_text(out, content)
    print_line(f"{out}: {accepted} in {counted(len(rows), 'row')}")
    return int(bool(results.refused))
