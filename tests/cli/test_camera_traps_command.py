"""Camera traps from annotation files to predictions that other tools open, by the commands."""

from __future__ import annotations

import csv
import json

import pytest

import camera_trap_files as made
from ltr.cli import run_guarded
from ltr.commands.mine import main as mine_main

SMALL = ("dataset.image_size=16", "backbone=plain", "trainer.num_workers=0", "trainer.precision=fp32", "debug=fast")


@pytest.fixture(scope="session")
def traps(tmp_path_factory):
    return made.write(tmp_path_factory.mktemp("traps"), made.shots(locations=3, bursts=1))


@pytest.fixture
def train(ltr_train, plain, traps):
    def command(*overrides):
        where = (f"dataset.root={traps}", f"dataset.annotations={traps / 'annotations.json'}")
        return ltr_train(*plain, "dataset=camera_traps", *where, *SMALL, *overrides)

    return command


def test_a_run_on_crops_classifies_each_detection(train, ltr_predict, traps, tmp_path):
    done = train(f"dataset.detections={traps / 'md.json'}", "dataset.group=location")
    assert done.code == 0, done.err
    assert "the annotations are in the format coco_camera_traps; images are cut by box" in done.out
    run = done.directory
    code, _, err = ltr_predict(
        run, traps, "--detections", traps / "md.json", "--format", "megadetector", "--out", tmp_path / "o.json"
    )
    assert code == 0, err
    content = json.loads((tmp_path / "o.json").read_text())
    assert content["classification_categories"] == {"0": "deer", "1": "fox"}
    assert all("classifications" in one for image in content["images"] for one in image["detections"])
    code, out, err = ltr_predict(
        run, traps, "--detections", traps / "md.json", "--min-confidence", "0.2", "--out", tmp_path / "o.csv"
    )
    assert code == 0, err
    assert f"{sum(shot.label != 'empty' for shot in made.shots(locations=3, bursts=1))} images" in out
    code, _, err = ltr_predict(run, traps, "--out", tmp_path / "whole.csv")
    assert code == 0
    assert "--detections FILE cuts them by MegaDetector's boxes" in err


@pytest.mark.parametrize("crop", ["auto", "none"])
def test_commands_know_whether_the_annotation_file_cut_the_images(
    ltr_train, plain, ltr_predict, run_command, traps, tmp_path, crop
):
    lines = ["path,label,x,y,width,height"]
    lines += [f"{shot.path},{shot.label},.25,.25,.5,.5" for shot in made.shots(locations=3, bursts=1)]
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    where = [f"dataset.root={traps}", f"dataset.annotations={tmp_path / 'boxes.csv'}", "dataset.group=none"]
    where += [f"dataset.crop={crop}", *([f"dataset.detections={traps / 'md.json'}"] if crop == "none" else [])]
    done = ltr_train(*plain, "dataset=camera_traps", *where, *SMALL)
    assert done.code == 0, done.err
    code, _, err = ltr_predict(done.directory, traps, "--out", tmp_path / "o.csv")
    assert code == 0, err
    assert ("was trained on images cut by box" in err) is (crop == "auto")
    _, _, err = run_command(mine_main, done.directory, traps, "--out", tmp_path / "mined", "--workers", "0")
    assert ("was trained on images cut by box" in err) is (crop == "auto")


