"""Rows of a leaderboard, their Markdown and HTML."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up_outputs import composed_config, write

from ltr.report.leaderboard import backbone_text, leaderboard_rows, summary_markdown
from ltr.report.leaderboard_html import leaderboard_html
from ltr.report.results_folder import add_run, read_results_folder

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&|[a](b)"
RESNET = {"backbone._target_": "ltr.models.cifar_resnet.CifarResNet", "backbone.depth": 32}


def board(results: Path):
    folder = read_results_folder(results)
    assert folder.refused == ()
    return leaderboard_rows(folder)


def add(tmp_path: Path, *overrides: str, accuracy: float = 0.38, seed: int = 0, **config) -> None:
    """Add a made-up result with the configuration of a command."""
    whole = {**composed_config(*overrides), "seed": seed, **config}
    metrics = {"accuracy": accuracy, "balanced_accuracy": accuracy}
    run = write(tmp_path / "outputs", whole["method.name"], seed, metrics=metrics, config=whole)
    if whole["method.name"] == "crt":
        (run / "provenance.json").write_text(json.dumps({"device": "a GPU", "precision": "bf16", "code": {}}))
    add_run(tmp_path / "results", run)


@pytest.fixture
def results(tmp_path) -> Path:
    for seed in range(2):
        add(tmp_path, "experiment=cifar100_lt_erm", accuracy=0.38 + seed / 100, seed=seed)
    add(tmp_path, "experiment=cifar100_lt_crt", accuracy=0.42)
    return tmp_path / "results"


def test_a_row_has_the_mean_over_seeds_and_the_published_number(results):
    crt, erm = board(results)
    assert (crt.label, erm.label) == ("crt", "erm")
    assert (erm.seeds, erm.value_text) == (2, "38.50 ± 0.71")
    assert erm.published.number == 38.32
    assert erm.difference == pytest.approx(0.18)
    assert erm.hours == pytest.approx(2481.2 / 3600)
    assert (crt.hardware, erm.hardware) == ("a GPU, bf16", "")
    assert crt.schedule == "200 epochs + classifier 10"
    assert len(erm.files) == 2


@pytest.mark.parametrize(
    "config", [{"backbone.depth": 20}, {"backbone._target_": "ltr.models.imagenet.Other"}, {"features.name": "stored"}]
)
def test_another_backbone_has_no_deviation(tmp_path, config):
    add(tmp_path, "experiment=cifar100_lt_erm", **config)
    (row,) = board(tmp_path / "results")
    assert row.published is None
    assert row.difference != row.difference


def test_a_backbone_is_shown_with_its_name_and_whether_it_is_frozen():
    assert backbone_text(RESNET) == "CifarResNet 32"
    assert backbone_text({**RESNET, "backbone.name": "lite0", "features.name": "stored"}) == "lite0, frozen"


def test_markdown_has_a_line_per_row_and_its_sources(results):
    text = summary_markdown(board(results))
    assert "| erm | 38.50 ± 0.71 | 70.00 | 50.00 | 20.00 | 2 | 38.32 [2] | +0.18 | CifarResNet 32 |" in text
    assert "[2] LDAM-DRW (NeurIPS 2019), Table 2; read in the paper." in text


class Html(HTMLParser):
    """Tags of a leaderboard and the text of its cells."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_html_has_a_row_and_filters_of_every_value(results):
    html_file = Html(leaderboard_html(board(results)))
    head, crt, erm = html_file.rows
    shown = dict(zip(head, (cell.strip() for cell in erm)))
    assert (shown["run"], shown["result"], shown["deviation"], shown["n"]) == ("erm", "38.50 ± 0.71", "+0.18", "2")
    assert crt[0] == "crt"
    assert [select["name"] for select in html_file.all("select")] == ["dataset", "backbone", "schedule", "hours"]
    values = {option["value"] for option in html_file.all("option")}
    assert {"cifar100_lt", "CifarResNet 32", "200 epochs", "200 epochs + classifier 10"} <= values
    assert [row.get("data-dataset") for row in html_file.all("tr")] == [None, "cifar100_lt", "cifar100_lt"]


def test_the_html_is_accessible(results):
    html_file = Html(leaderboard_html(board(results)))
    assert html_file.all("html")[0]["lang"] == "en"
    assert {head["scope"] for head in html_file.all("th")} == {"col", "row"}
    assert len(html_file.all("caption")) == 1
    assert any(paragraph.get("role") == "status" for paragraph in html_file.all("p"))
    labels = [tag for tag, _ in html_file.tags if tag in ("label", "select", "input")]
    assert all(labels[position - 1] == "label" for position, tag in enumerate(labels) if tag != "label")
    anchors = {attributes["href"].removeprefix("#") for attributes in html_file.all("a")}
    assert anchors == {item["id"] for item in html_file.all("li")}


def test_the_html_loads_nothing_from_other_hosts(results):
    html = leaderboard_html(board(results))
    assert "default-src 'none'" in html
    assert not re.findall(r"(?:src|href)=\"(?!#)", html)
    assert not re.findall(r"https?://|url\(|@import", html)


def test_names_are_escaped(tmp_path):
    add(tmp_path, "experiment=cifar100_lt_erm", name=HOSTILE, **{"backbone.name": HOSTILE, "dataset.name": HOSTILE})
    rows = board(tmp_path / "results")
    html_file = Html(leaderboard_html(rows))
    assert html_file.all("img") == []
    assert len(html_file.all("script")) == 1
    assert html_file.rows[1][0] == rows[0].label == HOSTILE
    assert not re.search(r"(?<!\\)[<\[]", summary_markdown(rows))
    assert summary_markdown(rows).count("\n| ") == 3


def test_a_result_far_from_its_published_number_is_marked(tmp_path):
    add(tmp_path, "experiment=cifar100_lt_erm", accuracy=0.36)
    html_file = Html(leaderboard_html(board(tmp_path / "results")))
    assert [cell for cell in html_file.all("td") if "far" in str(cell.get("class"))] == [
        {"class": "number far", "data-value": "-2.32"}
    ]
