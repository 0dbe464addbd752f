"""``ltr-report``: finished runs as tables, curves and one HTML page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ltr.commands.arguments import Parser, at_least, file_path, names_in, parse_arguments, refuse_unread
from ltr.commands.named_runs import outputs_folder, run_path, runs_of_name
from ltr.commands.outputs import read_arguments, refuse_inputs
from ltr.commands.report_leaderboard import HTML, IMAGES, check_leaderboard, write_leaderboard
from ltr.commands.report_spread import check_spread, write_spread
from ltr.console import print_line
from ltr.errors import ConfigError, DataError
from ltr.files import write_text
from ltr.names import counted
from ltr.writing import check_file, check_named_files

if TYPE_CHECKING:
    from ltr.report.compose import Part

HTML_REPORT = "report.html"  # in the first folder, without --out
FORMATS = ("table", "markdown", "latex", "csv", "html")


def main(argv: Sequence[str]) -> int:
    """Run ``ltr-report [FOLDER ...]``; return the exit code: 1 where ``--against`` fits no table.

    Raises:
        ConfigError: flags that are wrong, a setting, metric or row that there is none of.
        DataError: no finished run.
    """
    default = outputs_folder()
    parser = Parser(
        prog="ltr-report",
        description="Finished runs as tables: mean ± s.d. over seeds, the best and its ties, sweeps as curves.",
        epilog="Example: ltr-report outputs --by method --metric few --format markdown",
        allow_abbrev=False,
    )
    parser.add_argument(
        "folders",
        nargs="*",
        type=Path,
        help=f"folders of runs, or single runs (folder, name or 'last'; default: {default})",
    )
    parser.add_argument("--by", default="name", metavar="KEY,...", help="keys that name the rows (default: name)")
    parser.add_argument("--metric", default="", metavar="NAME,...", help="metrics to show; 'all' for every metric")
    parser.add_argument("--format", choices=FORMATS, default="table", help="(default: table)")
    parser.add_argument(
        "--out", type=file_path, metavar="FILE", help="write to this file (html: FOLDER/report.html by default)"
    )
    parser.add_argument("--dataset", default="", metavar="NAME,...", help="show only these data sets")
    parser.add_argument(
        "--against", default="", metavar="ROW", help="row to test the others against; 'best' for the best row"
    )
    parser.add_argument(
        "--spread", action="store_true", help="variance over training subsets (dataset.split_seed) and seeds instead"
    )
    parser.add_argument(
        "--leaderboard", action="store_true", help="checked results of one folder, such as results, as an HTML page"
    )
    parser.add_argument("--check", action="store_true", help="with --leaderboard: check the results, write nothing")
    parser.add_argument(
        "--add",
        type=Path,
        action="append",
        default=[],
        metavar="RUN",
        help="with --leaderboard: add the result of a finished run; may be given several times",
    )
    parser.add_argument("--curve", default="", metavar="KEY,...", help="further keys whose sweeps are curves")
    parser.add_argument(
        "--level", type=float, default=0.95, metavar="P", help="level of confidence intervals (default: 0.95)"
    )
    parser.add_argument("--figures", choices=("two", "all"), default="", help="first draw these figures of every run")
    parser.add_argument(
        "--figure-runs",
        type=int,
        default=20,
        metavar="N",
        help="number of runs whose figures the HTML contains (default: 20)",
    )
    parser.add_argument("--pictures", dest="figure_runs", type=int, help=argparse.SUPPRESS)  # former name
    arguments = parse_arguments(parser, argv)
    if arguments is None:
        return 0
    if not 0 < arguments.level < 1:
        raise ConfigError(f"--level {arguments.level}: allowed is a number between 0 and 1")
    at_least(arguments, "figure_runs", 0)
    folders = [
        folder if folder.exists() or not runs_of_name(str(folder)) else run_path(folder) for folder in arguments.folders
    ]
    folders = folders or [default]
    if not arguments.leaderboard and (arguments.check or arguments.add):
        flag = "--check" if arguments.check else "--add"
        raise ConfigError(f"{flag}: it belongs to --leaderboard. Add that flag and the folder of results")
    if arguments.leaderboard:
        check_leaderboard(arguments, arguments.folders)
        arguments.add = [run_path(run) if not run.exists() and runs_of_name(str(run)) else run for run in arguments.add]
    elif arguments.spread:
        check_spread(arguments)
    else:
        _check_format(arguments)
    if arguments.out is not None:
        check_file(arguments.out, f"--out {arguments.out}")
        refuse_inputs({arguments.out: f"--out {arguments.out}"}, read_arguments(arguments, "out"))
    elif arguments.format == "html" and folders[0].is_dir():
        check_file(folders[0] / HTML_REPORT, f"--out {folders[0] / HTML_REPORT}")
        check_named_files(folders[0], {HTML_REPORT: ()}, "--format html")
    if arguments.leaderboard:
        return write_leaderboard(arguments, folders[0])
    return write_spread(arguments, folders) if arguments.spread else _report(arguments, folders)


def _check_format(arguments: argparse.Namespace) -> None:
    """Refuse the flags of HTML with another format, and a file name that promises another format."""
    if not arguments.against:
        refuse_unread(arguments, ["level"], "only --against gives intervals. Add --against ROW, or leave it out")
    if arguments.format != "html":
        because = f"--format {arguments.format} contains no figures. Leave it out, or add --format html"
        refuse_unread(arguments, ["figure_runs"], because)
    ending = "" if arguments.out is None else arguments.out.suffix.lower()
    if ending in IMAGES:
        raise ConfigError(
            f"--out {arguments.out}: a report is text. --spread --out FILE.png draws a spread, --figures all the "
            "figures of each run; name another file for the report"
        )
    if ending in HTML and arguments.format != "html":
        raise ConfigError(f"--out {arguments.out}: --format {arguments.format} writes text. Add --format html")


def _draw(parts: Sequence[Part], which: str) -> None:
    """Draw the figures of every run of a report; a run with damaged files is named and left out."""
    from ltr.report.figures import draw

    lines = [line for part in parts for line in (*part.section.lines, *part.section.selected_on_test)]
    folders = list(dict.fromkeys(run.path for line in lines for run in line.runs))
    for number, folder in enumerate(folders, start=1):
        try:
            left_out: list[str] = []
            written = draw(folder, which, left_out=left_out)
            rest = f"; no data for {', '.join(left_out)}" if left_out and which == "all" else ""
            print_line(f"{number}/{len(folders)} {folder}: {counted(len(written), 'figure')}{rest}", sys.stderr)
        except DataError as error:
            print_line(f"warning: {error}", sys.stderr)


def _report(arguments: argparse.Namespace, folders: Sequence[Path]) -> int:
    from ltr.report.blocks import terminal_width
    from ltr.report.compose import Options, as_text, compose_report
    from ltr.report.read_runs import finished_runs

    finished = finished_runs(folders)
    options = Options(
        by=tuple(names_in(arguments.by)) or ("name",),
        metrics=tuple(names_in(arguments.metric)),
        datasets=tuple(names_in(arguments.dataset)),
        against=arguments.against,
        curves=tuple(names_in(arguments.curve)),
        level=arguments.level,
    )
    report = compose_report(finished, options)
    if arguments.figures:
        _draw(report.parts, arguments.figures)
    problems: list[str] = []
    out = arguments.out
    if arguments.format == "html":
        from ltr.report.html import html_report

        text = html_report(report, figure_runs=arguments.figure_runs, problems=problems)
        out = out or folders[0] / HTML_REPORT
    else:
        text = as_text(report, arguments.format, terminal_width() if out is None else None)
    for line in (*report.warnings, *problems):
        print_line(f"warning: {line}", sys.stderr)
    if out is None:
        print(text, end="" if text.endswith("\n") else "\n")  # its names are written for its format already
        return int(report.uncompared)
    write_text(out, text if text.endswith("\n") else f"{text}\n")
    print_line(f"{out}: {counted(len(finished.runs), 'run')}, {counted(len(report.parts), 'table')}")
    return int(report.uncompared)
