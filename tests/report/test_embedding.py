"""The figure of features of width two, drawn from synthetic arrays."""

from __future__ import annotations

import numpy as np
import pytest
from made_up_runs import per_class_table, write_run

from ltr.errors import DataError
from ltr.report.embedding import feature_plane
from ltr.report.read_run import read_run

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def made(tmp_path, *, unknown: bool = True, radius: bool = True, classes: int = 4, epochs=(1, 5, 10), width: int = 2):
    random = np.random.default_rng(0)
    run = write_run(tmp_path / "run", per_class_table(classes), [])
    folder = run / "artifacts"
    folder.mkdir(exist_ok=True)
    snapshots = len(epochs)
    trained = {
        "points": random.normal(size=(classes, 2, width)),
        "history_features": random.normal(size=(snapshots, 50, width)),
        "history_labels": random.integers(-1, classes, (snapshots, 50)),
        "history_points": random.normal(size=(snapshots, classes, 2, width)),
        "history_radius": np.full((snapshots, classes), 0.5 if radius else np.nan),
        "history_epochs": np.array(epochs),
    }
    if radius:
        trained |= {"radius": np.array([0.5]), "radius_divisor": np.int64(2)}
    np.savez(folder / "representation.npz", **trained)
    evaluated = {"test_features": random.normal(size=(30, width)), "test_labels": random.integers(0, classes, 30)}
    if unknown:
        evaluated |= {"unknown_features": random.normal(size=(20, width)), "unknown_labels": np.full(20, -1)}
    np.savez(folder / "embedding.npz", **evaluated)
    return run


@pytest.mark.parametrize(
    "options",
    [{}, {"unknown": False}, {"radius": False}, {"classes": 12}, {"epochs": (1,)}, {"epochs": (1, 4, 7, 10)}],
    ids=str,
)
def test_the_plane_is_plotted_with_the_available_arrays(tmp_path, options):
    path = tmp_path / "plane.png"
    assert feature_plane(read_run(made(tmp_path, **options)), path)
    assert path.read_bytes().startswith(SIGNATURE)


def test_a_run_without_two_dimensional_features_has_no_figure(tmp_path):
    run = write_run(tmp_path / "run", per_class_table(4), [])
    assert not feature_plane(read_run(run), tmp_path / "plane.png")
    assert not (tmp_path / "plane.png").exists()


def test_a_damaged_file_is_named(tmp_path):
    run = made(tmp_path)
    (run / "artifacts" / "embedding.npz").write_bytes(b"not an archive")
    with pytest.raises(DataError, match=r"embedding\.npz"):
        feature_plane(read_run(run), tmp_path / "plane.png")
