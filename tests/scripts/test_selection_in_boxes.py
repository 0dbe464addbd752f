"""The share of selected locations inside bounding boxes: geometry, and the whole command on a miniature of CUB."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import selection_in_boxes as script
import trees


def test_shares_are_of_each_image():
    collected = {}
    inside, selected = np.array([[True, True, False, False]]), np.array([[True, False, False, False]])
    script.add(collected, "level 1", inside, selected)
    assert {kind: float(values[0][0]) for kind, values in collected["level 1"].items()} == {
        "selected": 1.0,
        "all": 0.5,
        "dropped": pytest.approx(1 / 3),
    }


def test_locations_are_counted_relative_to_the_box():
    boxes = np.array([[0.25, 0.25, 0.75, 0.75], [0.0, 0.0, 0.5, 1.0]])
    selected = np.zeros((2, 4, 4), dtype=bool)
    selected[0, 1, 2] = True  # centre (0.625, 0.375): three quarters across the first box, a quarter down
    selected[1, 3, 3] = True  # centre (0.875, 0.875): 1.75 across the second, beyond what is shown
    chosen, seen = script.around_boxes(boxes, selected)
    size = script.CELLS // 2  # cells for a side of the box
    corner = size // 2  # the first inside the box
    assert chosen.sum() == 1
    assert chosen[corner + size // 4, corner + 3 * size // 4] == 1
    # all 16 places of the first image; of the second 4 rows of three columns, at 0.25, 0.75 and 1.25 across
    assert seen.sum() == 16 + 12
    assert seen[corner + size // 4, corner + 3 * size // 4] == 1


@pytest.mark.filterwarnings("ignore:cub. this is not the whole")
def test_the_command_prints_each_level_as_in_the_row_of_the_run_on_its_split(ltr_train, tmp_path, capsys):
    trees.cub(tmp_path)
    small = ["backbone=timm", "backbone.name=test_resnet", "dataset.image_size=64", "dataset.image_resize=64"]
    fast = ["trainer.max_epochs=1", "scheduler.warmup_epochs=0", "trainer.precision=fp32", "trainer.num_workers=0"]
    excluded = tmp_path / "excluded.txt"
    excluded.write_text("images/001.Made_up_Bird_1/Bird_1_2.jpg\n")
    data = [f"paths.data={tmp_path}", f"+dataset.exclude={excluded}"]
    run = ltr_train("dataset=cub", "method=herbs", "method.width=8", *small, *fast, *data)
    assert run.code == 0, run.err
    assert script.main([str(run.directory), "--picture", str(tmp_path / "around.png")]) == 0
    assert Image.open(tmp_path / "around.png").size[0] > 1000
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("cub, test: 11 images")
    printed = {line[:10].strip(): line[10:].split() for line in lines}
    metrics = run.headline  # the run has measured the same
    assert -1 < metrics["dropped_tanh"] < 1
    for row, level in (("level 1", "_1"), ("level 4", "_4"), ("together", "")):
        for index, kind in enumerate(script.KINDS):
            assert float(printed[row][2 * index]) == pytest.approx(100 * metrics[f"{kind}_in_box{level}"], abs=0.06)
