"""The figure of M2m's generated images."""

import numpy as np
import pytest
from made_up_runs import CIFAR, per_class_table, write_run
from matplotlib.image import imread

from ltr.report.read_run import read_run
from ltr.report.translations import amplification, sheet_of, translations


def write_sheet(run_dir, channels=3, rows=4, images=8, **changes):
    random = np.random.default_rng(0)
    shape = (rows, images, 16, 16, channels)
    seed = random.integers(0, 256, shape, dtype=np.uint8)
    arrays = {
        "seed": seed,
        "perturbation": (random.standard_normal(shape) * 0.02).astype(np.float16),
        "result": seed,
        "label": np.arange(9, 9 - rows, -1),
        "seed_label": random.integers(0, 5, (rows, images)),
        "accepted": np.arange(rows * images).reshape(rows, images) % 3 > 0,
        "class_names": np.array(CIFAR),
    }
    (run_dir / "artifacts").mkdir(exist_ok=True)
    np.savez(run_dir / "artifacts" / "classifier.npz", **(arrays | changes))


@pytest.fixture
def run(tmp_path):
    return read_run(write_run(tmp_path, per_class_table(10), []))


@pytest.mark.parametrize("channels", [1, 3])
def test_each_class_has_a_row(run, tmp_path, channels):
    heights = []
    for rows in (1, 4):
        write_sheet(run.path, channels, rows)
        path = tmp_path / f"{rows}.png"
        assert translations(run, path)
        heights.append(imread(path).shape[0])
    assert heights[1] > 2 * heights[0]


def test_few_images_make_a_narrow_figure(run, tmp_path):
    widths = []
    for images in (2, 8):
        write_sheet(run.path, images=images)
        assert translations(run, tmp_path / "sheet.png")
        widths.append(imread(tmp_path / "sheet.png").shape[1])
    assert widths[0] < 0.7 * widths[1]


def test_a_run_without_generated_images_has_no_figure(run, tmp_path):
    assert sheet_of(run.path) is None
    (run.path / "artifacts").mkdir()
    np.savez(run.path / "artifacts" / "classifier.npz", other=np.zeros(3))
    assert not translations(run, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(("size", "gain"), [(0.5, 1), (0.2, 2), (0.11, 2), (0.04, 10), (0.0, 500)])
def test_changes_are_amplified_within_the_pixel_range(size, gain):
    assert amplification(np.full((2, 3), size)) == gain


def test_large_changes_are_not_amplified():
    assert amplification(np.array([1.0, -1.0])) == 1
