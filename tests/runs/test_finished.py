"""A finished run is taken again only with the data and the code that it was made with."""

from __future__ import annotations

import json
import re
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

import trees
from ltr.report.read_runs import finished_runs
from ltr.runs import provenance, stages
from ltr.runs.finished import fingerprint_of
from ltr.runs.provenance import describe_difference

FAST = ("debug=fast", "backbone=digits_net", "dataset.image_size=16", "batch_size=8", "trainer.num_workers=0")
CHANGED = "the data have changed since the run in"


@pytest.fixture
def table(tmp_path):
    """A table of 20 images of two classes, all for training or test; returns its path."""
    random = np.random.default_rng(0)
    lines = ["path,label,split"]
    for label in "ab":
        (tmp_path / "images" / label).mkdir(parents=True)
        for index in range(10):
            path = f"images/{label}/{index}.png"
            Image.fromarray(random.integers(0, 255, (20, 20, 3), np.uint8)).save(tmp_path / path)
            lines.append(f"{path},{label},{'test' if index > 7 else 'train'}")
    file = tmp_path / "table.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture
def train(ltr_train, table):
    def command(*more):
        return ltr_train(*FAST, "dataset=table", f"dataset.file={table}", *more)

    return command


def relabel(table, line, label):
    lines = table.read_text().splitlines()
    path, _, split = lines[line].split(",")
    lines[line] = f"{path},{label},{split}"
    table.write_text("\n".join(lines) + "\n")


def test_figures_of_a_finished_run_are_made_from_its_files(train):
    first = train("figures=none")
    again = train("figures=all")
    figures = first.directory / "figures"
    assert {"accuracy_by_frequency.png", "confusion.png", "reliability.png"} <= {
        path.name for path in figures.iterdir()
    }
    count = len(list(figures.iterdir()))
    assert f"{count} new figures in {figures}; the run has no data for " in again.out
    assert "feature_plane" in again.out
    before = {path: path.stat().st_mtime_ns for path in figures.iterdir()}
    (figures / "confusion.png").unlink()
    assert f"1 new figure in {figures}" in train("figures=all").out
    after = {path: path.stat().st_mtime_ns for path in figures.iterdir()}
    assert [path.name for path in before if after[path] != before[path]] == ["confusion.png"]


def test_corrected_labels_start_another_run_and_the_old_result_stays(train, table, tmp_path):
    first = train()
    assert first.code == 0, first.err
    kept = first.directory
    result = (kept / "result.json").read_bytes()
    assert "finished before" in train().out
    relabel(table, 1, "b")
    second = train()
    assert second.code == 0, second.err
    assert CHANGED in second.out
    assert "finished before" not in second.out
    (new,) = [folder for folder in second.directories if folder != kept]
    assert (kept / "result.json").read_bytes() == result
    assert json.loads((new / "result.json").read_text())["data"] != json.loads(result)["data"]
    again = train()  # today's data are those of the second run
    assert "finished before" in again.out
    assert str(new) in re.sub(r"\s", "", again.out)
    anew = train("resume=never")
    assert anew.code == 0, anew.err
    assert (kept / "result.json").read_bytes() == result
    relabel(table, 1, "a")
    back = train()
    assert "finished before" in back.out
    assert CHANGED not in back.out
    # two runs of one seed on different data are two lines of a report, not an average
    assert len({run.group for run in finished_runs([tmp_path / "outputs"]).runs}) == 2


@pytest.mark.parametrize("refused", ["paths.stages=/proc/nowhere", "trainer.check_files=true"])
def test_a_refused_command_with_resume_never_keeps_the_earlier_result(train, table, refused):
    first = train("trainer.check_files=false")
    kept = {name: (first.directory / name).read_bytes() for name in ("result.json", "status.json", "config.yaml")}
    if refused == "trainer.check_files=true":
        image = table.parent / "images" / "a" / "0.png"
        image.write_bytes(image.read_bytes()[:-20] + bytes(20))  # of the same size
        for stage in first.directory.parents[2].glob("stages/*/stage.json"):
            stage.unlink()
    assert train("resume=never", refused).code != 0
    assert {name: (first.directory / name).read_bytes() for name in kept} == kept


