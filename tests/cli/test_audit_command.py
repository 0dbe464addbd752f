"""ltr-data audit: table and sheet of a run's data set, and everything that may be wrong with the command."""

from __future__ import annotations

import csv
from html.parser import HTMLParser

import pytest

from ltr.cli import run_guarded


@pytest.fixture
def audit(capsys, tmp_path, monkeypatch):
    from ltr.commands.data import main

    monkeypatch.chdir(tmp_path)

    def command(*arguments):
        code = run_guarded(lambda: main(["audit", *map(str, arguments)]))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def test_issues_are_written_as_a_table_and_a_sheet(audit, finished_run, tmp_path):
    code, out, err = audit(finished_run, "--part", "val", "--part", "test", "--out", "audit", "--folds", "2")
    assert code == 0, err
    with open(tmp_path / "audit" / "issues.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = {kind: sum(row["issue"] == kind for row in rows) for kind in ("label", "copy", "outlier")}
    assert f"{kinds['label']:,} likely label errors" in out
    scores = [float(row["score"]) for row in rows if row["issue"] == "label"]
    assert scores == sorted(scores, reverse=True)
    assert {row["part"] for row in rows} <= {"val", "test"}
    assert all(row["suggested"] not in ("", row["label"]) for row in rows if row["issue"] == "label")
    images = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: images.append(dict(attributes)) if tag == "img" else None
    parser.feed((tmp_path / "audit" / "sheet.html").read_text())
    assert len(images) == sum(min(count, 200) for count in kinds.values())
    assert all(image["alt"] for image in images)


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
