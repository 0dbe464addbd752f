"""The replay of mining rounds: every strategy from the same labels, and the numbers of its summary."""

import csv
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture(scope="module")
def script():
    path = Path(__file__).parents[2] / "scripts" / "replay_mining.py"
    spec = importlib.util.spec_from_file_location("replay_mining", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["replay_mining"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(script):
    """400 images of the background, and two rare classes of 12 that features tell apart."""
    random = np.random.default_rng(0)
    labels = np.array([0] * 400 + [1] * 12 + [2] * 12)
    centres = np.array([[0, 0, 0], [4, 0, 0], [0, 4, 0]])
    features = (centres[labels] + random.normal(size=(424, 3))).astype(np.float32)
    return script.Data(features, labels, features[::2], labels[::2])


def test_strategies_start_with_the_same_labels_and_probability_finds_more_than_random(script, data):
    def rounds(strategy):
        return list(script.replay(data, strategy, rounds=2, batch=10, seed=0, distance=0.0))

    mined, sampled = rounds("probability"), rounds("random")
    assert [row.labels for row in mined] == [10, 20, 30]
    assert mined[0].positives == sampled[0].positives >= 2
    assert mined[-1].positives > sampled[-1].positives
    assert 0 < mined[-1].mean_average_precision <= 1


def test_the_summary_counts_mined_images_without_the_initial_ones(script):
    rows = [
        script.Round("margin", seed, number, 10 + 10 * number, 2 + 3 * number, 1 + number, 0.5)
        for seed in (0, 1)
        for number in range(3)
    ]
    (line,) = script.summarise(rows, count=2)
    assert line["positives per 100 labels"] == 30.0
    assert line["labels until 2 of each class"] == 20
    assert line["mAP"] == 50.0
    assert script.summarise(rows, count=9)[0]["labels until 9 of each class"] == "not reached"


def test_the_command_writes_rounds_summary_and_plot(script, tmp_path, monkeypatch):
    flags = [
        "--rounds",
        "1",
        "--seeds",
        "1",
        "--batch",
        "12",
        "--strategies",
        "margin",
        "random",
        "--out",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "argv", ["replay_mining.py", *flags])
    script.main()
    with open(tmp_path / "summary.csv", newline="") as file:
        assert [row["strategy"] for row in csv.DictReader(file)] == ["margin", "random"]
    assert (tmp_path / "replay.png").stat().st_size > 1000
    assert len((tmp_path / "replay.csv").read_text().splitlines()) == 5


@pytest.mark.filterwarnings("ignore:.*of a random backbone.*")
def test_stored_features_of_a_run_are_read(script, ltr_train, tmp_path, monkeypatch):
    run = ltr_train("dataset=digits_bg", "dataset.n_foreground=3", "features=stored", "trainer.max_epochs=1")
    assert run.code == 0, run.err
    (folder,) = (path.parent for path in run.outputs.glob("stages/*/block-000000.npz"))
    with_features = script.read("digits_bg", [], folder, None, 3, 1.0, 0)
    with_pixels = script.read("digits_bg", [], None, None, 3, 1.0, 0)
    assert with_features.pool.shape == (len(with_pixels.pool), 64)
    assert np.array_equal(with_features.test_labels, with_pixels.test_labels)
    np.testing.assert_allclose(with_features.pool.mean(axis=0), 0, atol=1e-5)
    with pytest.raises(SystemExit, match="features of other data"):
        script.read_stored(folder, SimpleNamespace(fingerprint="x", name="other"), np.arange(2))
    with pytest.raises(SystemExit, match="no stage of stored features"):
        script.read("digits_bg", [], tmp_path, None, 3, 1.0, 0)