def test_a_run_on_whole_images_knows_the_background(train, ltr_predict, traps, tmp_path):
    done = train("dataset.group=seq_id")
    assert done.code == 0, done.err
    assert {row["protocol"] for row in done.result["rows"]} == {"background"}
    code, _, err = ltr_predict(done.directory, traps, "--format", "camtrap_dp", "--out", tmp_path / "o.csv")
    assert code == 0
    assert "have no eventStart" in err
    with open(tmp_path / "o.csv", newline="") as file:
        assert {row["observationType"] for row in csv.DictReader(file)} <= {"blank", "animal"}
    code, _, err = ltr_predict(done.directory, traps, "--format", "megadetector", "--out", tmp_path / "o.json")
    assert code == 0, err
    assert json.loads((tmp_path / "o.json").read_text())["classification_categories"]["0"] == "background"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--format", "megadetector", "--out", "o.csv"], "writes a .json file"),
        (["--format", "camtrap_dp", "--out", "o.json"], "writes a .csv file"),
        (["--format", "timelapse", "--out", "o.json"], "timelapse"),
        (["--min-confidence", "0.5", "--out", "o.csv"], "add --detections FILE"),
        (["--detections", "{traps}/md.json", "--min-confidence", "2", "--out", "o.csv"], "allowed is 0 to 1"),
        (["--detections", "{traps}/annotations.json", "--out", "o.csv"], "annotations.json"),
        (["--detections", "{traps}/md.json", "--category", "animals", "--out", "o.csv"], "Did you mean 'animal'"),
        (["--format", "megadetector", "--detections", "{traps}/md.json", "--out", "{traps}/md.json"], "Name another"),
    ],
)
def test_mistakes_are_reported_and_write_nothing(ltr_predict, finished_run, traps, tmp_path, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    before = (traps / "md.json").read_bytes()
    code, out, err = ltr_predict(finished_run, traps, *(flag.format(traps=traps) for flag in flags))
    assert code in (1, 2)
    assert words in err
    assert "Traceback" not in err
    assert not out
    assert not list(tmp_path.glob("o.*"))
    assert (traps / "md.json").read_bytes() == before


@pytest.mark.parametrize("command", ["describe", "import"])
def test_ltr_data_shows_and_writes_the_images(traps, tmp_path, capsys, command):
    from ltr.commands.data import main

    flags = {"describe": ["--out", str(tmp_path)], "import": ["--to", str(tmp_path / "t.csv")]}[command]
    where = [f"dataset.root={traps}", f"dataset.detections={traps / 'md.json'}"]
    assert run_guarded(lambda: main([command, "camera_traps", *where, *flags])) == 0
    out = capsys.readouterr().out
    assert "the annotations are in the format coco_camera_traps" in out
    if command == "describe":
        assert "(a random split: " in out
        with open(tmp_path / "left_out.csv", newline="") as file:
            assert {row["reason"] for row in csv.DictReader(file)} == {"no box"}
    else:
        with open(tmp_path / "t.csv", newline="") as file:
            assert {row["split"] for row in csv.DictReader(file)} == {"train", "test"}


def test_training_images_in_a_pool_are_left_out_and_a_pool_of_nothing_else_is_refused(train, traps, tmp_path, capsys):
    from ltr.commands.mine import main

    done = train("dataset.group=seq_id")
    capsys.readouterr()

    def mine(pool):
        flags = ["--out", str(tmp_path / "mined"), "--group", "all", "--workers", "0", "--strategy", "background_split"]
        return run_guarded(lambda: main([str(done.directory), str(pool), *flags])), capsys.readouterr()

    code, captured = mine(traps)
    assert code == 0, captured.err
    trained = sum(row["split"] == "train" for row in _table(traps, tmp_path))
    assert f"{trained:,} of 18 images are training images of the run and left out" in captured.out
    (tmp_path / "only.csv").write_text(
        "path\n" + "".join(f"{traps / row['path']}\n" for row in _table(traps, tmp_path) if row["split"] == "train")
    )
    code = run_guarded(
        lambda: main(
            [str(done.directory), str(tmp_path / "only.csv"), "--root", str(traps), "--out", str(tmp_path / "m")]
        )
    )
    assert code == 2
    assert f"all {trained} images of the pool are training images" in capsys.readouterr().err


def _table(traps, tmp_path):
    from ltr.commands.data import main

    where = [f"dataset.root={traps}", "dataset.group=seq_id", "--to", str(tmp_path / "t.csv")]
    assert run_guarded(lambda: main(["import", "camera_traps", *where])) == 0
    with open(tmp_path / "t.csv", newline="") as file:
        return list(csv.DictReader(file))
