"""The sheet of an audit: relabelled with the keyboard in a browser, and saved as a table that training reads."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import browser
import trees
from ltr.apply.audit_sheet import write_audit_sheet
from ltr.data.images.regions import BoxCrops
from ltr.data.source import ImageFiles, Source
from ltr.data.sources.table import image_table

needs_browser = pytest.mark.skipif(browser.EXECUTABLE is None, reason="no Chromium is installed")
NAMES = ("ant", "=bee", "</script><b>cat")


@pytest.fixture
def own(tmp_path):
    """A table of user images, of which the third is labelled wrongly."""
    labels = [NAMES[number % 3] for number in range(8)]
    for number in range(8):
        trees.put(tmp_path / f"{number}.jpg", number)
    rows = [f"{number}.jpg,{label.replace('=bee', chr(39) + '=bee')},train" for number, label in enumerate(labels)]
    rows.append(f"8.jpg,{NAMES[0]},test")
    trees.put(tmp_path / "8.jpg", 8)
    trees.lines(tmp_path / "images.csv", ["path,label,split", *rows])
    return image_table(name="own", file=str(tmp_path / "images.csv"))


def issue(index, kind, score, suggested="", copy_of="", label="ant", box=""):
    return {
        "path": f"{index}.jpg",
        "part": "train",
        "label": label,
        "issue": kind,
        "suggested": suggested,
        "score": score,
        "copy_of": copy_of,
        "box": box,
        "index": index,
    }


ISSUES = [
    issue(2, "label", 4.5, suggested=NAMES[1]),
    issue(0, "label", 2.5, suggested=NAMES[2]),
    issue(2, "outlier", 0.7),
    issue(5, "copy", 1.0, copy_of="1.jpg"),
]


def contents(path):
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text()).group(1))


def test_every_image_appears_once_with_all_its_issues(own, tmp_path):
    write_audit_sheet(tmp_path / "sheet.html", "<i>Audit</i>", ISSUES, own, own.class_names)
    data = contents(tmp_path / "sheet.html")
    assert [image["path"] for image in data["images"]] == ["2.jpg", "0.jpg", "5.jpg"]
    assert data["images"][0]["says"] == (
        "likely label error: labelled ant (train), looks like =bee, score 4.50; "
        "outlier of its class: labelled ant (train), score 0.70"
    )
    assert all(image["data"] for image in data["images"])
    text = (tmp_path / "sheet.html").read_text()
    assert "<i>Audit" not in text
    assert text.count("<b>cat") == 0
    assert "http" not in text, "it asks for nothing from the network"


def test_an_audit_without_issues_writes_a_sheet_with_that_statement(own, tmp_path):
    write_audit_sheet(tmp_path / "sheet.html", "Audit", [], own, own.class_names)
    assert contents(tmp_path / "sheet.html")["images"] == []


@pytest.mark.slow
@needs_browser
def test_labels_corrected_in_a_browser_are_read_by_training(own, tmp_path):
    write_audit_sheet(tmp_path / "sheet.html", "Audit", ISSUES, own, own.class_names)
    with browser.open_page(tmp_path / "sheet.html", tmp_path / "profile") as window:
        keys = {name: str(number + 1) for number, name in enumerate(own.class_names)}
        window.press(keys["=bee"])
        assert "2.jpg as =bee" in window.evaluate("document.getElementById('status').textContent")
        window.press("s")
        window.open(window.evaluate("location.href"), 1200, 900)  # the state stays in the browser
        assert window.evaluate("Object.keys(state.labels).length") == 2
        assert window.evaluate("[...find('class').options].map(option => option.value)") == [
            "", "copy under another label", "likely label error"
        ]  # fmt: skip
        window.evaluate("(find('score').value = 4, find('score').dispatchEvent(new Event('input')))")
        assert window.evaluate("shown.length") == 1
        corrected = window.evaluate("table()")
        assert window.evaluate("data.file") == "corrected.csv"
    (tmp_path / "corrected.csv").write_text(corrected, newline="")
    tables = [str(tmp_path / "images.csv"), str(tmp_path / "corrected.csv")]
    with pytest.warns(UserWarning, match="1 label changes: 2.jpg"):
        again = image_table(name="own", file="none.csv", labels=tables)
    label_of = {again.images.relative(row): again.class_names[again.labels[row]] for row in range(len(again))}
    before = {own.images.relative(row): own.class_names[own.labels[row]] for row in range(len(own))}
    assert {path for path in before if before[path] != label_of[path]} == {"2.jpg"}
    assert label_of["2.jpg"] == "=bee"


@pytest.mark.slow
@needs_browser
def test_crops_of_one_file_have_separate_labels(tmp_path):
    trees.put(tmp_path / "a.jpg", 0)
    boxes = np.array([[0, 0, 0.5, 1], [0.5, 0, 0.5, 1]], dtype=np.float32)
    files = ImageFiles.from_paths(tmp_path, ["a.jpg", "a.jpg"], crops=BoxCrops(boxes, 0.0, False))
    source = Source("crops", files, np.array([0, 1]), ("x", "y"), {"train": range(2)})
    issues = [
        {**issue(row, "label", 2.0 - row, box=" ".join(map(str, boxes[row].tolist()))), "path": "a.jpg"}
        for row in range(2)
    ]
    write_audit_sheet(tmp_path / "sheet.html", "Audit", issues, source, source.class_names)
    with browser.open_page(tmp_path / "sheet.html", tmp_path / "profile") as window:
        window.press("1")
        window.press("2")
        lines = window.evaluate("table()").split("\r\n")
    assert lines == [
        "path,label,x,y,width,height", "a.jpg,x,0.0,0.0,0.5,1.0", "a.jpg,y,0.5,0.0,0.5,1.0", ""
    ]  # fmt: skip
