"""``ltr-dashboard``: a saved workspace and a report on Weights & Biases for the runs of a project."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ltr.commands.arguments import Parser, parse_arguments, refuse_unread
from ltr.console import print_line
from ltr.errors import ConfigError, LtrError, first_line
from ltr.report.panels import SECTIONS, Panel, Section

_EXTRA = "ltr-dashboard needs the extra: pip install 'ltr[dashboard]'"


def main(argv: Sequence[str]) -> int:
    """Run ``ltr-dashboard [--project NAME] [--entity NAME]``; return the exit code.

    Raises:
        ConfigError: wrong flags, or the extra is not installed.
        DashboardError: there is no key or no network, or the project does not exist.
    """
    parser = Parser(
        prog="ltr-dashboard",
        description="Create a saved workspace and a report on Weights & Biases for the runs of a project.",
        epilog="Example: ltr-dashboard --project ltr --entity my-team",
        allow_abbrev=False,
    )
    parser.add_argument("--project", default="ltr", help="project, as in logger.project (default: ltr)")
    parser.add_argument("--entity", default="", help="team or user (default: the logged-in user)")
    parser.add_argument(
        "--name", default="Long tails", help="name of the workspace and the report (default: Long tails)"
    )
    parser.add_argument(
        "--update", default="", metavar="URL", help="overwrite this workspace, which keeps its name; creates no report"
    )
    parser.add_argument("--no-report", action="store_true", help="create only the workspace")
    parser.add_argument("--print", action="store_true", help="print the panels as JSON; needs no network")
    arguments = parse_arguments(parser, argv)
    if arguments is None:
        return 0
    if arguments.update:
        because = "--update keeps the name of the workspace, and creates no report. Leave it out"
        refuse_unread(arguments, ["name", "no_report"], because)
    if arguments.print:
        because = "--print creates nothing: it shows the panels, which are those of every project. Leave it out"
        refuse_unread(arguments, ["project", "entity", "name", "update", "no_report"], because)
        print(json.dumps([asdict(section) for section in SECTIONS], indent=2))
        return 0
    return _create(arguments)


class DashboardError(LtrError):
    """Error of Weights & Biases: unreachable, or access denied."""


def _create(arguments: argparse.Namespace) -> int:
    try:
        import wandb
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise ConfigError(_EXTRA) from error
    try:
        api = wandb.Api(timeout=20)
        entity = arguments.entity or api.default_entity or ""
        if not api.project(arguments.project, entity=entity).id:
            raise LookupError
        if arguments.update:
            made = workspaces.Workspace.from_url(arguments.update)
            made.sections = workspace(workspaces, reports, arguments.name, entity, arguments.project).sections
        else:
            made = workspace(workspaces, reports, arguments.name, entity, arguments.project)
        made.save()
        print_line(f"workspace: {made.url}")
        if not (arguments.no_report or arguments.update):
            written = report(reports, arguments.name, entity, arguments.project)
            written.save()
            print_line(f"report: {written.url}")
    except Exception as error:  # the libraries raise many kinds: of wandb, requests, and plain ones
        raise DashboardError(
            f"Weights & Biases says: {first_line(error)}\n  Check that you are logged in (`wandb login`), the "
            f"network, and that the project {arguments.project} has runs (logger=wandb). --print shows the panels "
            "offline"
        ) from error
    return 0


def workspace(workspaces: Any, reports: Any, name: str, entity: str, project: str) -> Any:
    """Return the workspace of `ltr.report.panels`, seeds grouped; nothing is sent.

    Args:
        workspaces, reports: the modules of wandb-workspaces.
    """
    sections = [
        workspaces.Section(
            name=section.name,
            is_open=section.is_open,
            panels=_panels(reports, section),
            panel_settings=workspaces.SectionPanelSettings(x_axis="epoch"),
        )
        for section in SECTIONS
    ]
    return workspaces.Workspace(
        name=name,
        entity=entity,
        project=project,
        sections=sections,
        # a group is the seeds of one configuration: panels show means
        runset_settings=workspaces.RunsetSettings(groupby=[workspaces.Metric("Group")]),
    )


def report(reports: Any, name: str, entity: str, project: str) -> Any:
    """Return the report of `ltr.report.panels`: a grid of panels under each heading; nothing is sent."""
    runs = reports.Runset(entity=entity, project=project, name="all runs", groupby=["group"])
    blocks: list[Any] = [
        reports.P("Runs of one configuration are a group: lines are means over seeds. Numbers are of the test split."),
        reports.TableOfContents(),
    ]
    for section in SECTIONS:
        blocks += [reports.H1(section.name), reports.PanelGrid(runsets=[runs], panels=_panels(reports, section))]
    return reports.Report(project=project, entity=entity, title=name, blocks=blocks, width="fluid")


def _panels(reports: Any, section: Section) -> list[Any]:
    """Return the panels, three in a row; figures, which people read, two."""
    made = []
    for position, panel in enumerate(section.panels):
        in_row, width, height = (2, 12, 9) if panel.kind == "figure" else (3, 8, 6)
        layout = reports.Layout(x=position % in_row * width, y=position // in_row * height, w=width, h=height)
        made.append(_panel(reports, panel, layout))
    return made


def _panel(reports: Any, panel: Panel, layout: Any) -> Any:
    keys = list(panel.keys)
    if panel.kind == "line":
        return reports.LinePlot(title=panel.title, x="epoch", y=keys, layout=layout)
    if panel.kind == "bar":
        return reports.BarPlot(title=panel.title, metrics=keys, orientation="h", layout=layout)
    if panel.kind == "scatter":
        x, y = (reports.SummaryMetric(key) for key in keys)
        return reports.ScatterPlot(title=panel.title, x=x, y=y, layout=layout)
    return reports.MediaBrowser(title=panel.title, media_keys=keys, layout=layout)
