"""ltr-dashboard: its panels show keys that runs log; it explains missing keys and connections."""

from __future__ import annotations

import json
import sys
import types

import pytest

from ltr.cli import run_guarded
from ltr.commands.dashboard import main, report, workspace
from ltr.report.figures import FIGURES
from ltr.report.panels import SECTIONS

OVERRIDES = {
    "closed_set": ["dataset=digits_lt", "dataset.val=train_fraction"],
    "background": ["dataset=digits_bg"],
    "open_set": ["dataset=digits_open", "evaluation.monitor_split=test"],
    "retrieval": ["dataset=digits_retrieval", "method=triplet"],
}


@pytest.fixture
def logged(ltr_train, monkeypatch):
    """The keys that a tiny run of these overrides logs."""
    from pytorch_lightning.loggers.logger import DummyLogger

    from ltr.runs.tracking.counted_epochs import final
    from ltr.runs.tracking.loggers import RunLoggers

    class Recording(DummyLogger):
        """Stand-in for W&B that records the keys."""

        def __init__(self, keys: set[str]) -> None:
            super().__init__()
            self.keys = keys

        def log_metrics(self, metrics, step=None) -> None:
            self.keys |= set(metrics)

        def log_result(self, headline, rows, evaluated, figures) -> None:
            self.keys |= set(final(headline)) | {f"figures/{path.stem}" for path in figures}

    def run(*overrides: str) -> set[str]:
        keys: set[str] = set()
        monkeypatch.setattr(RunLoggers, "_wandb", lambda loggers: Recording(keys))
        done = ltr_train(*overrides, "debug=fast", "logger=wandb", "logger.mode=offline")
        assert done.code == 0, done.err
        return keys

    return run


def shown_keys(protocol: str, *kinds: str) -> dict[str, tuple[str, ...]]:
    panels = [panel for section in SECTIONS if protocol in section.protocols for panel in section.panels]
    return {panel.title: panel.keys for panel in panels if panel.kind in kinds}


@pytest.mark.slow
@pytest.mark.parametrize("protocol", OVERRIDES)
def test_every_panel_shows_what_a_run_of_its_protocol_logs(logged, protocol):
    keys = logged(*OVERRIDES[protocol])
    for title, wanted in shown_keys(protocol, "bar", "scatter").items():
        assert set(wanted) <= keys, title
    for title, wanted in shown_keys(protocol, "line").items():
        assert set(wanted) & keys, title  # val, or test
    assert "epoch" in keys


@pytest.mark.slow
def test_the_panels_of_figures_are_those_that_a_run_writes(logged):
    keys = logged("method=crt", "method.classifier.epochs=1", "figures=all")
    wanted = {key for keys in shown_keys("closed_set", "picture").values() for key in keys}
    assert wanted <= keys
    assert wanted <= {f"figures/{name}" for name in FIGURES}


def test_the_workspace_and_the_report_have_all_sections():
    import wandb_workspaces.reports.v2 as reports
    from wandb_workspaces import workspaces

    made = workspace(workspaces, reports, "mine", "team", "ltr")
    spec = json.loads(made._to_model().model_dump_json(by_alias=True))
    sections = spec["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == [section.name for section in SECTIONS]
    text = json.dumps(sections)
    for section in SECTIONS:
        for panel in section.panels:
            assert all(key in text for key in panel.keys), panel.title
    places = [(panel["layout"]["x"], panel["layout"]["y"]) for panel in sections[0]["panels"]]
    assert len(set(places)) == len(places) == 6
    written = report(reports, "mine", "team", "ltr")
    grids = [block for block in written.blocks if isinstance(block, reports.PanelGrid)]
    assert [len(grid.panels) for grid in grids] == [len(section.panels) for section in SECTIONS]


def test_the_panels_can_be_printed_without_a_network(capsys):
    assert main(["--print"]) == 0
    assert [section["name"] for section in json.loads(capsys.readouterr().out)] == [s.name for s in SECTIONS]


@pytest.mark.parametrize("error", [RuntimeError("not logged in"), ConnectionError(), KeyError("project")])
def test_a_refusal_is_explained_without_a_traceback(monkeypatch, capsys, error):
    import wandb

    def refuse(**options):
        raise error

    monkeypatch.setattr(wandb, "Api", refuse)
    assert run_guarded(lambda: main([])) == 1
    message = capsys.readouterr().err
    assert "wandb login" in message
    assert "Traceback" not in message


def test_a_workspace_is_saved_and_its_address_is_printed(monkeypatch, capsys):
    import wandb
    import wandb_workspaces.reports.v2 as reports
    from wandb_workspaces import workspaces

    saved = []
    api = types.SimpleNamespace(default_entity="me", project=lambda name, entity: types.SimpleNamespace(id="7"))
    monkeypatch.setattr(wandb, "Api", lambda **options: api)
    for kind in (workspaces.Workspace, reports.Report):
        monkeypatch.setattr(kind, "save", lambda made: saved.append((type(made).__name__, made.entity, made.project)))
        monkeypatch.setattr(kind, "url", "https://example.org/view")
    assert main(["--project", "tails"]) == 0
    assert saved == [("Workspace", "me", "tails"), ("Report", "me", "tails")]
    assert capsys.readouterr().out.count("https://example.org/view") == 2


def test_without_the_extra_the_error_names_its_installation(monkeypatch, capsys):
    for name in ("wandb_workspaces", "wandb_workspaces.reports.v2"):
        monkeypatch.setitem(sys.modules, name, None)
    assert run_guarded(lambda: main([])) == 2
    assert "ltr[dashboard]" in capsys.readouterr().err
