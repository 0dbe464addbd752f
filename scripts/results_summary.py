"""Write the summary of results/ into docs/results.md, between its markers.

python scripts/results_summary.py            # write it
python scripts/results_summary.py --check    # exit code 1 if it is not up to date
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ltr.cli import run_guarded
from ltr.console import print_line
from ltr.report.leaderboard import leaderboard_rows, summary_markdown
from ltr.report.published import write_between_markers
from ltr.report.results_folder import read_results_folder

ROOT = Path(__file__).parents[1]
NAME = "results"


def summary(folder: Path) -> str:
    """Return the Markdown of all accepted results of a folder."""
    return summary_markdown(leaderboard_rows(read_results_folder(folder)))


def is_up_to_date(path: Path, block: str) -> bool:
    return f"<!-- {NAME}:begin -->\n{block}\n<!-- {NAME}:end -->" in path.read_text(encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--results", type=Path, default=ROOT / "results", metavar="FOLDER")
    parser.add_argument("--file", type=Path, default=ROOT / "docs" / "results.md", metavar="FILE")
    arguments = parser.parse_args(argv)
    block = summary(arguments.results)
    if arguments.check:
        fits = is_up_to_date(arguments.file, block)
        print_line(f"{arguments.file} is {'up to date' if fits else 'not up to date: run this script without --check'}")
        return int(not fits)
    write_between_markers(arguments.file, NAME, block)
    print_line(f"{arguments.file}: written")
    return 0


if __name__ == "__main__":
    sys.exit(run_guarded(lambda: main(sys.argv[1:])))