def test_an_edited_hierarchy_starts_another_run_and_the_old_result_stays(ltr_train, tmp_path):
    file = trees.nabirds(tmp_path) / "hierarchy.txt"
    command = (*FAST, "dataset=nabirds", "dataset.num_classes=3", f"paths.data={tmp_path}")
    first = ltr_train(*command)
    assert first.code == 0, first.err
    kept, whole = first.directory, file.read_text()
    assert set(first.result["data"]["metadata"]) == {"class_ids", "taxonomy", "boxes"}
    assert "finished before" in ltr_train(*command).out
    for edited in (whole.replace("295 2", "295 1"), ""):  # other families, and none
        assert edited != whole
        file.write_text(edited)
        done = ltr_train(*command)
        assert f"{CHANGED} {kept} was finished (taxonomy, which" in " ".join(done.out.split())
        assert "finished before" not in done.out
        assert "cached stage" in done.out  # erm reads no taxonomy
        assert "finished before" in ltr_train(*command).out
    assert len({run.group for run in finished_runs([tmp_path / "outputs"]).runs}) == 3
    file.write_text(whole)
    assert str(kept) in re.sub(r"\s", "", ltr_train(*command).out)


def test_edited_groups_start_another_run(train, table):
    lines = table.read_text().splitlines()

    def write(cameras):
        table.write_text("\n".join([f"{lines[0]},camera", *map(",".join, zip(lines[1:], cameras))]) + "\n")

    command = ("dataset.group=camera", "dataset.val=train_fraction", "dataset.val_fraction=0.4")
    write(list("ab" * 4 + "cc") * 2)
    first = train(*command)
    assert first.code == 0, first.err
    assert "finished before" in train(*command).out
    write(list("aabb" * 2 + "cc") * 2)
    second = train(*command)
    assert "(group, which" in second.out
    digests = {json.loads((one / "result.json").read_text())["data"]["split_digest"] for one in second.directories}
    assert len(digests) == 2


def test_runs_of_older_versions_are_reused_with_a_note_on_their_metadata(ltr_train, tmp_path):
    trees.nabirds(tmp_path)
    command = (*FAST, "dataset=nabirds", "dataset.num_classes=3", f"paths.data={tmp_path}")
    kept = ltr_train(*command).directory
    result = json.loads((kept / "result.json").read_text())
    del result["data"]["metadata"]
    (kept / "result.json").write_text(json.dumps(result))
    done = ltr_train(*command)
    assert "has no digests of its data's class_ids, taxonomy, boxes" in " ".join(done.out.split())
    assert "finished before" in done.out


def test_a_table_that_cannot_be_read_is_an_error_and_the_result_stays(train, table):
    kept = train().directory
    table.write_text("\n")
    done = train()
    assert done.code == 1
    assert "on the earlier data is kept in" in done.err
    assert done.directory == kept


def test_runs_of_older_versions_are_compared_by_their_stages_or_reused_with_a_note(train, table, tmp_path):
    kept = train().directory
    result = json.loads((kept / "result.json").read_text())
    assert fingerprint_of(result, tmp_path) == result["data"].pop("fingerprint")
    (kept / "result.json").write_text(json.dumps(result))
    done = train()
    assert "finished before" in done.out
    assert "is used without" not in done.out
    shutil.rmtree(tmp_path / "outputs" / "stages")
    done = train()
    assert "has no fingerprint of its data" in done.out
    assert "finished before" in done.out


