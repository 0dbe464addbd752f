"""Digests of the files that a configuration names, and results that are valid for their content only."""

from __future__ import annotations

import json

import pytest

from ltr.configuration.overrides import load_config
from ltr.files import file_digest
from ltr.report.read_runs import groups_by_data
from ltr.runs.named_files import changed_files, named_files


def config_of(*overrides):
    return load_config(["dataset=digits_lt", *overrides], None)


def test_files_of_settings_are_found_at_any_depth(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("w.pth", "classes.npy", "sizes.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "erm").write_text("a file with the name of a method")
    (tmp_path / "state").write_text("a file without a suffix")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "model.safetensors").write_text("weights in timm's layout")
    config = config_of("head=cosine", "backbone.weights=w.pth", f"head.initial={tmp_path}/classes.npy")
    config["method"]["lists"] = [{"file": "sizes.txt"}, {"file": "missing.txt"}]
    config["method"]["teacher"] = {"weights": "state", "run": "local-dir:hub", "student": "local-dir:nowhere"}
    assert named_files(config) == {
        "backbone.weights": file_digest(tmp_path / "w.pth"),
        "head.initial": file_digest(tmp_path / "classes.npy"),
        "method.lists.0.file": file_digest(tmp_path / "sizes.txt"),
        "method.teacher.weights": file_digest(tmp_path / "state"),
        "method.teacher.run": file_digest(tmp_path / "hub" / "model.safetensors"),
    }


def test_choices_that_have_the_name_of_a_file_are_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_of("trainer.profiler=simple", "dataset.val=train_fraction", "evaluation.views=flip")
    for value in ("last", "auto", "raise", "simple", "train_fraction", "flip", "msp", "max_logit", "instance", "two"):
        (tmp_path / value).write_text("hello")
    assert named_files(config) == {}


def test_a_run_directory_counts_by_its_evaluated_weights(tmp_path):
    weights = tmp_path / "run" / "checkpoints" / "final.ckpt"
    weights.parent.mkdir(parents=True)
    weights.write_text("weights")
    (tmp_path / "unfinished" / "checkpoints").mkdir(parents=True)
    config = config_of(f"method.start_from={tmp_path}/run", "method=crt")
    config["method"]["other"] = f"{tmp_path}/unfinished"
    assert named_files(config) == {"method.start_from": file_digest(weights)}


def test_files_of_the_source_do_not_count(tmp_path):
    (tmp_path / "table.csv").write_text("path,label\n")
    assert named_files(config_of("dataset=table", f"dataset.file={tmp_path}/table.csv")) == {}


def test_files_that_are_missing_on_one_side_are_not_compared():
    assert changed_files({"a": "1", "b": "2", "gone": "3"}, {"a": "1", "b": "9", "new": "4"}) == ["b"]


@pytest.fixture
def train(ltr_train, tmp_path):
    """Return a function that trains from the weights of a file."""
    fast = ("debug=fast", "trainer.num_workers=0")

    def command(*overrides):
        return ltr_train(*fast, *overrides)

    for seed in (1, 2):
        done = command(f"seed={seed}", "name=parent")
        assert done.code == 0, done.err
        (folder,) = [one for one in done.directories if f"parent-s{seed}" in one.name]
        (folder / "checkpoints" / "final.ckpt").rename(tmp_path / f"{seed}.ckpt")
    return command


def test_another_file_under_the_same_name_starts_another_run_and_the_old_result_stays(train, tmp_path):
    weights = tmp_path / "w.ckpt"
    weights.write_bytes((tmp_path / "1.ckpt").read_bytes())
    command = (f"backbone.weights={weights}", "name=child")
    before = set(train(*command).directories)
    (first,) = [folder for folder in before if "child" in folder.name]
    result = json.loads((first / "result.json").read_text())
    assert result["data"]["files"] == {"backbone.weights": file_digest(weights)}
    again = train(*command)
    assert "finished before" in again.out
    weights.write_bytes((tmp_path / "2.ckpt").read_bytes())
    other = train(*command)
    assert "backbone.weights: the file has changed since the run in" in " ".join(other.out.split())
    (second,) = set(other.directories) - before
    assert json.loads((first / "result.json").read_text()) == result
    changed = json.loads((second / "result.json").read_text())
    assert changed["stages"] != result["stages"]
    assert changed["group_hash"] == result["group_hash"]  # the report tells them apart by their files
    assert "finished before" in train(*command).out
    weights.unlink()  # a finished run needs no file any more
    assert str(first) in "".join(train(*command).out.split())


def test_runs_of_earlier_versions_are_reused_with_a_note(train, tmp_path):
    weights = tmp_path / "1.ckpt"
    command = (f"backbone.weights={weights}", "name=child")
    (folder,) = [one for one in train(*command).directories if "child" in one.name]
    result = json.loads((folder / "result.json").read_text())
    del result["data"]["files"]
    (folder / "result.json").write_text(json.dumps(result))
    done = train(*command)
    assert "finished before" in done.out
    assert "has no digests of its files (backbone.weights)" in " ".join(done.out.split())


def of_group(group, data, precision=None):
    return {"group_hash": group, "data": data, "config": {}, "precision": precision}


def test_runs_in_another_precision_are_not_averaged():
    data = {"fingerprint": "d"}
    keys = groups_by_data([of_group("g", data, precision) for precision in ("bf16", "fp32", "bf16")])
    assert keys[0] == keys[2] != keys[1]
    assert groups_by_data([of_group("g", data, "bf16"), of_group("g", data)]) == ["g", "g"]  # of an earlier version


def test_runs_from_different_files_are_not_averaged():
    one, other, earlier = {"fingerprint": "d", "files": {"w": "1"}}, {"fingerprint": "d", "files": {"w": "2"}}, None
    keys = groups_by_data([of_group("g", one), of_group("g", other), of_group("g", dict(one)), of_group("h", one)])
    assert keys[0] == keys[2] != keys[1]
    assert keys[3] == "h"
    assert groups_by_data([of_group("g", one), of_group("g", {"fingerprint": "d"}), of_group("g", earlier)]) == [
        "g",
        "g",
        "g",
    ]


def test_runs_on_different_taxonomies_are_not_averaged():
    one, other, none = (
        {"fingerprint": "d", "metadata": metadata} for metadata in ({"taxonomy": "1"}, {"taxonomy": "2"}, {})
    )
    keys = groups_by_data([of_group("g", one), of_group("g", other), of_group("g", none), of_group("g", dict(one))])
    assert len(set(keys)) == 3
    assert keys[0] == keys[3]
    assert groups_by_data([of_group("g", one), of_group("g", {"fingerprint": "d"})]) == ["g", "g"]
