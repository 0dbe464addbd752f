"""Runs and stages of earlier versions: today's commands read them, take them again and build on their stages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ltr.cli import run_guarded
from ltr.files import file_digest
from ltr.identity import as_first_written, config_as_first_written, first_path_of

CRT = ("debug=fast", "method=crt", "trainer.precision=fp32")
# what a run has had since and what a stage has: earlier versions wrote neither
LATER_CONFIG = {"backbone": ("weights_map",), "trainer": ("check_files",)}
LATER_DATA, LATER_STAGE = ("fingerprint", "metadata"), ("code", "begun_by", "micro_batch")


def without_later_keys(config: dict) -> dict:
    return {
        group: {key: value for key, value in node.items() if key not in LATER_CONFIG.get(group, ())}
        if isinstance(node, dict)
        else node
        for group, node in config.items()
    }


def edited(path: Path, edit) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def make_result_older(result: dict) -> None:
    for key, value in result["config"].items():
        if key.endswith("_target_"):
            result["config"][key] = first_path_of(value)
    result["config"]["evaluation.watch"] = result["config"].pop("evaluation.monitor_split")
    for group, keys in LATER_CONFIG.items():
        for key in keys:
            del result["config"][f"{group}.{key}"]
    for key in LATER_DATA:
        del result["data"][key]


def make_older(outputs: Path) -> None:
    """Turn what was written below ``outputs`` into what an earlier version would have written."""
    for path in outputs.glob("*/*/*/result.json"):
        edited(path, make_result_older)
        edited(path.with_name("provenance.json"), lambda about: (about.pop("data"), about["code"].pop("source")))
        config = path.with_name("config.yaml")
        older = config_as_first_written(without_later_keys(yaml.safe_load(config.read_text())))
        assert "watch" in older["evaluation"]
        config.write_text(yaml.safe_dump(older, sort_keys=False))
        older_checkpoint(path.parent / "checkpoints" / "final.ckpt")
    for path in outputs.glob("stages/*/stage.json"):
        older_checkpoint(path.with_name("weights.ckpt"))

        def edit_stage(record: dict, folder: Path = path.parent) -> None:
            assert "code" in record
            for key in LATER_STAGE:
                record.pop(key, None)
            record["spec"] = as_first_written({**record["spec"], "target": first_path_of(record["spec"]["target"])})
            record["files"]["weights.ckpt"] = file_digest(folder / "weights.ckpt")

        edited(path, edit_stage)


def older_checkpoint(path: Path) -> None:
    content = torch.load(path)
    description = json.loads(content["description"])
    description["settings"] = as_first_written(without_later_keys(description["settings"]))
    description["module"] = first_path_of(description["module"])
    path.unlink()  # it may be a link to the stage's
    torch.save({**content, "description": json.dumps(description)}, path)


@pytest.fixture(scope="module")
def older_outputs(tmp_path_factory) -> Path:
    """The outputs of a run of an earlier version: its directory and two stages."""
    from ltr.cli import train_main

    outputs = tmp_path_factory.mktemp("older") / "outputs"
    assert train_main([f"paths.outputs={outputs}", "figures=none", "callbacks.progress=none", *CRT]) == 0
    make_older(outputs)
    return outputs


@pytest.fixture
def older(older_outputs, tmp_path, monkeypatch) -> Path:
    """A copy of it; returns the directory of the run."""
    monkeypatch.setenv("LTR_OUTPUTS", str(tmp_path / "outputs"))
    shutil.copytree(older_outputs, tmp_path / "outputs")
    (result,) = tmp_path.glob("outputs/*/*/*/result.json")
    return result.parent


def rows(run: Path) -> list[dict]:
    return json.loads((run / "result.json").read_text())["rows"]


def test_the_same_command_reuses_the_finished_run(ltr_train, older):
    before = (older / "result.json").read_bytes()
    done = ltr_train(*CRT)
    assert done.code == 0, done.err
    assert "finished before" in done.out
    assert "have changed" not in done.out
    assert "is used without" not in done.out
    assert done.directory == older
    assert (older / "result.json").read_bytes() == before


def test_stages_of_an_older_run_are_reused_by_it_and_by_other_methods(ltr_train, older, tmp_path):
    stored = rows(older)
    shutil.rmtree(older)
    done = ltr_train(*CRT)
    assert done.code == 0, done.err
    assert done.out.count("cached stage") == 2
    assert "made by" not in done.out
    assert rows(done.directory) == stored
    for more in (("method=lws", "method.classifier.epochs=1"), ("method=erm",)):
        other = ltr_train(*CRT, *more)
        assert other.code == 0, other.err
        assert "representation: cached stage" in other.out
    assert ltr_train(*CRT, f"method.start_from={older}", "name=from_checkpoint").code == 0


def test_a_report_averages_an_older_seed_with_a_new_one(ltr_train, older, capsys):
    from ltr.commands.report import main

    done = ltr_train(*CRT, "seed=1")
    assert done.code == 0, done.err
    assert "cached stage" not in done.out
    groups = {json.loads((run / "result.json").read_text())["group_hash"] for run in done.directories}
    assert len(done.directories) == 2
    assert len(groups) == 1
    assert run_guarded(lambda: main([str(done.outputs)])) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("crt")]
    assert " 2 " in line


def test_an_older_run_is_evaluated_to_its_recorded_metrics(older, ltr_eval, tmp_path):
    code, out, err = ltr_eval(older)
    assert code == 0, err
    assert "other" not in out
    assert err == ""
    (new,) = (tmp_path / "outputs" / "evaluations").glob("*/*/*/result.json")
    key = ("protocol", "split", "variant", "scorer", "checkpoint")
    metrics = {tuple(row[name] for name in key): row["metrics"] for row in rows(new.parent)}
    for row in rows(older):
        assert metrics[tuple(row[name] for name in key)] == pytest.approx(row["metrics"], nan_ok=True)


def test_an_older_run_predicts_and_its_stages_are_listed(older, tmp_path, capsys):
    from ltr.commands import predict as predict_command
    from ltr.commands import stages as stages_command

    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(images / "zero.png")
    table = tmp_path / "predictions.csv"
    assert run_guarded(lambda: predict_command.main([str(older), str(images), "--out", str(table)])) == 0
    assert len(table.read_text().splitlines()) == 2
    capsys.readouterr()
    assert run_guarded(lambda: stages_command.main(["list"])) == 0
    listed = capsys.readouterr()
    assert listed.err == ""
    assert [line.split()[1] for line in listed.out.splitlines()[1:]].count("representation") == 1
    assert len(listed.out.splitlines()) == 3
