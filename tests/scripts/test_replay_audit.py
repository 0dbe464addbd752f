"""The replay of the label audit: flips and scores are what they say."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def script():
    path = Path(__file__).parents[2] / "scripts" / "replay_audit.py"
    spec = importlib.util.spec_from_file_location("replay_audit", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_share_of_labels_becomes_another_class(script):
    labels = np.arange(4000) % 5
    noisy = script.flip(labels, 0.1, 0)
    assert (noisy != labels).mean() == pytest.approx(0.1, abs=0.02)
    assert set(noisy) == set(range(5))


def test_precision_and_recall_are_of_the_chosen_images(script):
    flagged, wrong = np.array([1, 1, 0, 1], dtype=bool), np.array([1, 0, 1, 1], dtype=bool)
    assert script.scores(flagged, wrong, np.array([1, 1, 1, 0], dtype=bool)) == (0.5, 0.5)


def test_the_table_is_printed_for_every_group(script, tmp_path, monkeypatch, capsys):
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [600, 200, 40])
    features = np.eye(3)[labels] * 4 + random.normal(size=(840, 3))
    monkeypatch.setattr(script, "read", lambda *arguments: (features, labels))
    monkeypatch.setattr(sys, "argv", ["replay_audit.py", "--features", str(tmp_path / "f.npy"), "--seeds", "1"])
    script.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["classes", "all", "many", "medium", "few"]
    assert float(lines[1].split()[2]) > 0.7
