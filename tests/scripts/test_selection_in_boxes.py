"""The share of selected locations inside bounding boxes: geometry, and the whole command on a miniature of CUB."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import trees
from ltr.data.files import FileCrop
from ltr.data.sources.birds import cub

SCRIPT = Path(__file__).parents[2] / "scripts" / "selection_in_boxes.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("selection_in_boxes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_location_is_inside_where_its_centre_is(script):
    inside = script.inside_boxes(np.array([[0.2, 0.0, 0.7, 0.5], [-1, -1, 2, 2]]), 2, 4).reshape(2, 2, 4)
    assert inside[0].tolist() == [[False, True, True, False], [False] * 4]
    assert inside[1].all()


def test_shares_are_of_each_image(script):
    found = {}
    inside, selected = np.array([[True, True, False, False]]), np.array([[True, False, False, False]])
    script.add(found, "level 1", inside, selected)
    assert {kind: float(values[0][0]) for kind, values in found["level 1"].items()} == {
        "selected": 1.0,
        "all": 0.5,
        "dropped": pytest.approx(1 / 3),
    }


@pytest.mark.filterwarnings("ignore:cub. this is not the whole")
def test_boxes_are_measured_in_evaluations_crop(script, tmp_path):
    trees.cub(tmp_path)
    source = cub(root=str(tmp_path))
    crop = FileCrop(16, resize=16)
    width, height = script.size_of(source.images, 0)
    x, y, w, h = source.boxes[0]
    left, top, right, bottom = script.boxes_in_crop(source, np.array([0]), crop)[0]
    side = min(width, height)
    assert left == pytest.approx((x - (width - side) / 2) / side)
    assert bottom == pytest.approx((y + h - (height - side) / 2) / side)
    assert (right - left) * side == pytest.approx(w)
    assert top == pytest.approx((y - (height - side) / 2) / side)


@pytest.mark.filterwarnings("ignore:cub. this is not the whole")
def test_the_command_prints_a_line_for_each_level(script, ltr_train, tmp_path, capsys):
    trees.cub(tmp_path)
    small = ["backbone=timm", "backbone.name=test_resnet", "dataset.image_size=64", "dataset.image_resize=64"]
    fast = ["trainer.max_epochs=1", "scheduler.warmup_epochs=0", "trainer.precision=fp32", "trainer.num_workers=0"]
    run = ltr_train("dataset=cub", "method=herbs", "method.width=8", *small, *fast, f"paths.data={tmp_path}")
    assert run.code == 0, run.err
    assert script.main([str(run.directory)]) == 0
    printed = capsys.readouterr().out
    for row in ("level 1", "level 4", "together"):
        assert f"\n{row}" in printed
