"""An extraction of features that is stopped after some images, for tests of its resuming."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ltr.runs import features as features_stage


@contextmanager
def killed_extraction(after: int = 300) -> Iterator[None]:
    """Interrupt extractions at the first block whose first image is beyond the index ``after``."""
    batches = features_stage.FeatureStage._batches

    def dying(self, indices, view):
        if indices[0] > after:
            raise KeyboardInterrupt
        return batches(self, indices, view)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features_stage.FeatureStage, "_batches", dying)
        yield
