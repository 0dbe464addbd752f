"""The overlays of selected locations."""

import numpy as np
import pytest
from made_up_runs import per_class_table, write_run
from matplotlib.image import imread

from ltr.errors import DataError
from ltr.report.read_run import read_run
from ltr.report.selections import overlay, selected_locations


@pytest.fixture
def run(tmp_path):
    return read_run(write_run(tmp_path, per_class_table(10), []))


def put(run, **arrays):
    (run.path / "artifacts").mkdir()
    np.savez(run.path / "artifacts" / "examples.npz", **arrays)


def examples(channels=3, images=3, **masks):
    random = np.random.default_rng(0)
    return {
        "images": random.integers(0, 256, (images, 8, 8, channels), dtype=np.uint8),
        "labels": np.arange(images),
        "predictions": np.zeros(images, dtype=np.int64),
        **masks,
    }


def test_dropped_locations_are_darkened_and_selected_ones_unchanged():
    image = np.full((4, 6, 3), 200, dtype=np.uint8)
    shown = overlay(image, np.array([[True, False, False], [False, False, True]]))
    assert (shown[:2, :2] == 200).all()
    assert (shown[2:, 4:] == 200).all()
    assert (shown[:2, 2:] == 50).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_figure_has_a_column_for_each_level_that_selects(run, tmp_path, channels):
    put(run, **examples(channels, selected_2=np.ones((3, 4, 4), bool), selected_10=np.zeros((3, 2, 2), bool)))
    path = tmp_path / "selections.png"
    assert selected_locations(run, path)
    height, width = imread(path).shape[:2]
    assert height > width  # three rows of three


def test_without_a_selection_there_is_no_figure(run, tmp_path):
    assert not selected_locations(run, tmp_path / "selections.png")
    put(run, **examples())
    assert not selected_locations(run, tmp_path / "selections.png")
    assert not (tmp_path / "selections.png").exists()


def test_a_damaged_file_is_named(run, tmp_path):
    put(run)
    (run.path / "artifacts" / "examples.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"examples\.npz is damaged"):
        selected_locations(run, tmp_path / "selections.png")
