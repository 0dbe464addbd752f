"""The HTML report in a browser, if one is installed: sorting, filtering, hovering and choosing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from made_up_outputs import per_class, write
from PIL import Image

import browser
from ltr.report.compose import Options, compose_report
from ltr.report.html import html_report
from ltr.report.read_runs import finished_runs

pytestmark = [pytest.mark.slow, pytest.mark.skipif(browser.EXECUTABLE is None, reason="no Chromium is installed")]

HOSTILE = "</script><img src=x onerror=document.title=1>\"'&<!--"
TABLE = "document.querySelector('table.sortable')"
FEW = f"[...{TABLE}.tHead.rows[0].cells].find(head => head.textContent.startsWith('few'))"
SHOWN = f"[...{TABLE}.tBodies[0].rows].filter(row => !row.hidden).map(row => row.cells[0].textContent)"
TIP = "(tip => tip.style.display === 'block' ? tip.textContent : '')(document.getElementById('tip'))"
CHOICE = "document.querySelectorAll('.perclass select')[1]"
POINTS = "document.querySelectorAll('.perclass circle').length"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with ``report.html``: three methods with classes, figures, and a sweep."""
    folder = tmp_path_factory.mktemp("report")
    for index, method in enumerate(("erm", "crt", "lws")):
        few = 0.1 * (index + 1)
        run = write(folder / "outputs", method, metrics={"few": few, "balanced_accuracy": 0.5})
        per_class(run, [HOSTILE, "two", "three"], [0.9, 0.5, few])
        (run / "figures").mkdir()
        noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).save(run / "figures" / "accuracy_by_frequency.png")
        if method != "erm":
            Image.fromarray(noise).save(run / "figures" / "confusion.png")
    for beta in (0.5, 0.9, 0.99):
        metrics, config = {"few": beta / 2, "balanced_accuracy": 0.2}, {"loss.beta": beta, "name": f"cb {beta}"}
        write(folder / "outputs", "cb", metrics=metrics, config=config)
    report = compose_report(finished_runs([folder / "outputs"]), Options(metrics=("few",)))
    (folder / "report.html").write_text(html_report(report), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def window(folder) -> Iterator[browser.Page]:
    with browser.open_page(folder / "report.html", folder / "profile") as opened_report:
        yield opened_report


@pytest.fixture
def opened_report(window) -> browser.Page:
    """The freshly opened report."""
    window.open(window.evaluate("location.href"), 1200, 900)
    return window


def test_clicking_a_heading_sorts_and_clicking_again_reverses_the_order(opened_report):
    opened_report.click(f"{FEW}.querySelector('button')")
    assert opened_report.evaluate(f"{FEW}.getAttribute('aria-sort')") == "descending"
    assert opened_report.evaluate(SHOWN)[-2:] == ["crt", "erm"]
    opened_report.click(f"{FEW}.querySelector('button')")
    assert opened_report.evaluate(f"{FEW}.getAttribute('aria-sort')") == "ascending"
    assert opened_report.evaluate(SHOWN)[:2] == ["erm", "crt"]


def test_the_filter_hides_the_other_lines(opened_report):
    opened_report.click("document.getElementById('filter')")
    opened_report.type("crt")
    assert opened_report.evaluate(SHOWN) == ["crt"]


def test_hovering_over_a_class_shows_its_numbers(opened_report):
    opened_report.hover("document.querySelector('.perclass circle')")
    assert opened_report.evaluate(TIP).split("\n") == [HOSTILE, "1000 training images, many", "lws: 90.0 %"]
    opened_report.hover("document.querySelector('h1')")
    assert opened_report.evaluate(TIP) == ""


def test_a_second_line_can_be_compared_with_the_first(opened_report):
    before = opened_report.evaluate(POINTS)
    opened_report.evaluate(f"({CHOICE}.value = '1', {CHOICE}.dispatchEvent(new Event('change')))")
    assert opened_report.evaluate(POINTS) == 2 * before
    assert (
        opened_report.evaluate("document.querySelector('.perclass .shown').textContent") == "filled: lws; outlined: crt"
    )


def test_hovering_over_a_point_of_a_sweep_shows_its_value(opened_report):
    opened_report.hover("document.querySelector('.panels g:not(.line) > circle[data-tip]')")
    assert opened_report.evaluate(TIP).startswith("loss.beta = 0.5")


def test_figures_are_shown(opened_report):
    assert opened_report.evaluate("[...document.images].map(image => image.naturalWidth)") == [60] * 5


def test_one_figure_of_all_runs_can_be_chosen(opened_report):
    opened_report.evaluate(
        "(choice => (choice.value = 'confusion', choice.dispatchEvent(new Event('change'))))"
        "(document.querySelector('.runs select'))"
    )
    shown = opened_report.evaluate(
        "[...document.images].filter(image => image.checkVisibility()).map(image => image.alt)"
    )
    assert shown == ["confusion", "confusion"]


@pytest.mark.parametrize(("width", "columns"), [(1400, 2), (700, 1)])
def test_the_width_of_the_window_is_used(window, width, columns):
    window.open(window.evaluate("location.href"), width, 900)
    edges = "[...document.querySelectorAll('.run-figures img')].map(image => image.getBoundingClientRect().x)"
    assert len(set(window.evaluate(edges))) == columns
    summary = "[...document.querySelector('#summary .panels').children].map(one => one.getBoundingClientRect().x)"
    assert len(set(window.evaluate(summary))) == columns
    assert window.evaluate("document.documentElement.scrollWidth") <= width


def background(tab: browser.Page) -> str:
    return tab.evaluate("getComputedStyle(document.body).backgroundColor")


def test_the_theme_follows_the_system_until_a_button_chooses(opened_report):
    opened_report.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    dark = background(opened_report)
    assert dark != "rgb(255, 255, 255)"
    opened_report.click("document.getElementById('theme')")
    assert background(opened_report) == "rgb(255, 255, 255)"
    assert opened_report.evaluate("document.getElementById('theme').textContent") == "Dark mode"
    opened_report.click("document.getElementById('theme')")
    assert background(opened_report) == dark
    opened_report.evaluate("localStorage.clear()")


def test_printing_uses_a_white_background_without_controls(opened_report):
    opened_report.evaluate("(document.documentElement.dataset.theme = 'dark')")
    opened_report.send("Emulation.setEmulatedMedia", media="print")
    assert background(opened_report) == "rgb(255, 255, 255)"
    assert not opened_report.evaluate("document.getElementById('filter').checkVisibility()")
    assert opened_report.evaluate("document.querySelector('.run-figures img').checkVisibility()")


def test_the_first_tab_reaches_a_link_that_skips_the_controls(opened_report):
    for kind in ("keyDown", "keyUp"):
        opened_report.send("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert opened_report.evaluate("document.activeElement.className") == "skip"
    assert opened_report.evaluate("document.activeElement.getBoundingClientRect().x") >= 0
    assert opened_report.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_numbers_of_classes_are_listed_with_their_difference(opened_report):
    opened_report.evaluate(f"({CHOICE}.value = '2', {CHOICE}.dispatchEvent(new Event('change')))")
    opened_report.click("document.querySelector('.perclass summary')")
    table = "document.querySelector('.perclass table')"
    opened_report.wait_for(f"{table} !== null")  # the toggle event comes after the click
    rows = opened_report.evaluate(f"[...{table}.rows].map(row => [...row.cells].map(cell => cell.textContent))")
    assert rows[0] == ["class", "training images", "group", "lws", "erm", "difference"]
    assert rows[3] == ["three", "10", "few", "30.0 %", "10.0 %", "+20.0"]


def test_the_report_loads_nothing_and_names_execute_no_code(opened_report):
    assert [
        address for address in opened_report.requests if not address.startswith(("file:", "data:image/webp;", "about:"))
    ] == []
    assert opened_report.evaluate("document.title").endswith("finished runs")