def test_sweeps_and_the_python_interface_detect_changed_data(train, table, tmp_path):
    import ltr

    assert train().code == 0
    Image.new("RGB", (40, 40)).save(table.parent / "images" / "a" / "0.png")  # a replaced file counts as well
    done = train("-m", "seed=0")
    assert done.code == 0, done.err
    assert CHANGED in done.out
    overrides = [*FAST, "dataset=table", f"dataset.file={table}", f"paths.outputs={tmp_path / 'outputs'}"]
    assert ltr.train([*overrides, "figures=none"], quiet=True).reused
    relabel(table, 2, "b")
    assert not ltr.train([*overrides, "figures=none"], quiet=True).reused


@pytest.fixture
def own_loss(tmp_path, monkeypatch):
    """A loss in a module of the user's own; returns the overrides that choose it, and a function that edits it."""
    text = (
        "from ltr.losses.classification import CrossEntropy\nSCALE = 1\n\n\n"
        "class Mine(CrossEntropy):\n    def __init__(self, class_counts, background=None):\n"
        "        super().__init__(class_counts, background)\n"
    )
    file = tmp_path / "code" / "made_up_loss.py"
    file.parent.mkdir()
    file.write_text(text)
    monkeypatch.syspath_prepend(str(file.parent))

    def edit():
        file.write_text(text.replace("SCALE = 1", "SCALE = 222"))
        sys.modules.pop("made_up_loss", None)  # as in another process

    yield ("--allow", "made_up_loss", "debug=fast", "~loss", "+loss._target_=made_up_loss.Mine"), edit
    sys.modules.pop("made_up_loss", None)


def test_an_edit_of_user_code_changes_run_and_stage(ltr_train, own_loss):
    overrides, edit = own_loss
    first = ltr_train(*overrides)
    assert first.code == 0, first.err
    about = json.loads((first.directory / "provenance.json").read_text())
    assert f"code outside ltr: made_up_loss ({about['code']['own']['made_up_loss']})" in first.out
    assert "finished before" in ltr_train(*overrides).out
    edit()
    second = ltr_train(*overrides)
    assert "finished before" not in second.out
    assert "cached stage" not in second.out
    results = [json.loads((folder / "result.json").read_text()) for folder in second.directories]
    assert len(results) == 2
    assert len({result["stages"][0]["key"] for result in results}) == 2
    assert len({result["group_hash"] for result in results}) == 2


CLEAN = {"commit": "a" * 40, "dirty": False, "source": "s"}


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        (None, CLEAN, None),
        (CLEAN, CLEAN, None),
        (
            {**CLEAN, "commit": "b" * 40},
            CLEAN,
            "commit bbbbbbbbbb; this is commit aaaaaaaaaa; the source of ltr is the",
        ),
        ({**CLEAN, "dirty": True, "source": "t"}, CLEAN, "commit aaaaaaaaaa with uncommitted changes; this is commit"),
        (CLEAN, {**CLEAN, "dirty": True}, "this is commit aaaaaaaaaa with uncommitted changes"),
        ({"commit": None, "dirty": None, "source": "s"}, {"commit": None, "dirty": None, "source": "s"}, None),
        (
            {"commit": None, "dirty": None, "source": "t"},
            {"commit": None, "dirty": None, "source": "s"},
            "source t; this",
        ),
    ],
)
def test_other_code_of_ltr_is_named(then, now, words):
    difference = describe_difference(then, now)
    assert difference is None if words is None else words in difference


def test_a_stored_stage_of_another_commit_is_reported_at_reuse(ltr_train, monkeypatch):
    first = ltr_train("debug=fast")
    (first.directory / "result.json").unlink()
    other = {**provenance.code_state(), "commit": "f" * 40, "dirty": False}
    monkeypatch.setattr(stages, "code_state", lambda: other)
    done = ltr_train("debug=fast")
    (line,) = [line for line in done.out.splitlines() if "cached stage" in line]
    assert "made by " in line
    assert "this is commit ffffffffff" in line
    assert "stored_stages" in json.loads((done.directory / "provenance.json").read_text())
