"""Runs of fewer batches or epochs than their recipe: marked with the reason in every table, never the best."""

from __future__ import annotations

import csv
import io
import json

import pytest
from made_up_outputs import write

from ltr.report.compose import Options, as_text, compose_report
from ltr.report.html import html_report
from ltr.report.limits import limits
from ltr.report.published import markdown
from ltr.report.published_lines import Entry
from ltr.report.read_run import read_run
from ltr.report.read_runs import finished_runs
from ltr.report.results_checks import entry_mistakes
from ltr.report.sweep import Job, sweep_table
from ltr.report.table import plain_table

ONE_EPOCH = {"trainer.max_epochs": 1}
BATCHES = {"trainer.limit_train_batches": 2}
EPOCHS_SAID = "1 of the recipe's 200 epochs (trainer.max_epochs)"
BATCHES_SAID = "2 batches an epoch (trainer.limit_train_batches)"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"dataset.name": "cifar10_lt", "trainer.max_epochs": 200, "trainer.limit_train_batches": None}, ""),
        ({"dataset.name": "cifar10_lt", "trainer.max_epochs": 300}, ""),
        ({"dataset.name": "cifar10_lt", **ONE_EPOCH}, EPOCHS_SAID),
        ({"dataset.name": "my_own", **ONE_EPOCH}, ""),
        ({"dataset.name": "cifar10_lt", "features.name": "images", **ONE_EPOCH}, EPOCHS_SAID),
        ({"dataset.name": "cifar10_lt", "features.name": "stored", "trainer.max_epochs": 10}, ""),
        ({"dataset.name": "cifar10_lt", "features.name": "stored", **ONE_EPOCH}, "1 of the recipe's 10 epochs"),
        ({"dataset.name": "cifar10_lt", "features.name": "stored", "features.solver": "lbfgs", **ONE_EPOCH}, ""),
        ({"dataset.name": "my_own", **BATCHES}, BATCHES_SAID),
        # of the pair, also where its config takes another one's values
        ({"dataset.name": "cub", "method.name": "pim", "trainer.max_epochs": 50}, ""),
        ({"dataset.name": "cub", "method.name": "pim", "trainer.max_epochs": 49}, "49 of the recipe's 50 epochs"),
        (
            {
                "dataset.name": "cub_retrieval",
                "method.name": "rkd",
                "trainer.max_epochs": 80,
                "method.teacher.epochs": 1,
            },
            "1 of the recipe's 40 epochs (method.teacher.epochs)",
        ),
        ({"dataset.name": "cub_retrieval", "method.name": "rkd", "trainer.max_epochs": "x"}, ""),
    ],
)
def test_limits_name_the_options_that_shorten_a_run(config, reason):
    assert limits(config, {}).startswith(reason)
    assert bool(limits(config, {})) == bool(reason)


@pytest.fixture
def outputs(tmp_path):
    """Two whole runs, and two limited ones with better numbers."""
    write(tmp_path, "erm", metrics={"few": 0.1})
    write(tmp_path, "crt", metrics={"few": 0.2})
    write(tmp_path, "lws", metrics={"few": 0.8}, config=ONE_EPOCH)
    write(tmp_path, "ncm", metrics={"few": 0.9}, config=BATCHES)
    return tmp_path


def report(outputs):
    return compose_report(finished_runs([outputs]), Options(metrics=("few",)))


def test_limited_runs_are_marked_and_last_and_never_the_best(outputs):
    made = report(outputs)
    (part,) = made.parts
    assert [row[0].text for row in part.sheet.rows] == ["crt", "erm", "ncm †", "lws ‡"]
    assert [row[2].mark for row in part.sheet.rows] == ["best", "", "", ""]
    assert any(note.startswith(f"† limited: {BATCHES_SAID}") for note in part.sheet.notes)
    assert any(note.startswith(f"‡ limited: {EPOCHS_SAID}") for note in part.sheet.notes)
    assert made.warnings[-1].endswith("flagged and never marked as best: 2 results")


@pytest.mark.parametrize(
    ("form", "marked", "reason"),
    [("table", "ncm †", "† limited: 2"), ("markdown", "ncm †", "† limited: 2"), ("latex", r"ncm \textdagger{}", "†")],
)  # fmt: skip
def test_every_text_format_marks_limited_runs(outputs, form, marked, reason):
    text = as_text(report(outputs), form)
    assert marked in text
    assert reason in text


def test_html_and_csv_mark_limited_runs(outputs):
    config = html_report(report(outputs))
    assert "ncm †" in config
    assert "† limited: 2 batches an epoch" in config
    lines = {line["row"]: line["limited"] for line in csv.DictReader(io.StringIO(as_text(report(outputs), "csv")))}
    assert lines == {"crt": "", "erm": "", "lws": EPOCHS_SAID, "ncm": BATCHES_SAID}


