"""The synthetic miniature of iNaturalist 2017: read by the data set's own reader, with the published foreground."""

from __future__ import annotations

import numpy as np
import pytest

import miniature
from ltr.data.sources.inaturalist import inaturalist
from ltr.data.splitting.background import background
from ltr.data.splitting.published import background_list


@pytest.mark.filterwarnings("ignore:.*not the whole published")
def test_the_published_background_split_can_be_built_from_the_miniature(tmp_path, monkeypatch):
    content = miniature.synthetic_image(7, np.random.default_rng(0))
    monkeypatch.setattr(miniature, "synthetic_image", lambda *arguments: content)  # five thousand of them take seconds
    assert miniature.draw(tmp_path, 2, 1) == {"train": 5189, "val": 350}
    source = inaturalist(root=str(tmp_path), version="2017", folder="inat2017")
    split = background(source, foreground="inat17_100")
    assert split.class_counts.tolist() == [4989] + [2] * 100
    assert [int(source.class_ids[np.flatnonzero(split.label_map == label)[0]]) for label in range(1, 101)] == (
        background_list("inat17_100", 0)
    )
