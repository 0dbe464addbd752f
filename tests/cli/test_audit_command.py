"""ltr-data audit: table and sheet of a run's data set, and wrong commands."""

from __future__ import annotations

import csv
import functools
import json
import re

import pytest


@pytest.fixture
def audit(run_command, tmp_path, monkeypatch):
    from ltr.commands.data import main

    monkeypatch.chdir(tmp_path)
    return functools.partial(run_command, main, "audit")


def test_issues_are_written_as_a_table_and_a_sheet(audit, finished_run, tmp_path):
    code, out, err = audit(finished_run, "--part", "val", "--part", "test", "--out", "audit")
    assert code == 0, err
    with open(tmp_path / "audit" / "issues.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = {kind: sum(row["issue"] == kind for row in rows) for kind in ("label", "copy", "outlier")}
    assert f"{kinds['label']:,} likely label error" in out
    scores = [float(row["score"]) for row in rows if row["issue"] == "label"]
    assert scores == sorted(scores, reverse=True)
    assert {row["part"] for row in rows} <= {"val", "test"}
    assert all(row["suggested"] not in ("", row["label"]) for row in rows if row["issue"] == "label")
    sheet = (tmp_path / "audit" / "sheet.html").read_text()
    images = json.loads(re.search(r'id="data">(.*?)</script>', sheet).group(1))["images"]
    assert len(images) == len({row["path"] for row in rows})
    assert all(image["data"] and image["says"] for image in images)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "no such run"),
        (["{run}", "--folds", "1"], "--folds 1: allowed is 2 to 100"),
        (["{run}", "--part", "unknown"], "invalid choice: 'unknown'"),
        (["{run}", "--out", "{run}/config.yaml"], "config.yaml"),
    ],
)
def test_wrong_commands_exit_with_their_reason(audit, finished_run, tmp_path, arguments, words):
    code, out, err = audit(*(argument.format(run=finished_run) for argument in arguments))
    assert code in (1, 2)
    assert words in err
    assert "Traceback" not in err
    assert not out
    assert not list(tmp_path.rglob("issues.csv"))


def test_the_default_folder_names_the_run():
    from pathlib import Path

    from ltr.commands.audit import _default_folder

    one, other = (_default_folder("d", Path(f"outputs/d/erm/{run}/checkpoints/last.ckpt")) for run in ("a", "b"))
    assert one == Path("outputs/audit/d/erm/a")
    assert one != other


def test_issues_name_the_boxes_of_crops_of_one_file(tmp_path):
    from types import SimpleNamespace

    import numpy as np

    from ltr.commands.audit import _write
    from ltr.data.images.regions import BoxCrops
    from ltr.data.source import ImageFiles, Source

    boxes = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]], dtype=np.float32)
    files = ImageFiles.from_paths(str(tmp_path), ["a.jpg", "a.jpg"], crops=BoxCrops(boxes))
    source = Source("s", files, np.array([0, 1]), ("x", "y"), {"train": range(2)})
    split = SimpleNamespace(class_names=("x", "y"), name="s")
    issue = {"row": 0, "issue": "copy", "suggested": -1, "score": 1.0, "other": 1}
    outcome = SimpleNamespace(issues=lambda: [issue])
    _write(tmp_path / "out", source, split, np.arange(2), np.zeros(2, dtype=int), source.labels, outcome)
    with open(tmp_path / "out" / "issues.csv", newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["path"], row["box"]) == ("a.jpg", "0 0 0.5 0.5")
    assert (row["copy_of"], row["copy_of_box"]) == ("a.jpg", "0.5 0.5 0.5 0.5")


def test_a_list_that_the_data_set_excludes_is_not_replaced(audit, finished_run, tmp_path, monkeypatch):
    from ltr.data.packed_images import reading

    real = reading.read_source
    (tmp_path / "audit").mkdir()
    listed = tmp_path / "audit" / "issues.csv"
    listed.write_text("a.png\n")

    def read(dataset):
        dataset["exclude"] = "audit/issues.csv"
        return real({**dataset, "exclude": None})

    monkeypatch.setattr(reading, "read_source", read)
    code, _, err = audit(finished_run, "--out", "audit")
    assert (code, "the command reads this file" in err) == (2, True), err
    assert listed.read_text() == "a.png\n"
