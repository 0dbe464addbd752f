"""The HTML report, parsed; `test_html_in_a_browser` clicks through it."""

from __future__ import annotations

import base64
import io
import json
import math
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_up_outputs import per_class, predictions, write
from PIL import Image

from ltr.report import html_plots, html_summary
from ltr.report.compose import Options, Report, compose_report
from ltr.report.html import html_report
from ltr.report.html_page import data_block, text
from ltr.report.html_style import STYLE
from ltr.report.read_runs import finished_runs

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&<!--"


class ParsedReport(HTMLParser):
    """Tags with attributes, text by the innermost tag, and how tags close."""

    VOID = ("meta", "input", "img", "br", "line", "circle", "polyline")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag in self.VOID:  # a browser writes </line>
            return
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def report(outputs: Path, **options) -> Report:
    return compose_report(finished_runs([outputs]), Options(**options))


@pytest.fixture
def outputs(tmp_path) -> Path:
    """Three methods with a sweep, classes, predictions and a figure; names that would break unescaped HTML."""
    labels = np.arange(60) % 3
    for index, method in enumerate(("erm", "crt", "lws")):
        few = 0.1 * (index + 1)
        folder = write(tmp_path, method, metrics={"few": few, "balanced_accuracy": 0.3 + few})
        per_class(folder, [HOSTILE, "two", "three"], [0.9, 0.5, few])
        predictions(folder, labels, np.arange(60) % 10 < 5 + index)
        (folder / "figures").mkdir()
        Image.new("RGB", (4, 4)).save(folder / "figures" / "accuracy_by_frequency.png")
        if method == "erm":
            Image.new("RGB", (2000, 1000)).save(folder / "figures" / "training_curves.png")
    for beta in (0.5, 0.9, 0.99):
        config = {"loss.beta": beta, "name": f"{HOSTILE} {beta}"}
        write(tmp_path, "cb", metrics={"few": beta / 2, "balanced_accuracy": 0.2}, config=config)
    return tmp_path


