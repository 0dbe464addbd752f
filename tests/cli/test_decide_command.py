"""ltr-eval --decide: thresholds are chosen, stored with the weights, applied by ltr-predict and exported."""

from __future__ import annotations

import csv
import functools
import json

import numpy as np
import pytest
from PIL import Image

from ltr.data.sources.digits import digits


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a background and many validation images."""
    from ltr.cli import train_main

    outputs = tmp_path_factory.mktemp("decided")
    words = ["debug=fast", "dataset=digits_bg", "dataset.val=train_fraction", "dataset.val_fraction=0.3"]
    assert train_main([f"paths.outputs={outputs}", *words, "figures=none", "callbacks.progress=none"]) == 0
    return next(path.parent for path in outputs.glob("*/*/*/result.json"))


@pytest.fixture
def decide(run_command):
    from ltr.commands.evaluate import main

    return functools.partial(run_command, main)


def test_thresholds_are_stored_reported_applied_and_exported(run, decide, run_command, tmp_path):
    from ltr.commands.export import main as export
    from ltr.commands.predict import main as predict

    code, out, err = decide(run, "--decide", "recall=0.5", "--decide", "coverage=0.8", "--json", tmp_path / "d.json")
    assert code == 0, err
    assert "val: decisions: " in out
    assert "test: sets: " in out
    assert "false alarms per thousand background images" in out
    (entry,) = json.loads((run / "decisions.json").read_text())["weights"].values()
    assert entry["rules"] == {"recall": 0.5, "coverage": 0.8}
    assert len(entry["thresholds"]) == len(entry["set_thresholds"]) == 3
    assert entry["measured"] == json.loads((tmp_path / "d.json").read_text())
    on_val = entry["measured"]["val"]
    assert on_val["sets"]["coverage"] >= 0.8  # on the images that it was chosen on
    assert min(on_val["sets"]["per_class"]["coverage"]) >= 0.8

    source = digits()
    (tmp_path / "pool").mkdir()
    for row in range(12):
        Image.fromarray(source.images[row, :, :, 0]).save(tmp_path / "pool" / f"{row:02d}.png")
    flags = ["--workers", "0", "--top", "3"]
    code, _, err = run_command(predict, run, tmp_path / "pool", "--out", tmp_path / "p.csv", *flags)
    assert code == 0, err
    with open(tmp_path / "p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = entry["class_names"]
    for row in rows:
        label = names.index(row["class"])
        assert row["decision"] == (row["class"] if float(row["probability"]) >= entry["thresholds"][label] else "")
        probability = {row["class"]: row["probability"]}
        probability |= {row[f"class_{rank}"]: row[f"probability_{rank}"] for rank in (2, 3)}
        members = [name for n, name in enumerate(names) if float(probability[name]) >= entry["set_thresholds"][n]]
        assert row["set"] == "|".join(members)
    assert {row["decision"] for row in rows} <= {"", *names}

    # the thresholds are of scores without views
    code, _, err = run_command(predict, run, tmp_path / "pool", "--out", tmp_path / "v.csv", *flags, "--views", "flip")
    assert code == 0, err
    assert "of images without views, so no decisions are written" in err
    assert "decision" not in (tmp_path / "v.csv").read_text().splitlines()[0].split(",")

    code, out, err = run_command(export, run, "--out", tmp_path / "exported")
    assert code == 0, err
    exported = json.loads((tmp_path / "exported" / "decisions.json").read_text())
    assert exported["thresholds"] == entry["thresholds"]
    assert exported["set_thresholds"] == entry["set_thresholds"]


def test_levels_of_single_classes_are_applied_stored_and_reported(run, decide, run_command, tmp_path):
    from ltr.commands.export import main as export
    from ltr.commands.report import main as report

    table = tmp_path / "levels.csv"
    table.write_text("\ufeffclass;level\n0;0.6\n", encoding="utf-8")
    try:
        code, _, err = decide(run, "--decide", "recall=0.5")
        assert code == 0, err
        (plain,) = json.loads((run / "decisions.json").read_text())["weights"].values()
        rules = ["recall=0.5", "recall:background=0.9", f"recall={table}"]
        code, _, err = decide(run, *(part for rule in rules for part in ("--decide", rule)))
        assert code == 0, err
        (entry,) = json.loads((run / "decisions.json").read_text())["weights"].values()
        assert entry["rules"] == {"recall": 0.5}
        assert entry["class_levels"] == {"recall": {"background": 0.9, "0": 0.6}}
        at = entry["class_names"].index
        assert entry["thresholds"][at("background")] < plain["thresholds"][at("background")]
        assert entry["thresholds"][at("1")] == plain["thresholds"][at("1")]
        code, out, err = run_command(report, run)
        assert code == 0, err
        assert "recall 0.5 (background 0.9, 0 0.6)" in out
        assert f"{entry['measured']['test']['decisions']['false_alarms_per_thousand']:.1f}" in out
        assert run_command(export, run, "--out", tmp_path / "exported")[0] == 0
        assert json.loads((tmp_path / "exported" / "decisions.json").read_text())["class_levels"]
    finally:
        (run / "decisions.json").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["recall=0.5", "recall:backgroud=0.9"], "Did you mean 'background'?"),
        (["recall:0=0.9"], "classes without a level: background, 1. Add the level of all other classes"),
        (["recall=0.5", "recall:0=0.9", "recall:0=0.8"], "also gives the level of the class"),
        (["recall=0.5", "recall:0=1.5"], "the level '1.5' is not allowed"),
        (["recall=0.5", "precision:0=0.9"], "Leave one of them out"),
    ],
)
def test_wrong_levels_of_classes_are_refused(run, decide, words, reason):
    code, _, err = decide(run, *(part for word in words for part in ("--decide", word)))
    assert code == 2
    assert reason in err
    assert not (run / "decisions.json").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("class,level\n0,0.9\n0,0.8\n", "line 2 also gives the level of the class '0'"),
        ("class,level\n0,\n", "is empty in line 2"),
        ("class;level\n0;0,9\n", "line 2: the level '0,9' is not allowed"),
        ("class,levle\n0,0.9\n", "Did you mean 'levle'?"),
        (None, "there is no file"),
    ],
)
def test_wrong_tables_of_levels_are_refused(run, decide, tmp_path, content, reason):
    table = tmp_path / "levels.csv"
    if content is not None:
        table.write_text(content)
    code, _, err = decide(run, "--decide", "recall=0.5", "--decide", f"recall={table}")
    assert code in (1, 2)
    assert reason in err


def test_thresholds_of_other_weights_are_not_applied(run, decide, run_command, tmp_path, monkeypatch):
    from ltr.commands.predict import main as predict

    stored = run / "decisions.json"
    assert decide(run, "--decide", "recall=0.5")[0] == 0
    content = stored.read_text()
    (digest,) = json.loads(content)["weights"]
    try:
        stored.write_text(content.replace(digest, "0" * 64))
        (tmp_path / "pool").mkdir()
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "pool" / "0.png")
        arguments = (run, tmp_path / "pool", "--out", tmp_path / "p.csv", "--workers", "0")
        code, _, err = run_command(predict, *arguments)
        assert code == 0
        assert "has no decisions for final.ckpt" in err
        assert "decision" not in (tmp_path / "p.csv").read_text().splitlines()[0].split(",")
        stored.write_text(content[:50])
        code, _, err = run_command(predict, *arguments)
        assert code == 1
        assert "decisions.json cannot be read" in err
        stored.write_text(content.replace('"final.ckpt"', "1").replace("[", "[0.5, ", 3))
        code, _, err = run_command(predict, *arguments)
        assert code == 1
        assert "is damaged" in err
    finally:
        stored.unlink()


def test_a_validation_set_too_small_for_the_level_is_refused(run, decide):
    code, _, err = decide(run, "--decide", "coverage=0.999")
    assert code == 1
    assert "needs 999 validation images of each class, and 3 classes have fewer" in err
    assert "Give a level of at most" in err
    assert "dataset.val_fraction" in err
    assert not (run / "decisions.json").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["precison=0.9"], "Did you mean 'precision'"),
        (["precision=1"], "greater than 0 and less than 1"),
        (["precision=high"], "greater than 0 and less than 1"),
        (["precision=nan"], "greater than 0 and less than 1"),
        (["precision=0.9", "recall=0.9"], "Leave one of them out"),
        (["coverage=0.9", "coverage=0.8"], "Give it once"),
    ],
)
def test_wrong_rules_are_refused(run, decide, words, reason):
    code, _, err = decide(run, *(part for word in words for part in ("--decide", word)))
    assert code == 2
    assert reason in err


def test_a_lone_file_and_another_data_set_are_refused(run, decide, tmp_path):
    code, _, err = decide(run, "dataset=digits", "--decide", "recall=0.5")
    assert code == 2
    assert "leave dataset=CONFIG out" in err
    lone = tmp_path / "lone.ckpt"
    lone.write_bytes((run / "checkpoints" / "final.ckpt").read_bytes())
    code, _, err = decide(lone, "--decide", "recall=0.5")
    assert code == 2
    assert "give a finished run" in err


@pytest.mark.parametrize("flags", [("--out", "elsewhere"), ("--split", "val"), ("--config-dir", ".")])
def test_flags_that_do_not_apply_are_refused(run, decide, flags):
    code, _, err = decide(run, "--decide", "recall=0.5", *flags)
    assert code == 2
    assert f"{flags[0]}: --decide writes into the run's folder" in err


def test_a_run_without_validation_images_is_refused_with_what_to_do(decide, ltr_train):
    run = ltr_train("debug=fast", "dataset=digits_bg")
    assert run.code == 0, run.err
    code, _, err = decide(run.directory, "--decide", "recall=0.5")
    assert code == 2
    assert "has none. Train with dataset.val=train_fraction" in err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "evaluation.scorers=['energy'] has no effect: the split 'digits-"),
        (["--decide", "recall=0.5"], "evaluation.scorers: --decide reads the probabilities of the images alone"),
    ],
)
def test_scorers_of_a_background_run_are_refused(run, decide, words, reason):
    code, out, err = decide(run, *words, "evaluation.scorers=[energy]")
    assert (code, out) == (2, "")
    assert reason in err
