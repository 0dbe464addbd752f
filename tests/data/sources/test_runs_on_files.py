"""Whole runs on image files: custom folders, EXIF, evaluation's crop, and a second evaluation."""

from __future__ import annotations

import json
import signal

import pytest
from PIL import Image

import trees
from ltr.configuration.overrides import load_config
from ltr.runs.keys import run_hash
from resuming import signal_at

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*not the whole published"),
]


def composed(*overrides: str) -> dict:
    return load_config(list(overrides))


SMALL = ["backbone.name=resnet18", "dataset.image_size=32", "trainer.precision=fp32", "trainer.num_workers=0",
         "trainer.max_epochs=1", "trainer.limit_train_batches=2", "batch_size=64"]  # fmt: skip


def test_a_run_on_a_custom_folder_reports_its_division(ltr_train, tmp_path):
    root = trees.folder(tmp_path, each=5)
    run = ltr_train("dataset=folder", f"dataset.root={root}", "dataset.name=pets", "dataset.test_fraction=0.4", *SMALL)
    assert run.code == 0, run.err
    data = run.result["data"]
    assert data["split"] == "pets-test0.4-seed0-natural"
    assert (data["train_images"], data["test_images"]) == (9, 6)
    assert run.directory.parts[-3] == "pets"


def test_a_broken_file_stops_a_run_unless_it_is_skipped_or_excluded(ltr_train, tmp_path):
    root = trees.folder(tmp_path, each=8)
    (root / "cat" / "3.jpg").write_bytes(b"not an image")
    (tmp_path / "bad.txt").write_text("cat/3.jpg\n")
    command = ["dataset=folder", f"dataset.root={root}", "dataset.test_fraction=0.25", "dataset.split_seed=1", *SMALL]
    stopped = ltr_train(*command)
    assert stopped.code == 1
    assert "1 image file cannot be read" in stopped.err
    assert "cat/3.jpg: UnidentifiedImageError" in stopped.err
    assert "images/s" not in stopped.out  # before anything was trained
    late = ltr_train(*command, "trainer.check_files=false")
    assert late.code == 1
    assert "cat/3.jpg, cannot be read" in late.err
    skipped = ltr_train(*command, "trainer.on_error=skip", "trainer.max_skipped=0.5")
    assert skipped.code == 0, skipped.err
    assert "others of their classes replace them" in skipped.err
    assert "unreadable images replaced 1 time in training, up to " in skipped.out
    (stage,) = skipped.result["stages"]
    assert stage["incidents"]["replaced_images"] == 1
    excluded = ltr_train(*command, f"dataset.exclude={tmp_path / 'bad.txt'}", outputs=tmp_path / "excluded")
    assert excluded.code == 0, excluded.err
    assert excluded.result["data"]["split"].endswith("-without1")


def test_a_result_with_replaced_images_is_used_only_where_they_are_allowed(ltr_train, tmp_path):
    root = trees.folder(tmp_path, each=8)
    broken = root / "cat" / "3.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(b"x" * len(whole))  # of the same size, so that the data keep their fingerprint
    command = ["dataset=folder", f"dataset.root={root}", "dataset.test_fraction=0.25", "dataset.split_seed=1", *SMALL]
    skipping = [*command, "trainer.on_error=skip", "trainer.max_skipped=0.5"]
    first = ltr_train(*skipping)
    assert first.code == 0, first.err
    again = ltr_train(*skipping)
    assert "not used" not in again.out + again.err
    assert "finished before" in again.out
    strict = ltr_train(*command)
    assert strict.code == 1
    assert strict.out.count("trainer.on_error=raise does not allow") == 1
    assert "1 image file cannot be read" in strict.err
    assert first.directory in strict.directories  # the result stays
    stricter = ltr_train(*command, "trainer.on_error=skip", "trainer.max_skipped=0.001")
    assert stricter.code == 1
    assert "more than trainer.max_skipped=0.001 allows" in stricter.out
    assert "not the cached stage" in stricter.out
    broken.write_bytes(whole)
    repaired = ltr_train(*command)
    assert repaired.code == 0, repaired.err
    (stage,) = repaired.result["stages"]
    assert (stage["status"], stage.get("incidents")) == ("trained", None)


