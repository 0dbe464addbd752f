"""Write the results of results/ into the documentation, between their markers.

    python scripts/results_summary.py            # write them
    python scripts/results_summary.py --check    # exit code 1 if a generated file is out of date

docs/results.md gets the whole summary between `<!-- results:begin -->` and `<!-- results:end -->`, and the table of
schedules shorter than the recipes' between `<!-- short-schedules:begin -->` and `<!-- short-schedules:end -->`.
Pages of methods and losses get a table of single experiments, beside their published numbers, between
`<!-- results of EXPERIMENT ... -->` and `<!-- end of results -->`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ltr.cli import run_guarded
from ltr.configuration.tables import TableRow, table_rows
from ltr.console import print_line
from ltr.errors import ConfigError
from ltr.report.leaderboard import LeaderboardRow, leaderboard_rows, percent, signed, summary_markdown
from ltr.report.results_folder import read_results_folder
from ltr.report.short_schedules import short_markdown
from ltr.report.style import NOTHING

ROOT = Path(__file__).parents[1]
SUMMARY = re.compile(r"(<!-- results:begin -->\n)(.*?)(<!-- results:end -->)", re.DOTALL)
SHORT = re.compile(r"(<!-- short-schedules:begin -->\n)(.*?)(<!-- short-schedules:end -->)", re.DOTALL)
EXPERIMENTS = re.compile(r"(<!-- results of ([\w ]+?) -->\n)(.*?)(<!-- end of results -->)", re.DOTALL)
HEADINGS = ("experiment", "schedule", "accuracy", "many", "medium", "few", "published", "difference")


def with_results(text: str, rows: Sequence[LeaderboardRow], published: Mapping[str, TableRow]) -> str:
    """Return a page with every block between markers as the results give it.

    Raises:
        ConfigError: a marker names an experiment that does not exist.
    """
    text = SUMMARY.sub(lambda match: f"{match[1]}{summary_markdown(rows)}\n{match[3]}", text)
    text = SHORT.sub(lambda match: f"{match[1]}{short_markdown(rows)}\n{match[3]}", text)

    def table(match: re.Match[str]) -> str:
        return f"{match[1]}\n{experiments_table(match[2].split(), rows, published)}\n\n{match[4]}"

    return EXPERIMENTS.sub(table, text)


def experiments_table(names: Sequence[str], rows: Sequence[LeaderboardRow], published: Mapping[str, TableRow]) -> str:
    """Return a Markdown table of experiments, one line for each schedule that was run."""
    lines = [HEADINGS, ("---", "---", *["---:"] * 4, "---", "---:")]
    for name in names:
        if name not in published:
            raise ConfigError(
                f"<!-- results of {name} -->: conf/published.csv has no row of this name. "
                "Correct the marker, or add the row"
            )
        number = published[name]
        source = NOTHING if number.published is None else f"{number.published:.2f} ({number.source})"
        experiment_rows = [row for row in rows if experiment_of(row) == name and not row.is_short]
        for row in experiment_rows:
            groups = [percent(row.groups[group]) for group in ("many", "medium", "few")]
            lines.append((f"`{name}`", row.schedule, row.value_text, *groups, source, signed(row.difference)))
        if not experiment_rows:
            lines.append((f"`{name}`", "not run yet", *[NOTHING] * 4, source, NOTHING))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def experiment_of(row: LeaderboardRow) -> str:
    """Return the experiment of a row, whose name is that of the data set and of the run: ``cifar100_lt_ldam_drw``."""
    run = row.files[0].rpartition("/")[2]
    return f"{row.dataset}_{re.sub(r'-s[0-9]+-[0-9a-f]{8}$', '', run)}"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--results", type=Path, default=ROOT / "results", metavar="FOLDER")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", metavar="FOLDER")
    arguments = parser.parse_args(argv)
    rows = leaderboard_rows(read_results_folder(arguments.results))
    published = {row.config: row for row in table_rows()}
    outdated = []
    for path in sorted(arguments.docs.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        new = with_results(text, rows, published)
        if new != text:
            outdated.append(path)
            if not arguments.check:
                path.write_text(new, encoding="utf-8")
    for path in outdated:
        print_line(f"{path}: {'not up to date: run this script without --check' if arguments.check else 'written'}")
    if not outdated:
        print_line(f"{arguments.docs}: every page is up to date")
    return int(arguments.check and bool(outdated))


if __name__ == "__main__":
    sys.exit(run_guarded(lambda: main(sys.argv[1:])))
