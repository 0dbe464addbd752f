"""Networks of metric learning have no score for each class: they are neither exported nor asked to classify."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ltr
from ltr.apply.export import export
from ltr.errors import ConfigError
from ltr.evaluation.scores import Scores
from ltr.methods.core.network import ImageClassifier


@pytest.fixture(params=["empty", "none"])
def without_logits(request, monkeypatch):
    """Networks return features alone; logits are [B, 0], as those of triplet networks, or None."""

    def scores(self, images):
        features = torch.ones(len(images), 2)
        logits = torch.empty(len(images), 0) if request.param == "empty" else None
        return {self.headline: Scores(logits, features=features)}

    monkeypatch.setattr(ImageClassifier, "predict", scores)
    monkeypatch.setattr(ImageClassifier, "predict_headline", lambda self, images: scores(self, images)[self.headline])


@pytest.mark.usefixtures("without_logits")
def test_it_is_refused_by_name(checkpoint, tmp_path):
    for use in (
        lambda: export(checkpoint, tmp_path / "exported"),
        lambda: ltr.load(checkpoint, accelerator="cpu").predict(np.zeros((2, 8, 8, 1), np.uint8)),
    ):
        with pytest.raises(ConfigError, match="does not give a score for each of its 10 classes"):
            use()
    assert not (tmp_path / "exported").exists()
