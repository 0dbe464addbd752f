"""Bursts of one image are alike, and their table names the burst of every frame."""

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def script():
    path = Path(__file__).parents[2] / "scripts" / "burst_leak.py"
    spec = importlib.util.spec_from_file_location("burst_leak", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_frames_of_a_burst_differ_slightly_and_depend_on_the_seed(script):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    made = script.frames(image, 4, 7)
    assert len({frame.tobytes() for frame in made}) == 4
    assert all(frame.shape == image.shape and frame.dtype == np.uint8 for frame in made)
    np.testing.assert_array_equal(script.frames(image, 4, 7)[3], made[3])


def test_the_table_names_the_burst_of_every_frame(script, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(40) % 10
    first = script.write_bursts(tmp_path / "a", images, labels, bursts=2, number=3, start=0)
    second = script.write_bursts(tmp_path / "b", images, labels, bursts=2, number=3, start=2)
    tables = []
    for file in (first, second):
        with open(file, newline="") as stream:
            tables.append(list(csv.DictReader(stream)))
    assert [len(rows) for rows in tables] == [60, 60]
    assert len({row["seq_id"] for row in tables[0]}) == 20
    assert not {row["seq_id"] for row in tables[0]} & {row["seq_id"] for row in tables[1]}
    assert all((tmp_path / "a" / row["path"]).is_file() for row in tables[0])
