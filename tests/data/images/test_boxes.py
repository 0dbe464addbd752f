"""Bounding boxes in evaluation's crop, and the locations of a map that lie in them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import trees
from ltr.data.images.boxes import boxes_in_crop, locations_in_boxes, read_image_size
from ltr.data.images.crop import FileCrop
from ltr.data.sources.birds import cub


def test_a_location_is_inside_a_box_if_its_centre_is():
    inside = locations_in_boxes(np.array([[0.2, 0.0, 0.7, 0.5], [-1, -1, 2, 2]]), 2, 4).reshape(2, 2, 4)
    assert inside[0].tolist() == [[False, True, True, False], [False] * 4]
    assert inside[1].all()


@pytest.mark.filterwarnings("ignore:cub. this is not the whole")
def test_boxes_are_measured_in_evaluations_crop(tmp_path):
    trees.cub(tmp_path)
    source = cub(root=str(tmp_path))
    crop = FileCrop(16, resize=16)
    width, height = read_image_size(source.images, 0)
    x, y, w, h = source.boxes[0]
    left, top, right, bottom = boxes_in_crop(source, np.array([0]), crop)[0]
    side = min(width, height)
    assert left == pytest.approx((x - (width - side) / 2) / side)
    assert bottom == pytest.approx((y + h - (height - side) / 2) / side)
    assert (right - left) * side == pytest.approx(w)
    assert top == pytest.approx((y - (height - side) / 2) / side)


def test_a_decoded_image_reports_its_size():
    class Decoded:
        def open(self, index):
            return Image.new("RGB", (7, 5))

    assert read_image_size(Decoded(), 0) == (7, 5)
