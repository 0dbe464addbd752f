"""ltr-predict: a run's predictions for a folder of images, and wrong commands."""

from __future__ import annotations

import csv
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import ltr
from ltr.data.sources.digits import digits

NOT_FORESEEN = "not a mistake that ltr foresees"


@pytest.fixture
def photos(tmp_path):
    """Twelve digits as PNG files, and two files that are none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(12):
        Image.fromarray(digits().images[number, :, :, 0]).save(folder / f"{number:02d}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG and no more")
    (folder / "empty.jpg").touch()
    return folder


def rows(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_predictions_are_those_of_the_python_interface(ltr_predict, finished_run, photos, tmp_path):
    code, out, err = ltr_predict(finished_run, photos, "--out", tmp_path / "p.csv", "--precision", "fp32")
    assert code == 0, err
    assert "12 images" in out
    p = ltr.load(finished_run, precision="fp32").predict(digits().images[:12])
    written = rows(tmp_path / "p.csv")
    assert [row["path"] for row in written] == [f"{number:02d}.png" for number in range(12)]
    assert [int(row["class"]) for row in written] == p.argmax(1).tolist()
    np.testing.assert_allclose([float(row["probability"]) for row in written], p.max(1), rtol=1e-4)


def test_broken_images_are_counted_and_listed_and_the_command_succeeds(ltr_predict, finished_run, photos, tmp_path):
    code, _, err = ltr_predict(finished_run, photos, "--out", tmp_path / "p.csv")
    assert code == 0
    assert "2 images could not be read" in err
    assert [row["path"] for row in rows(tmp_path / "p.broken.csv")] == ["broken.png", "empty.jpg"]


def test_a_checkpoint_file_and_a_table_are_accepted(ltr_predict, finished_run, photos, tmp_path):
    weights = finished_run / "checkpoints" / "final.ckpt"
    for name, text in (("list.csv", "path\n03.png\n01.png\n"), ("list.tsv", "n\tpath\n1\t03.png\n2\t01.png\n")):
        (photos / name).write_text(text)
        code, _, err = ltr_predict(weights, photos / name, "--out", tmp_path / "p.csv")
        assert code == 0, err
        assert [row["path"] for row in rows(tmp_path / "p.csv")] == ["03.png", "01.png"]


def test_without_out_the_table_is_written_next_to_the_weights(ltr_predict, finished_run, photos, tmp_path):
    weights = shutil.copy(finished_run / "checkpoints" / "final.ckpt", tmp_path / "lone.ckpt")
    for source, folder in ((finished_run, finished_run), (weights, tmp_path)):
        code, out, err = ltr_predict(source, photos)
        assert code == 0, err
        assert f"{folder / 'predictions.csv'}: " in out
        assert len(rows(folder / "predictions.csv")) > 0
        (folder / "predictions.csv").unlink()


def test_flags_change_the_predictions(ltr_predict, finished_run, photos, tmp_path):
    flags = ["--top", "2", "--scorer", "energy", "--batch-size", "5"]
    code, _, err = ltr_predict(finished_run, photos, "--out", tmp_path / "p.csv", *flags)
    assert code == 0, err
    assert list(rows(tmp_path / "p.csv")[0])[-1] == "probability_2"


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["nothing", "photos", "--out", "p.csv"], 1, "no such run directory or checkpoint"),
        (["{run}", "nothing", "--out", "p.csv"], 1, "there is no such file. Give a folder of images"),
        (["{run}", "empty", "--out", "p.csv"], 1, "has no image"),
        (["{run}", "photos", "--out", "photos"], 2, "that is a folder"),
        (["{run}", "photos", "--out", "p.txt"], 2, "must end in .csv or .parquet"),
        (["{run}", "photos", "--out", "photos/00.png/p.csv"], 2, "a folder is needed, and "),
        (["{run}", "photos", "--out", "p.csv", "--scorer", "mps"], 2, "Did you mean 'msp'"),
        (
            ["{run}", "photos", "--out", "p.csv", "--views", "flop"],
            2,
            "flip, five_crops, ten_crops. Did you mean 'flip'",
        ),
        (["{run}", "photos", "--out", "p.csv", "--top", "0"], 2, "allowed is 1 or more"),
        (["{run}", "photos", "--out", "p.csv", "--batch-size", "-1"], 2, "allowed is 1 or more"),
        (["{run}", "photos", "--out", "p.csv", "--nonsense"], 2, "--nonsense"),
        (["photos/00.png", "photos", "--out", "p.csv"], 1, "is an image, not weights"),
    ],
)
def test_mistakes_are_reported_in_a_line(ltr_predict, finished_run, photos, tmp_path, arguments, code, reason):
    (tmp_path / "empty").mkdir()
    formatted = [argument.format(run=finished_run) for argument in arguments]
    exit_code, out, err = ltr_predict(*formatted)
    assert exit_code == code, err
    assert err.startswith("error: ")
    assert reason in err
    assert "Traceback" not in err
    assert NOT_FORESEEN not in err
    assert not out
    assert not list(tmp_path.glob("*.csv"))


@pytest.mark.parametrize("views", ["flip", "ten_crops"])
def test_predictions_with_views_are_those_of_evaluation(
    ltr_predict, ltr_eval, finished_run, tmp_path, monkeypatch, views
):
    import pyarrow.parquet as pq

    code, _, err = ltr_eval(finished_run, f"evaluation.views={views}", "--out", tmp_path / "evaluated")
    assert code == 0, err
    evaluated = pq.read_table(next((tmp_path / "evaluated").rglob("predictions.parquet"))).to_pydict()
    folder = tmp_path / "test images"
    folder.mkdir()
    for order, number in enumerate(evaluated["id"]):
        Image.fromarray(digits().images[number, :, :, 0]).save(folder / f"{order:05d}.png")
    code, out, err = ltr_predict(finished_run, folder, "--out", tmp_path / "p.parquet", "--views", views)
    assert code == 0, err
    assert f"means over the views of {views}" in out
    predicted = pq.read_table(tmp_path / "p.parquet").to_pydict()
    assert list(map(int, predicted["class"])) == evaluated["prediction"]
    assert predicted["probability"] == [scores[0] for scores in evaluated["scores"]]
    assert predicted["probability_5"] == [scores[4] for scores in evaluated["scores"]]
    alone = ltr.load(finished_run).predict(digits().images[evaluated["id"]])
    assert not np.array_equal(alone.max(1), np.float32(predicted["probability"]))
    means = ltr.load(finished_run).predict(digits().images[evaluated["id"]], views=views)
    np.testing.assert_allclose(means.max(1), predicted["probability"], rtol=0.02)


def test_views_of_the_runs_evaluation_are_not_taken_over_but_named(ltr_predict, finished_run, photos, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "with views")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub(r"(?m)^  views: null$", "  views: flip", config, count=1))
    tables = []
    for source, flags in ((finished_run, []), (run, []), (run, ["--views", "flip"])):
        code, _, err = ltr_predict(source, photos, "--out", tmp_path / "p.csv", *flags)
        assert code == 0, err
        asked = "the run was evaluated with evaluation.views=flip; these predictions are of the images alone" in err
        assert asked == (source is run and not flags)
        tables.append((tmp_path / "p.csv").read_bytes())
    assert tables[0] == tables[1] != tables[2]


def test_help_exits_with_0(ltr_predict):
    code, out, _ = ltr_predict("--help")
    assert code == 0
    assert "ltr-predict" in out


@pytest.mark.parametrize("name", ["pool.csv", "pool.broken.csv"])
def test_a_table_of_images_is_not_replaced_by_its_predictions(ltr_predict, finished_run, tmp_path, name):
    (tmp_path / name).write_text("path\n0.png\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / name)
    for images in (name, "link.csv"):
        code, _, err = ltr_predict(finished_run, images, "--out", "pool.csv")
        assert (code, "the command reads this file" in err) == (2, True), err
    assert (tmp_path / name).read_text() == "path\n0.png\n"


def test_predictions_of_a_run_are_not_replaced(ltr_predict, finished_run, tmp_path):
    (tmp_path / "pool").mkdir()
    before = (finished_run / "predictions.parquet").read_bytes()
    code, _, err = ltr_predict(finished_run, "pool", "--out", finished_run / "predictions.parquet")
    assert (code, "is a file of a finished run" in err) == (2, True), err
    assert (finished_run / "predictions.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("exif", "flags", "is_turned"),
    [("true", [], True), ("false", [], False), ("true", ["--no-exif"], False), ("false", ["--exif"], True)],
)
def test_orientation_is_read_as_in_training_on_own_images(ltr_predict, ltr_train, tmp_path, exif, flags, is_turned):
    shown = np.zeros((16, 16, 3), dtype=np.uint8)
    shown[:8] = 255
    turned = Image.Exif()
    turned[0x112] = 3  # by 180 degrees
    for name in ("a", "b"):
        (tmp_path / "own" / name).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(np.full_like(shown, 40 * number)).save(tmp_path / "own" / name / f"{number}.png")
    run = ltr_train(
        "dataset=folder", f"dataset.root={tmp_path / 'own'}", f"dataset.exif={exif}", "dataset.image_size=16",
        "backbone=digits_net", "trainer.max_epochs=1", "trainer.num_workers=0",
    ).directory  # fmt: skip
    (tmp_path / "new").mkdir()
    Image.fromarray(shown).save(tmp_path / "new" / "plain.png")
    Image.fromarray(shown).save(tmp_path / "new" / "turned.png", exif=turned)
    code, _, err = ltr_predict(run, tmp_path / "new", "--out", tmp_path / "p.csv", *flags)
    assert code == 0, err
    plain, marked = (row["probability"] for row in rows(tmp_path / "p.csv"))
    assert (plain != marked) == is_turned
