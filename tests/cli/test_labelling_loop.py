"""From a run to new labels and back: mine a pool, label the candidates, train on old and new labels together."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

import browser
from ltr.cli import guarded
from ltr.data.sources.digits import digits
from ltr.escaping import csv_cell

needs_browser = pytest.mark.skipif(browser.EXECUTABLE is None, reason="no Chromium is installed")
FAST = ("debug=fast", "dataset=table", "backbone=digits_net", "dataset.image_size=16", "batch_size=8")
CLASSES = 4


def write_images(folder: Path, rows) -> list[tuple[str, int]]:
    """Write images of the digits below ``CLASSES``; returns their names and labels."""
    source = digits()
    folder.mkdir()
    written = []
    for row in rows:
        if source.labels[row] < CLASSES:
            Image.fromarray(source.images[row, :, :, 0]).save(folder / f"{row:04d}.png")
            written.append((f"{row:04d}.png", int(source.labels[row])))
    return written


@pytest.fixture
def first_run(tmp_path, ltr_train):
    """A run on a table in the folder ``old``, with a pool in ``pool``."""
    labelled = write_images(tmp_path / "old", range(80))
    rows = [f"{path},{label},{'test' if row % 4 == 0 else 'train'}" for row, (path, label) in enumerate(labelled)]
    (tmp_path / "old" / "old.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
    run = ltr_train(*FAST, "trainer.num_workers=0", "dataset.file=old/old.csv")
    assert run.code == 0, run.err
    return run.directory


@pytest.fixture
def truth(tmp_path):
    return dict(write_images(tmp_path / "pool", range(100, 160)))


def mine(run: Path, out: str, *more: str) -> int:
    from ltr.commands.mine import main

    return guarded(lambda: main([str(run), "pool", "--out", out, "--group", "all", *more, "--workers", "0"]))


def train_on_both(ltr_train, first_run: Path, truth, labels: Path):
    """Train on the old and new tables, and check that the run counts the new labels."""
    saved = {row["path"]: row["label"] for row in csv.DictReader(io.StringIO(labels.read_text()))}
    assert saved
    run = ltr_train(
        *FAST,
        "trainer.num_workers=0",
        f"dataset.labels=[old/old.csv,{labels}]",
        outputs=labels.parents[1] / "second_outputs",
    )
    assert run.code == 0, run.err
    assert run.directory != first_run
    counts = [pq.read_table(folder / "per_class.parquet").to_pydict() for folder in (first_run, run.directory)]
    assert sum(counts[1]["train_count"]) == sum(counts[0]["train_count"]) + len(saved)
    for label in range(CLASSES):
        assert counts[1]["train_count"][label] - counts[0]["train_count"][label] == sum(
            text == str(label) for text in saved.values()
        )
    return saved


def test_mined_images_are_labelled_and_trained_on_together_with_earlier_ones(ltr_train, first_run, truth, tmp_path):
    assert mine(first_run, "mined", "--top", "2") == 0
    text = (tmp_path / "mined" / "label.html").read_text()
    images = json.loads(re.search(r'id="data">(.*?)</script>', text).group(1))["images"]
    rows = [(image["path"], str(truth[image["path"]])) for image in images]
    labels = tmp_path / "pool" / "labels.csv"  # as the labelling sheet saves it, into the pool's folder
    labels.write_text("path,label\r\n" + "".join(f"{csv_cell(path)},{csv_cell(label)}\r\n" for path, label in rows))
    saved = train_on_both(ltr_train, first_run, truth, labels)
    assert len(saved) == len(images)
    assert mine(first_run, "second", "--top", "2", "--exclude", str(labels)) == 0
    with open(tmp_path / "second" / "candidates.csv", newline="") as file:
        assert not {row["path"] for row in csv.DictReader(file)} & set(saved)


@pytest.mark.slow
@needs_browser
def test_the_loop_runs_through_a_browser(ltr_train, first_run, truth, tmp_path):
    assert mine(first_run, "mined", "--top", "2") == 0
    with browser.open_page(tmp_path / "mined" / "label.html", tmp_path / "profile") as window:
        for path in window.evaluate("images.map(image => image.path)"):
            window.evaluate(f"give('{truth[path]}')")
        text = window.evaluate("table()")
    labels = tmp_path / "pool" / "labels.csv"
    labels.write_bytes(text.encode())
    saved = train_on_both(ltr_train, first_run, truth, labels)
    assert saved == {path: str(truth[path]) for path in saved}
