"""Predictions: the numbers of the network, lists of broken images, complete tables."""

from __future__ import annotations

import csv
import os
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ltr.apply.model import file_crop
from ltr.apply.pool import image_pool
from ltr.apply.predict import predict_files
from ltr.apply.reading import batches
from ltr.data.source import Decoding
from ltr.errors import CheckpointError, ConfigError, DataError, TrainingError
from ltr.evaluation.scores import Scores


def rows(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def own_logits(model, pool, paths) -> torch.Tensor:
    pixels = np.stack([np.asarray(Image.open(pool / path)) for path in paths])
    return model.scores(torch.from_numpy(pixels).permute(0, 3, 1, 2)).logits


def test_a_row_has_the_networks_top_classes_and_probabilities(redness, pool, tmp_path):
    model = redness()
    predict_files(model, image_pool(pool), tmp_path / "p.csv")
    written = rows(tmp_path / "p.csv")
    p = own_logits(model, pool, [row["path"] for row in written]).softmax(dim=1)
    best = p.topk(5, dim=1)
    for index, row in enumerate(written):
        assert row["class"] == f"class {best.indices[index, 0]}"
        assert float(row["probability"]) == pytest.approx(float(best.values[index, 0]), rel=1e-5)
        assert row["class_5"] == f"class {best.indices[index, 4]}"
        assert float(row["probability_5"]) == pytest.approx(float(best.values[index, 4]), rel=1e-5)


def test_broken_images_are_listed_in_a_second_table_and_do_not_stop_the_prediction(redness, pool, tmp_path):
    done = predict_files(redness(), image_pool(pool), tmp_path / "p.csv")
    assert done.images == 11
    assert len(rows(tmp_path / "p.csv")) == 11
    listed = rows(tmp_path / "p.broken.csv")
    assert [row["path"] for row in listed] == ["part 0/05 broken.jpg", "part 1/empty.png"]
    assert all("UnidentifiedImageError" in row["reason"] for row in listed)


def test_an_earlier_list_of_broken_images_is_removed(redness, pool, tmp_path):
    predict_files(redness(), image_pool(pool), tmp_path / "p.csv")
    (pool / "part 0" / "05 broken.jpg").unlink()
    (pool / "part 1" / "empty.png").unlink()
    predict_files(redness(), image_pool(pool), tmp_path / "p.csv")
    assert not (tmp_path / "p.broken.csv").exists()


def test_nothing_is_written_if_no_image_can_be_read(redness, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.png").touch()
    with pytest.raises(DataError, match="not one of the 1 images can be read"):
        predict_files(redness(), image_pool(tmp_path / "x"), tmp_path / "p.csv")
    assert not list(tmp_path.glob("*p.csv*"))


def test_parquet_has_the_same_rows_as_csv(redness, pool, tmp_path):
    files = image_pool(pool)
    predict_files(redness(), files, tmp_path / "p.csv")
    predict_files(redness(), files, tmp_path / "p.parquet")
    table = pq.read_table(tmp_path / "p.parquet")
    listed = rows(tmp_path / "p.csv")
    assert table.column_names == list(listed[0])
    assert table["path"].to_pylist() == [row["path"] for row in listed]
    np.testing.assert_allclose(table["known"].to_numpy(), [float(row["known"]) for row in listed], rtol=1e-5)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.slow
def test_decoding_processes_do_not_change_the_result(redness, pool, tmp_path, workers):
    model = redness()
    files = image_pool(pool)
    predict_files(model, files, tmp_path / "one.csv")
    object.__setattr__(model, "workers", workers)
    predict_files(model, files, tmp_path / "two.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


def test_a_network_with_a_background_class_has_a_column_of_its_probability(redness, pool, tmp_path):
    model = redness(background=0)
    predict_files(model, image_pool(pool), tmp_path / "p.csv")
    written = rows(tmp_path / "p.csv")
    p = own_logits(model, pool, [row["path"] for row in written]).softmax(dim=1)[:, 0]
    np.testing.assert_allclose([float(row["background"]) for row in written], p, rtol=1e-5)


def test_sigmoid_networks_report_sigmoid_probabilities(redness, pool, tmp_path):
    model = redness(link="sigmoid")
    predict_files(model, image_pool(pool), tmp_path / "p.csv")
    written = rows(tmp_path / "p.csv")
    p = own_logits(model, pool, [row["path"] for row in written]).sigmoid().amax(dim=1)
    np.testing.assert_allclose([float(row["probability"]) for row in written], p, rtol=1e-5)


def test_knownness_by_msp_orders_images_by_their_probability(redness, pool, tmp_path):
    predict_files(redness(), image_pool(pool), tmp_path / "p.csv")
    written = rows(tmp_path / "p.csv")
    by_known = np.argsort([float(row["known"]) for row in written], kind="stable")
    assert (by_known == np.argsort([float(row["probability"]) for row in written], kind="stable")).all()


def test_knownness_by_max_logit_is_the_largest_logit(redness, pool, tmp_path):
    model = redness()
    predict_files(model, image_pool(pool), tmp_path / "p.csv", scorer="max_logit")
    written = rows(tmp_path / "p.csv")
    wanted = own_logits(model, pool, [row["path"] for row in written]).amax(dim=1)
    np.testing.assert_allclose([float(row["known"]) for row in written], wanted, rtol=1e-5)


@pytest.mark.parametrize(("scorer", "reason"), [("mspp", "Did you mean 'msp'"), ("distance", "no distance")])
def test_unusable_scorers_are_refused(redness, pool, tmp_path, scorer, reason):
    with pytest.raises(ConfigError, match=reason):
        predict_files(redness(), image_pool(pool), tmp_path / "p.csv", scorer=scorer)


def test_scores_that_are_not_finite_are_refused(redness, pool, tmp_path, monkeypatch):
    model = redness()
    nan = {"default": Scores(torch.full((4, 6), float("nan")))}
    monkeypatch.setattr(
        model.network, "predict", lambda images: {"default": Scores(nan["default"].logits[: len(images)])}
    )
    with pytest.raises(TrainingError, match="not finite"):
        predict_files(model, image_pool(pool), tmp_path / "p.csv")
    assert not (tmp_path / "p.csv").exists()


def test_a_network_without_a_score_for_each_class_is_refused(redness, pool, tmp_path, monkeypatch):
    model = redness()
    monkeypatch.setattr(model.network, "predict", lambda images: {"default": Scores(torch.zeros(len(images), 3))})
    with pytest.raises(ConfigError, match="does not give a score for each"):
        predict_files(model, image_pool(pool), tmp_path / "p.csv")


def test_fewer_classes_than_requested_are_all_shown(redness, pool, tmp_path):
    predict_files(redness(classes=2), image_pool(pool), tmp_path / "p.csv")
    assert list(rows(tmp_path / "p.csv")[0]) == [
        "path", "class", "probability", "known", "class_2", "probability_2",
    ]  # fmt: skip


def test_progress_counts_every_image_once(redness, pool, tmp_path):
    advanced: list[int] = []
    predict_files(redness(), image_pool(pool), tmp_path / "p.csv", advance=advanced.append)
    assert sum(advanced) == 13


def test_grey_networks_get_grey_pixels(redness, pool):
    model = redness()
    model.network.dataset_info.image_shape = (1, 8, 8)
    first = next(iter(batches(image_pool(pool), model)))
    assert first.images.shape[1:] == (1, 8, 8)


def test_a_network_of_arrays_gets_images_of_its_size_unchanged(tmp_path):
    crop = file_crop((3, 8, 8), {}, tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert (crop.read(Image.fromarray(pixels), None) == pixels).all()


def test_a_network_of_files_gets_the_crop_of_its_data_set(tmp_path):
    crop = file_crop((3, 224, 224), {"image_size": 224, "image_resize": 232}, tmp_path)
    assert (crop.size, crop.resize, crop.random) == (224, 232, False)


def test_images_that_are_not_square_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="cropped to squares only"):
        file_crop((3, 8, 10), {}, tmp_path)


def test_unreadable_files_are_listed_and_do_not_block(redness, pool, tmp_path):
    os.mkfifo(pool / "pipe.jpg")
    (pool / "loop.jpg").symlink_to("loop.jpg")
    done = predict_files(redness(), image_pool(pool), tmp_path / "p.csv")
    reasons = {row.path: row.reason for row in done.broken}
    assert "not a regular file" in reasons["pipe.jpg"]
    assert "links" in reasons["loop.jpg"]


def test_transparency_and_16_bits_are_read_as_in_training_and_reported(redness, tmp_path):
    (tmp_path / "pool").mkdir()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "pool" / "clear.png")
    Image.fromarray(np.full((8, 8), 4095, dtype=np.uint16)).save(tmp_path / "pool" / "deep.png")
    files = image_pool(tmp_path / "pool")
    trained = replace(redness(), decoding=Decoding(matte=(255, 0, 0), white_level=4095))
    clear, deep = next(batches(files, trained)).images
    assert (clear[0] == 255).all()
    assert (clear[1:] == 0).all()
    assert (deep == 255).all()
    clear, deep = next(batches(files, redness())).images
    assert (clear == 0).all()
    assert (deep == 15).all()
    message = predict_files(redness(), files, tmp_path / "p.csv").remarks
    assert [line.split(":")[0].split(",")[0] for line in message] == [
        "1 image has 16 bits and a highest value of 4",
        "1 image has transparency; the alpha channel is dropped",
    ]
