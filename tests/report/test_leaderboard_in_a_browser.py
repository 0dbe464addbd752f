"""The leaderboard in a browser, if one is installed: sorting and filtering."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from made_up_outputs import write

import browser
from ltr.report.leaderboard import leaderboard_rows
from ltr.report.leaderboard_html import leaderboard_html
from ltr.report.results_folder import add_run, read_results_folder

pytestmark = [pytest.mark.slow, pytest.mark.skipif(browser.EXECUTABLE is None, reason="no Chromium is installed")]

ROWS = "[...document.querySelectorAll('tbody tr')].filter(row => !row.hidden).map(row => row.cells[0].textContent)"
HEADS = "[...document.querySelectorAll('thead th')]"
COUNT = "document.getElementById('count').textContent"


@pytest.fixture(scope="module")
def window(tmp_path_factory) -> Iterator[browser.Page]:
    folder = tmp_path_factory.mktemp("leaderboard")
    backbone = {"backbone._target_": "ltr.models.cifar_resnet.CifarResNet"}
    for index, method in enumerate(("erm", "crt", "lws")):
        seconds = [{"name": "main", "key": "k", "status": "trained", "seconds": 3600.0 * (1 + 4 * index)}]
        config = {**backbone, "backbone.depth": 20 if method == "lws" else 32}
        metrics = {"few": 0.3 - 0.1 * index, "balanced_accuracy": 0.5 + 0.1 * index}
        add_run(folder / "results", write(folder / "outputs", method, metrics=metrics, config=config, stages=seconds))
    rows = leaderboard_rows(read_results_folder(folder / "results"))
    (folder / "board.html").write_text(leaderboard_html(rows), encoding="utf-8")
    with browser.open_page(folder / "board.html", folder / "profile") as opened_board:
        yield opened_board


def choose(window: browser.Page, name: str, value: str) -> None:
    field = f"document.querySelector('form').elements['{name}']"
    window.evaluate(f"({field}.value = '{value}', {field}.dispatchEvent(new Event('input', {{bubbles: true}})), 1)")


def test_clicking_a_heading_sorts_by_numbers_and_clicking_again_reverses_the_order(window):
    few = f"{HEADS}.find(head => head.textContent === 'few').querySelector('button')"
    window.click(few)
    assert window.evaluate(ROWS) == ["erm", "crt", "lws"]
    window.click(few)
    assert window.evaluate(ROWS) == ["lws", "crt", "erm"]
    assert window.evaluate(f"{HEADS}.map(head => head.getAttribute('aria-sort')).filter(Boolean)") == ["ascending"]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("backbone", "CifarResNet 20", ["lws"]),
        ("hours", "3", ["erm"]),
        ("words", "Crt", ["crt"]),
        ("dataset", "cifar10_lt", ["crt", "erm", "lws"]),
    ],
)
def test_a_filter_hides_other_rows_and_counts(window, name, value, shown):
    choose(window, name, value)
    assert sorted(window.evaluate(ROWS)) == shown
    assert window.evaluate(COUNT) == f"{len(shown)} of 3 rows"
    choose(window, name, "")
    assert len(window.evaluate(ROWS)) == 3
