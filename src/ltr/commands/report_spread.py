"""``ltr-report --spread``: variance of results due to the training subset and to the seed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ltr.commands.arguments import names_in, refuse_unread
from ltr.console import print_line
from ltr.errors import ConfigError
from ltr.files import write_text
from ltr.names import counted


def check_spread(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for flags that do not go with ``--spread``."""
    if arguments.format == "html":
        raise ConfigError(
            "--spread --format html: a spread is written as table, markdown, latex or csv, and as a figure to "
            "--out FILE.png. Choose one of them"
        )
    refuse_unread(arguments, ["figure_runs"], "--spread shows no figures of runs. Leave one of them out")
    if arguments.out is not None and arguments.out.suffix.lower() == ".png":
        refuse_unread(arguments, ["format", "level"], "--out FILE.png draws a figure without it. Leave one of them out")
    ignored = [f"--{name}" for name in ("curve", "figures") if getattr(arguments, name)]
    if ignored:
        raise ConfigError(
            f"--spread {ignored[0]}: a spread has neither curves nor figures of runs. Leave one of them out"
        )
    if len(names_in(arguments.metric)) > 1 or arguments.metric == "all":
        raise ConfigError(
            f"--spread --metric {arguments.metric}: a spread is of one metric. Name one, e.g. --metric few"
        )


def write_spread(arguments: argparse.Namespace, folders: Sequence[Path]) -> int:
    """Write the spread of the runs over training subsets and seeds; return the exit code."""
    from ltr.report.blocks import terminal_width
    from ltr.report.compose import chosen_runs, collection_warnings
    from ltr.report.naming import check_keys
    from ltr.report.read_runs import finished_runs
    from ltr.report.spread import spreads
    from ltr.report.spread_figure import spread_figure
    from ltr.report.spread_sheets import spread_text

    collection = finished_runs(folders)
    metrics = names_in(arguments.metric)
    runs = chosen_runs(collection.runs, names_in(arguments.dataset), metrics)
    by = names_in(arguments.by) or ["name"]
    if arguments.by:
        check_keys(runs, by, "--by")
    all_spreads = spreads(
        runs, by, metric=metrics[0] if metrics else "", against=arguments.against, level=arguments.level
    )
    for line in collection_warnings(collection):
        print_line(f"warning: {line}", sys.stderr)
    out = arguments.out
    if out is not None and out.suffix.lower() == ".png":
        if len(all_spreads) > 1:
            names = ", ".join(spread.dataset for spread in all_spreads)
            raise ConfigError(f"--out {out}: a figure shows one data set, these are {names}. Choose one with --dataset")
        spread_figure(all_spreads[0], out)
        print_line(f"{out}: {counted(len(all_spreads[0].lines), 'row')}")
        return 0
    text = spread_text(
        all_spreads, arguments.format, " ".join(by), arguments.level, terminal_width() if out is None else None
    )
    if out is None:
        print(text, end="")
        return 0
    write_text(out, text)
    print_line(f"{out}: {counted(len(runs), 'run')}, {counted(len(all_spreads), 'spread')}")
    return 0
