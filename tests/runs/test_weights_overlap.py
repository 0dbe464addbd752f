"""Weights that were trained on images that a run evaluates are named before training."""

from __future__ import annotations

import pytest

import trees
from ltr.runs.result import read_result

FOLDER = (
    "dataset=folder", "dataset.image_size=16", "backbone=digits_net", "trainer.max_epochs=1", "trainer.num_workers=0",
)  # fmt: skip


@pytest.mark.parametrize("key", ["method=crt method.start_from={run}", "backbone.weights={run}/checkpoints/final.ckpt"])
def test_weights_of_another_split_are_named(ltr_train, tmp_path, key):
    root = trees.folder(tmp_path, each=10)
    run = ltr_train(*FOLDER, f"dataset.root={root}").directory
    overrides = (*FOLDER, f"dataset.root={root}", *key.format(run=run).split(), "stages=plan")
    assert "these weights were trained on" not in ltr_train(*overrides).err
    other = ltr_train(*overrides, "dataset.split_seed=1").err
    assert "of the 6 test images, so the metrics are not those of new images" in other
    assert "has no effect" not in other
    trained = ltr_train(*overrides[:-1], "dataset.split_seed=1")
    (again,) = set(trained.directories) - {run}
    data = read_result(again)["data"]
    assert data["evaluated_images"] == 6
    assert 1 <= data["trained_on_images"] <= 6
    assert f"limited: trained on {data['trained_on_images']} of the 6 evaluated images" in trained.out
    assert "trained_on_images" not in read_result(run)["data"]


def test_weights_of_another_data_set_are_taken_without_reading_it(ltr_train, tmp_path):
    root = trees.folder(tmp_path, each=10)
    run = ltr_train(*FOLDER, f"dataset.root={root}").directory
    root.rename(tmp_path / "gone")
    finished = ltr_train(
        "dataset=digits", "backbone=digits_net", f"backbone.weights={run}/checkpoints/final.ckpt", "stages=plan"
    )
    assert (finished.code, "cannot determine" in finished.err) == (0, False), finished.err