def test_a_published_number_next_to_a_limited_run_is_annotated(outputs):
    run = next(read_run(path.parent) for path in outputs.rglob("result.json") if "ncm" in str(path))
    (run.path / "provenance.json").write_text('{"code": {"commit": "1", "dirty": false}}')
    text = markdown([Entry("config", (run,), 70.0, "a paper")], "command")
    assert "| ncm † |" in text
    assert "70.00 [1] †" in text
    assert "† limited: 2 batches an epoch" in text


def test_test_images_in_training_are_a_limit(tmp_path):
    folder = write(tmp_path, "lws", metrics={"few": 0.8})
    write(tmp_path, "erm", metrics={"few": 0.1})
    result = json.loads((folder / "result.json").read_text())
    result["data"] |= {"evaluated_images": 10_000, "trained_on_images": 0}
    (folder / "result.json").write_text(json.dumps(result))
    assert "†" not in as_text(report(tmp_path), "table")
    assert not [line for line in entry_mistakes(read_run(folder)) if "trained on" in line]
    result["data"]["trained_on_images"] = 1_200
    (folder / "result.json").write_text(json.dumps(result))
    reason = "trained on 1,200 of the 10,000 evaluated images"
    text = as_text(report(tmp_path), "table")
    assert f"† limited: {reason}" in text
    assert text.index("erm") < text.index("lws †")
    assert f"limited: {reason}" in plain_table(read_run(folder).result)
    assert any(line.startswith(reason) for line in entry_mistakes(read_run(folder)))
    del result["data"]["evaluated_images"]  # by hand
    (folder / "result.json").write_text(json.dumps(result))
    assert f"† limited: {reason}" in as_text(report(tmp_path), "table")


def test_the_table_of_a_run_names_its_limits(outputs):
    for path in outputs.rglob("result.json"):
        limited = "limited: " in plain_table(read_run(path.parent).result)
        assert limited == ("ncm" in str(path) or "lws" in str(path))


LONGER = {"trainer.max_epochs": 300}
LONGER_SAID = "longer schedule: 300 epochs instead of the recipe's 200 (trainer.max_epochs)"


def test_a_longer_schedule_is_marked_and_is_not_the_best_among_shorter_ones(tmp_path):
    write(tmp_path, "erm", metrics={"few": 0.1})
    write(tmp_path, "crt", metrics={"few": 0.2})
    write(tmp_path, "lws", metrics={"few": 0.8}, config=LONGER)
    (part,) = report(tmp_path).parts
    assert [row[0].text for row in part.sheet.rows] == ["lws †", "crt", "erm"]
    assert [row[2].mark for row in part.sheet.rows] == ["", "best", ""]
    assert any(note.startswith(f"† {LONGER_SAID}; ranked among equal schedules only") for note in part.sheet.notes)
    assert LONGER_SAID in as_text(report(tmp_path), "csv")
    assert ">crt</td>" in html_report(report(tmp_path)).split('<table class="summary">')[1]


def test_runs_of_the_same_longer_schedule_are_ranked(tmp_path):
    write(tmp_path, "erm", metrics={"few": 0.1}, config=LONGER)
    write(tmp_path, "crt", metrics={"few": 0.2}, config=LONGER)
    (part,) = report(tmp_path).parts
    assert [row[2].mark for row in part.sheet.rows] == ["best", ""]


def test_the_table_of_a_run_names_a_longer_schedule(tmp_path):
    result = read_run(write(tmp_path, "erm", config=LONGER)).result
    assert " ".join(plain_table(result).split()).endswith(LONGER_SAID)


def test_no_limited_run_has_the_star_of_a_sweep(tmp_path):
    jobs = []
    for number, (few, config) in enumerate([(0.1, {}), (0.2, {"loss.beta": 1}), (0.9, {"loss.beta": 2, **BATCHES})]):
        result = read_run(write(tmp_path, "erm", config=config, metrics={"balanced_accuracy": few})).result
        head = result["rows"][0]
        rows = [head, {**head, "split": "val", "headline": False}]
        jobs.append(Job(number, (f"loss.beta={number}",), {**result, "rows": rows}))
    lines = sweep_table(jobs).splitlines()
    assert [line[:1] for line in lines[1:4]] == [" ", "*", "†"]
    assert any(line.startswith("† limited: 2 batches") for line in lines)


def test_a_sweep_of_equally_limited_runs_has_a_star_and_marks(tmp_path):
    jobs = []
    for number, few in enumerate([0.1, 0.2]):
        config = {**BATCHES, "loss.beta": number}
        result = read_run(write(tmp_path, "erm", config=config, metrics={"balanced_accuracy": few})).result
        head = result["rows"][0]
        jobs.append(
            Job(
                number,
                (f"loss.beta={number}",),
                {**result, "rows": [head, {**head, "split": "val", "headline": False}]},
            )
        )
    lines = sweep_table(jobs).splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["†", "*†"]