def test_a_stopped_training_keeps_count_of_its_replaced_images(ltr_train, tmp_path, monkeypatch):
    root = trees.folder(tmp_path, each=8)
    (root / "cat" / "3.jpg").write_bytes(b"not an image")
    command = ["dataset=folder", f"dataset.root={root}", "dataset.test_fraction=0.25", "dataset.split_seed=1",
               *SMALL, "batch_size=6", "trainer.limit_train_batches=null", "trainer.max_epochs=3"]  # fmt: skip
    skipping = [*command, "trainer.on_error=skip", "trainer.max_skipped=0.5"]
    whole = ltr_train(*skipping, outputs=tmp_path / "whole").result["stages"][0]["incidents"]
    assert whole["replaced_images"] == 3  # one in each epoch
    for moment in ((0, 0), (0, 1), (1, 0), (1, 2)):
        outputs = tmp_path / "stopped{}_{}".format(*moment)
        with signal_at(monkeypatch, moment, signal.SIGTERM):
            assert ltr_train(*skipping, outputs=outputs).code == 128 + signal.SIGTERM
        strict = ltr_train(*command, "trainer.check_files=false", outputs=outputs)
        assert "starting anew instead of resuming a stopped run" in strict.out or moment[0] == 0
        assert strict.code == 1
        assert "cat/3.jpg, cannot be read" in strict.err
        outputs = tmp_path / "resumed{}_{}".format(*moment)
        with signal_at(monkeypatch, moment, signal.SIGTERM):
            assert ltr_train(*skipping, outputs=outputs).code == 128 + signal.SIGTERM
        resumed = ltr_train(*skipping, outputs=outputs)
        assert "resuming in epoch" in resumed.out
        assert resumed.result["stages"][0]["incidents"] == whole


def test_another_folder_is_another_run(tmp_path):
    plans = [composed("dataset=folder", f"dataset.root={tmp_path / index}") for index in ("one", "two")]
    assert run_hash(plans[0]) != run_hash(plans[1])


def test_the_path_of_published_files_is_not_part_of_a_runs_identity(tmp_path):
    here = composed("dataset=cub", f"paths.data={tmp_path}", f"dataset.roots=[{tmp_path}]")
    assert run_hash(here) == run_hash(composed("dataset=cub"))


def test_a_replaced_image_causes_a_new_training(ltr_train, tmp_path):
    root = trees.folder(tmp_path)
    command = ["dataset=folder", f"dataset.root={root}", "resume=never", *SMALL]
    before = ltr_train(*command).directory
    trees.put(root / "cat" / "0.jpg", 0, (60, 40))
    second = ltr_train(*command)
    assert second.code == 0, second.err
    (directory,) = set(second.directories) - {before}  # the data have changed: the earlier result stays
    stages = json.loads((directory / "result.json").read_text())["stages"]
    assert stages[0]["status"] == "trained"


def test_a_second_evaluation_gives_the_runs_numbers(ltr_train, ltr_eval, small_sources, tmp_path):
    run = ltr_train("dataset=tiny_imagenet", "dataset.image_resize=40", *SMALL)
    assert run.code == 0, run.err
    code, _, err = ltr_eval(run.directory, "trainer.num_workers=0", "--json", tmp_path / "again.json")
    assert code == 0, err
    evaluated = json.loads((tmp_path / "again.json").read_text())
    actual = {key: value for key, value in run.headline.items() if isinstance(value, float)}
    expected = next(row for row in evaluated["rows"] if row["headline"])["metrics"]
    assert {key: expected[key] for key in actual} == pytest.approx(actual, nan_ok=True)


@pytest.mark.parametrize("exif", [True, False])
def test_custom_photographs_are_rotated_upright_on_request(tmp_path, exif, ltr_train, monkeypatch):
    from ltr.data.images.crop import FileCrop

    root = trees.folder(tmp_path)
    for path in root.rglob("*.jpg"):  # black below, white above, and said to be upside down
        image = Image.new("RGB", (32, 32), "black")
        image.paste("white", (0, 0, 32, 16))
        orientation = image.getexif()
        orientation[0x0112] = 3
        image.save(path, exif=orientation)
    seen = []
    read = FileCrop.read
    monkeypatch.setattr(FileCrop, "read", lambda *args, **named: seen.append(read(*args, **named)) or seen[-1])
    run = ltr_train("dataset=folder", f"dataset.root={root}", f"dataset.exif={str(exif).lower()}", *SMALL)
    assert run.code == 0, run.err
    evaluated = seen[-1]
    assert (evaluated[:10].mean() < evaluated[-10:].mean()) == exif


def test_a_missing_data_set_ends_with_one_message(ltr_train, tmp_path):
    run = ltr_train("dataset=cub", f"paths.data={tmp_path / 'nowhere'}")
    assert run.code == 1
    assert "cub was not found" in run.err
    assert "Traceback" not in run.err
