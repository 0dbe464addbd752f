"""Distances of images to class points: means over classes, the middle, and the command on runs of digits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import distances_to_points as script
from ltr.configuration.overrides import load_config
from ltr.data.packed_images.reading import read_source
from ltr.data.split import save_split
from ltr.data.splitting.exclusion import read_split

FAST = ("dataset=digits_open", "trainer.max_epochs=1", "trainer.precision=fp32", "figures=none")


def lying(features, distances, labels):
    distances = np.array(distances, dtype=float)
    return script.Lying(np.array(features, dtype=float), distances, distances.max(1), np.array(labels))


def test_distances_are_averaged_over_the_true_class_other_known_classes_and_unknown_images():
    known = lying(np.zeros((3, 2)), [[1, 10], [3, 20], [5, 40]], [0, 0, 1])
    unknown = lying(np.zeros((2, 2)), [[7, 6], [9, 8]], [-1, -1])
    assert script.by_class(known, unknown).tolist() == [[2.0, 5.0, 8.0], [40.0, 15.0, 7.0]]


def test_the_centre_weights_every_class_equally():
    # class means (0, 0) and (6, 0), of three images and one: the middle is (3, 0)
    known = lying([[0, 0], [0, 0], [0, 0], [6, 0]], np.zeros((4, 2)), [0, 0, 0, 1])
    unknown = lying([[3, 4]], np.zeros((1, 2)), [-1])
    far_known, far_unknown = script.from_middle(known, unknown)
    assert far_known.tolist() == [3.0] * 4
    assert far_unknown.tolist() == [4.0]


def half_of_the_test_images(file: Path) -> Path:
    """Write the split of the digits with every second test image to a file."""
    dataset = load_config(["dataset=digits_open"])["dataset"]
    split = read_split(dataset, read_source(dataset))
    save_split(replace(split, test=split.test[::2]), file)
    return file


@pytest.mark.parametrize(("method", "images"), [("rpl", 240), ("gcpl", 120)])
def test_the_command_measures_a_run_on_its_split(ltr_train, tmp_path, capsys, method, images):
    split_file = [f"+dataset.split_file={half_of_the_test_images(tmp_path / 'half.npz')}"] if images == 120 else []
    run = ltr_train(f"method={method}", "method.num_points=2", "method.feature_dim=2", *FAST, *split_file)
    assert run.code == 0, run.err
    capsys.readouterr()
    assert script.main([str(run.directory), "--batch-size", "37"]) == 0
    printed = capsys.readouterr().out
    assert f"{images} test images, 160 of unknown classes" in printed
    with np.load(run.directory / "artifacts" / "representation.npz") as trained:
        points = trained["points"].astype(float)
    with np.load(
        run.directory / "artifacts" / "embedding.npz"
    ) as evaluated:  # both parts are smaller than what it keeps
        features, labels = evaluated["test_features"].astype(float), evaluated["test_labels"]
        unknown = evaluated["unknown_features"].astype(float)
    squares = ((features[:, None, None] - points) ** 2).sum(3).mean(2) / 2
    of_unknown = ((unknown[:, None, None] - points) ** 2).sum(3).mean(2) / 2
    lines = printed.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("points of")) + 1
    rows = [[float(cell) for cell in line.split()[1:]] for line in lines[first : first + len(points)]]
    for c, row in enumerate(rows):
        expected = [squares[labels == c, c].mean(), squares[labels != c, c].mean(), of_unknown[:, c].mean()]
        assert row == pytest.approx(expected, rel=1e-3, abs=2e-3)
    if method == "rpl":  # the farthest class is the predicted one
        line = next(line for line in lines if line.startswith("to the points of the predicted class"))
        printed_means = [float(part.split()[-3]) for part in line.split(",")]
        assert printed_means == pytest.approx([squares.max(1).mean(), of_unknown.max(1).mean()], rel=1e-3, abs=2e-3)
    middle = np.mean([features[labels == c].mean(0) for c in range(len(points))], axis=0)
    near, far = (np.linalg.norm(part - middle, axis=1) for part in (unknown, features))
    share = np.mean((near[:, None] < far) + 0.5 * (near[:, None] == far))
    assert float(lines[-1].split(":")[1].split()[0]) == pytest.approx(100 * share, abs=0.06)


def test_a_network_without_points_is_refused(ltr_train, capsys):
    run = ltr_train("method=erm", *FAST)
    assert run.code == 0, run.err
    assert script.run_guarded(lambda: script.main([str(run.directory)])) == 1
    assert "has no points" in capsys.readouterr().err


def test_data_without_unknown_images_are_refused(ltr_train, capsys):
    run = ltr_train("method=rpl", "dataset=digits", *FAST[1:])
    assert run.code == 0, run.err
    assert script.run_guarded(lambda: script.main([str(run.directory)])) == 1
    assert "has no unknown images" in capsys.readouterr().err