def test_the_document_is_well_formed_and_loads_nothing_from_other_hosts(outputs):
    parsed = ParsedReport(html_report(report(outputs, against="best")))
    assert not parsed.open
    for _, attributes in parsed.tags:
        for name in ("src", "href", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/webp;base64,", "#")), value
        assert not any(name.startswith("on") for name in attributes)
    assert not parsed.all("link")
    policy = next(meta["content"] for meta in parsed.all("meta") if meta.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_names_are_escaped(outputs):
    parsed = ParsedReport(html_report(report(outputs)))
    assert any(HOSTILE in cell for cell in parsed.texts["td"])
    assert len(parsed.all("img")) == 4  # the figures alone
    blocks = [json.loads(block) for block in parsed.texts["script"] if block.startswith("{")]
    assert [block["names"][0] for block in blocks] == [HOSTILE]


@pytest.mark.parametrize("value", [HOSTILE, "</SCRIPT >", "\u2028", {"a": "<!--<script>"}])
def test_data_inside_a_script_cannot_end_it(value):
    block = data_block(value)
    inside = block.removeprefix('<script type="application/json">').removesuffix("</script>")
    assert "<" not in inside
    assert json.loads(inside) == value


def test_bytes_that_are_not_text_are_shown_escaped(tmp_path):
    assert text("caf\udce9") == "caf\\xe9"
    html_report(report(write(tmp_path, config={"name": "caf\udce9"}))).encode("utf-8")


def test_cells_have_their_sort_value(outputs):
    parsed = ParsedReport(html_report(report(outputs, metrics=("few",))))
    values = [float(cell["data-value"]) for cell in parsed.all("td") if "data-value" in cell]
    assert 0.3 in values
    assert not any(math.isnan(value) for value in values)


def test_every_line_with_its_classes_can_be_chosen(outputs):
    html = html_report(report(outputs))
    data = next(json.loads(block) for block in ParsedReport(html).texts["script"] if block.startswith("{"))
    assert [line["label"] for line in data["lines"]] == ["lws", "crt", "erm"]
    assert data["lines"][0]["accuracy"] == [0.9, 0.5, 0.3]
    assert data["counts"] == [1000, 100, 10]
    assert data["groups"] == ["many", "medium", "few"]


def test_sweeps_have_a_figure(outputs):
    parsed = ParsedReport(html_report(report(outputs)))
    tips = [attributes["data-tip"] for attributes in parsed.all("circle")]
    assert "loss.beta = 0.99, few: 49.5, n = 1" in tips


def test_no_more_figures_than_requested(outputs):
    assert len(ParsedReport(html_report(report(outputs), figure_runs=1)).all("img")) == 1
    assert not ParsedReport(html_report(report(outputs), figure_runs=0)).all("img")


def test_figures_are_made_for_a_screen(outputs):
    parsed = ParsedReport(html_report(report(outputs)))
    (large,) = [image for image in parsed.all("img") if image["alt"] == "training curves"]
    data = base64.b64decode((large["src"] or "").removeprefix("data:image/webp;base64,"))
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (1120, 560)


def test_a_damaged_figure_is_named_and_skipped(outputs):
    (path,) = outputs.rglob("training_curves.png")
    whole = len(ParsedReport(html_report(report(outputs))).all("img"))
    path.write_bytes(b"half")
    problems: list[str] = []
    parsed = html_report(report(outputs), problems=problems)
    assert len(problems) == 1
    assert "training_curves.png is damaged" in problems[0]
    assert "training_curves.png is damaged" in parsed
    assert len(ParsedReport(parsed).all("img")) == whole - 1


def test_a_figure_that_is_a_link_out_of_the_run_is_not_embedded(outputs, tmp_path):
    (path,) = outputs.rglob("training_curves.png")
    elsewhere = tmp_path / "private.png"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    problems: list[str] = []
    parsed = ParsedReport(html_report(report(outputs), problems=problems))
    assert "training curves" not in [image["alt"] for image in parsed.all("img")]
    assert "link out of the run" in problems[0]


def test_a_document_is_made_of_runs_without_tables_or_figures(tmp_path):
    write(tmp_path, metrics={"few": None})
    parsed = ParsedReport(html_report(report(tmp_path)))
    assert [table["class"] for table in parsed.all("table")] == ["summary", "sortable"]
    assert not parsed.all("img")


def summary_rows(html: str) -> list[list[str]]:
    """The rows of the summary's first table as texts."""
    table = html.split('<table class="summary">')[1].split("</table>")[0].split("<tbody>")[1]
    rows = [ParsedReport(f"<table>{row}</tr></table>") for row in table.split("</tr>")[:-1]]
    return [[*row.texts.get("th", []), *row.texts.get("td", []), *row.texts.get("span", [])] for row in rows]


def test_the_summary_names_the_best_line_of_each_metric_with_seeds_and_deviation(tmp_path):
    for seed, few in enumerate((0.2, 0.3)):
        write(tmp_path, "erm", seed, metrics={"few": few - 0.19, "balanced_accuracy": 0.7})
        write(tmp_path, "crt", seed, metrics={"few": few, "balanced_accuracy": 0.6})
        write(tmp_path, "lws", seed, metrics={"few": few - 0.01, "balanced_accuracy": 0.5})
    write(tmp_path, "ncm", metrics={"few": 0.9}, config={"trainer.limit_train_batches": 2})
    rows = summary_rows(html_report(report(tmp_path, metrics=("few", "balanced_accuracy"))))
    assert rows == [["few", "crt ", "25.0 ± 7.1", "2", "= lws"], ["bACC", "erm", "70.0 ± 0.0", "2"]]


def test_a_table_without_a_comparable_line_has_no_best(tmp_path):
    write(tmp_path, "ncm", metrics={"few": 0.9}, config={"trainer.limit_train_batches": 2})
    html = html_report(report(tmp_path))
    assert '<table class="summary">' not in html
    assert "No row to compare" in html


def test_cost_against_accuracy_has_a_figure_with_its_numbers(tmp_path):
    for method, seconds, few in (("erm", 100.0, 0.1), ("crt", 400.0, 0.3)):
        stages = [{"name": "main", "key": "k", "status": "trained", "seconds": seconds}]
        write(tmp_path, method, metrics={"few": few, "balanced_accuracy": few}, stages=stages)
    parsed = ParsedReport(html_report(report(tmp_path, metrics=("few",))))
    tips = [circle["data-tip"] for circle in parsed.all("circle")]
    assert sorted(tips) == ["crt\nfew: 30.0, n = 1\ncost: 400 s", "erm\nfew: 10.0, n = 1\ncost: 100 s"]
    assert {"erm", "crt", "100", "200"} <= set(parsed.texts["text"])
    assert {"100 s", "400 s"} <= set(parsed.texts["td"])


def test_large_tables_are_shown_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(html_summary, "_MAX_POINTS", 3)
    monkeypatch.setattr(html_plots, "_MAX_LABELS", 2)
    for number in range(5):
        config = {"name": f"line {number}"}
        write(tmp_path, "erm", metrics={"few": 0.9 - number / 10, "balanced_accuracy": 0.5}, config=config)
    html = html_report(report(tmp_path, metrics=("few",)))
    parsed = ParsedReport(html)
    assert len(parsed.all("circle")) == 3
    assert [text for text in parsed.texts["text"] if text.startswith("line")] == ["line 0", "line 1"]
    assert "2 more rows of the table are not drawn" in html


def test_figures_are_unfolded_and_other_numbers_folded(outputs):
    details = html_report(report(outputs)).split("<details")[1:]
    shown = [block.startswith(" open") for block in details]
    assert shown == ["<img" in block for block in details]


def test_controls_are_named_and_reachable_by_keyboard(outputs):
    html = html_report(report(outputs, against="best"))
    parsed = ParsedReport(html)
    ids = {attributes["id"] for _, attributes in parsed.tags if "id" in attributes}
    assert parsed.all("a")[0] == {"class": "skip", "href": "#content"}
    assert {link["href"] for link in parsed.all("a")} <= {f"#{name}" for name in ids}
    for control in ("<select", "<input"):
        for before in html.split(control)[:-1]:  # each inside a label of its own
            assert before.rfind("<label>") > before.rfind("</label>")
    scrolled = [attributes for _, attributes in parsed.tags if attributes.get("class") == "scroll"]
    assert scrolled
    assert all(attributes["tabindex"] == "0" and attributes["aria-label"] for attributes in scrolled)
    assert all(head.get("scope") in ("row", "col") for head in parsed.all("th"))
    assert all(svg.get("role") == "img" and svg.get("aria-label") for svg in parsed.all("svg"))


def test_the_style_has_dark_print_and_focus_rules():
    for rule in ("@media (prefers-color-scheme: dark)", ":root[data-theme=dark]", "@media print", ":focus-visible"):
        assert rule in STYLE
    dark, printed = STYLE.index(":root[data-theme=dark]"), STYLE.index("@media print")
    assert dark < printed  # paper is white whatever the theme
