"""Test-time ensembling: the scores of an image are means over several views of it (``evaluation.views``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ltr.data.loaders.device import resize_images
from ltr.evaluation.scores import Scores

Views = Literal["flip", "five_crops", "ten_crops"]
VIEWS: tuple[Views, ...] = get_args(Views)
SHARE = 224 / 248  # side of a crop relative to the image's; LIFT's, which crops 224 of 248 pixels
_AVERAGED = ("logits", "features", "knownness")


def views_of(images: Tensor, kind: str) -> list[Tensor]:
    """Return the views of images uint8 [B, C, H, W], each of the same shape.

    Args:
        kind: ``flip``: the image and its mirror image; ``five_crops``: the centre and the four corners, each a window
            of 0.9 of the sides, resized to the whole size; ``ten_crops``: these and their mirror images.
    """
    views = [images] if kind == "flip" else five_crops(images)
    if kind in ("flip", "ten_crops"):
        views += [view.flip(3) for view in views]
    return views


def five_crops(images: Tensor) -> list[Tensor]:
    """Return windows at the centre and the corners of images uint8 [B, C, H, W], resized to H x W."""
    height, width = images.shape[2:]
    rows, columns = max(round(SHARE * height), 1), max(round(SHARE * width), 1)
    bottom, right = height - rows, width - columns
    corners = [(bottom // 2, right // 2), (0, 0), (0, right), (bottom, 0), (bottom, right)]
    return [
        resize_images(images[:, :, top : top + rows, left : left + columns], (height, width)) for top, left in corners
    ]


class TestTimeViews(nn.Module):
    """Predictor whose scores are the means of another predictor's over the views of each image.

    Logits, features and the scores of knownness are averaged; further outputs, such as examples for figures and
    selected locations, are those of the image itself.

    Args:
        predictor: a module with `predict`, ``headline`` and ``link``.
        kind: see `views_of`.
    """

    __test__ = False  # no class of tests

    def __init__(self, predictor: Any, kind: str) -> None:
        super().__init__()
        self.predictor = predictor
        self.kind = kind

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("predictor"), name)

    def predict(self, images: Tensor) -> Mapping[str, Scores]:
        """Return the mean scores of images uint8 [B, C, H, W] by variant."""
        return averaged(images, self.kind, self.predictor.predict)

    def predict_with_locations(self, images: Tensor) -> tuple[Mapping[str, Scores], dict[str, Tensor]]:
        """Return the results of `predict`, and the locations of the images themselves."""
        return self.predict(images), self.predictor.locations(images)


def averaged(
    images: Tensor, kind: str | None, predict: Callable[[Tensor], Mapping[str, Scores]]
) -> Mapping[str, Scores]:
    """Return the means of ``predict`` over the views of each image, by variant; None: the scores of the image alone."""
    if kind is None:
        return predict(images)
    view_scores = [predict(view) for view in views_of(images, kind)]
    return {variant: mean_scores([scores[variant] for scores in view_scores]) for variant in view_scores[0]}


def mean_scores(scores: list[Scores]) -> Scores:
    """Return the mean of each part of scores; None where a part is."""
    means = {}
    for part in _AVERAGED:
        values = [getattr(one, part) for one in scores]
        means[part] = None if values[0] is None else torch.stack(values).mean(0)
    return Scores(**means)  # type: ignore[arg-type]
