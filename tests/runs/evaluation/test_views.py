"""Test-time ensembling: views, their mean scores, and runs that ask for it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ltr.configuration.configs import read_config
from ltr.evaluation.scores import Scores
from ltr.runs.evaluation.views import VIEWS, TestTimeViews, five_crops, views_of


def some_images(size: int = 31) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 2, size, size), dtype=torch.uint8, generator=random)


class FirstPixels(nn.Module):
    """A predictor whose logits are an image's first pixels."""

    headline, link = "default", "softmax"

    def predict(self, images):
        logits = images[:, 0, 0, :4].float()
        return {"default": Scores(logits, 2 * logits), "known": Scores(logits, None, logits.sum(1))}

    def locations(self, images):
        return {"selected_1": images[:, 0] > 0}


@pytest.mark.parametrize(("kind", "count"), [("flip", 2), ("five_crops", 5), ("ten_crops", 10)])
def test_scores_are_the_means_over_the_views(kind, count):
    images = some_images()
    views = views_of(images, kind)
    assert [view.shape for view in views] == [images.shape] * count
    mean = torch.stack([view[:, 0, 0, :4].double() for view in views]).mean(0).float()
    scores = TestTimeViews(FirstPixels(), kind).predict(images)
    torch.testing.assert_close(scores["default"].logits, mean)
    torch.testing.assert_close(scores["default"].features, 2 * mean)
    torch.testing.assert_close(scores["known"].knownness, mean.sum(1))
    assert scores["default"].knownness is None
    assert scores["known"].features is None


def test_an_image_and_its_mirror_image_have_the_same_scores():
    images = some_images()
    views = TestTimeViews(FirstPixels(), "flip")
    assert torch.equal(views.predict(images)["default"].logits, views.predict(images.flip(3))["default"].logits)


def test_five_crops_are_the_centre_and_the_corners():
    row = torch.arange(31, dtype=torch.uint8)
    images = (8 * (row[:, None] >= 15) + (row[None] >= 15)).to(torch.uint8)[None, None].repeat(1, 3, 1, 1) * 20
    windows = [images[..., top : top + 28, left : left + 28] for top, left in [(1, 1), (0, 0), (0, 3), (3, 0), (3, 3)]]
    for crop, window in zip(five_crops(images), windows, strict=True):
        assert crop.shape == images.shape
        expected = nn.functional.interpolate(window.float(), (31, 31), mode="bilinear", antialias=True)
        assert (crop.float() - expected).abs().max() <= 0.5


def test_the_kinds_of_views_are_those_of_the_config():
    assert read_config("evaluation/default")["_allowed_"]["views"] == [None, *VIEWS]


def test_a_uniform_image_has_equal_views():
    images = torch.full((2, 3, 9, 9), 77, dtype=torch.uint8)
    assert all(torch.equal(view, images) for view in views_of(images, "ten_crops"))


def test_locations_and_names_are_those_of_the_predictor():
    images = some_images()
    views = TestTimeViews(FirstPixels(), "flip")
    assert (views.headline, views.link) == ("default", "softmax")
    assert torch.equal(views.predict_with_locations(images)[1]["selected_1"], images[:, 0] > 0)


def test_a_run_with_views_has_another_result_than_without(ltr_train, tmp_path):
    plain = ltr_train("trainer.max_epochs=1", outputs=tmp_path)
    stages = f"paths.stages={tmp_path}/stages"
    mirrored = ltr_train("trainer.max_epochs=1", "evaluation.views=flip", stages, outputs=tmp_path / "mirrored")
    assert (plain.code, mirrored.code) == (0, 0), plain.err + mirrored.err
    assert plain.directory.name != mirrored.directory.name
    nll = [one.headline["nll"] for one in (plain, mirrored)]
    assert nll[0] != nll[1]


def test_stored_features_have_no_views(ltr_train, tmp_path):
    done = ltr_train("features=stored", "evaluation.views=flip", outputs=tmp_path)
    assert done.code != 0
    assert "evaluation.views=flip: stored features are those of the images alone" in done.err


def test_an_unknown_kind_of_views_is_refused(ltr_train, tmp_path):
    done = ltr_train("evaluation.views=six_crops", outputs=tmp_path)
    assert done.code != 0
    assert "five_crops" in done.err
