"""Snapshots of training features for figures."""

from __future__ import annotations

import torch

from ltr.identity import first_path_of, name_of
from ltr.methods.reciprocal_points import feature_history
from ltr.methods.reciprocal_points.feature_history import FeatureHistory


def test_a_snapshot_holds_the_images_of_all_processes(monkeypatch):
    def of_two_processes(rows: torch.Tensor) -> torch.Tensor:
        return torch.stack([rows, rows + 100], 1).flatten(0, 1)

    monkeypatch.setattr(feature_history, "gather_with_gradient", of_two_processes)
    history = FeatureHistory(torch.zeros(3, 1, 2), 8, 1, batch_size=4)
    for batch in range(2):
        labels = torch.arange(2) + 2 * batch
        history.record(0, batch, labels[:, None].expand(2, 2).float(), labels, torch.zeros(3, 1, 2), None)
    assert history.labels.tolist() == [[0, 100, 1, 101, 2, 102, 3, 103]]
    assert history.features[0, :, 0].tolist() == history.labels[0].tolist()


def test_the_computation_has_a_name_and_stored_stages_keep_their_key():
    path = "ltr.methods.reciprocal_points.feature_history.embed"
    assert name_of(path) == "computation/embedding_of_parts"
    assert first_path_of(name_of(path)) == path
