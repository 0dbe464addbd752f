"""Figures of open-world protocols, drawn from synthetic runs: their content and omissions."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ltr.errors import DataError
from ltr.evaluation.background import Background
from ltr.evaluation.open_set import OpenSet
from ltr.evaluation.scores import Scores
from ltr.report import open_world
from ltr.report.read_run import read_run

torch.set_num_threads(1)
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def write_run(folder, results, names):
    """A run directory of one protocol: a row and a file of curves for each scorer."""
    folder.mkdir(exist_ok=True)
    (folder / "artifacts").mkdir(exist_ok=True)
    rows = []
    for index, (protocol, scorer, result) in enumerate(results):
        metrics = {name: None if value != value else value for name, value in result.metrics.items()}
        labels = {"split": "test", "selection": "last", "checkpoint": "final", "variant": "default"}
        rows.append({"protocol": protocol, "scorer": scorer, "headline": index == 0, "metrics": metrics} | labels)
        np.savez(folder / "artifacts" / f"{protocol}_default_{scorer}.npz", **result.curves)
    config = {"method.name": "erm", "dataset.name": "made_up", "seed": 0}
    (folder / "result.json").write_text(json.dumps({"schema_version": 1, "config": config, "rows": rows}))
    table = {"variant": ["default"] * len(results[0][2].per_class["n"])} | dict(results[0][2].per_class)
    table["class_name"] = [names[c] for c in table["class_id"]]
    pq.write_table(pa.table(table), folder / "per_class.parquet")
    return read_run(folder)


def open_set_run(folder, unknown=0.4, scorers=("msp", "energy"), threshold=1.0):
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, 400)
    logits = torch.tensor(random.normal(size=(400, 5)) + 2.5 * np.eye(5)[labels], dtype=torch.float32)
    labels[random.random(400) < unknown] = -1
    logits[labels < 0] *= 0.5
    results = []
    for scorer in scorers:
        protocol = OpenSet(np.array([300, 200, 50, 30, 5]), scorer=scorer).with_threshold(threshold)
        protocol.update(Scores(logits), torch.tensor(labels))
        results.append(("open_set", scorer, protocol.compute()))
    return write_run(folder, results, [f"class {c}" for c in range(5)])


def background_run(folder, foreground=4, images=600, share=0.8, rarest=5, most=400):
    random = np.random.default_rng(0)
    labels = random.integers(1, foreground + 1, images)
    labels[random.random(images) < share] = 0
    logits = torch.tensor(random.normal(size=(images, foreground + 1)) + 3 * np.eye(foreground + 1)[labels]).float()
    results = []
    for scorer in ("probability", "logit"):
        protocol = Background(np.array([9000, *np.geomspace(most, rarest, foreground).astype(int)]), scorer=scorer)
        protocol.update(Scores(logits), torch.tensor(labels))
        results.append(("background", scorer, protocol.compute()))
    return write_run(folder, results, ["background", *(f"bird {c}" for c in range(foreground))])


@pytest.fixture
def drawn(monkeypatch):
    """The drawn matplotlib figures, in order."""
    figures = []
    original = open_world.set_run_title

    def keep(figure, run):
        figures.append(figure)
        original(figure, run)

    monkeypatch.setattr(open_world, "set_run_title", keep)
    return figures


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_a_line_for_each_scorer_with_its_area(tmp_path, drawn):
    run = open_set_run(tmp_path)
    assert open_world.known_and_unknown(run, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(SIGNATURE)
    roc, oscr = drawn[-1].axes
    metrics = run.result["rows"][0]["metrics"]
    assert legend(roc)[0] == f"msp: {100 * metrics['auroc']:.1f} %"
    assert [text.split(":")[0] for text in legend(oscr)] == ["msp", "energy"]
    x, y = oscr.lines[0].get_data()
    assert np.trapezoid(y, x) == pytest.approx(metrics["oscr"], abs=0.01)
    assert y[-1] == metrics["closed_set_accuracy"]


def test_histograms_have_a_panel_for_each_scorer_and_lines_at_thresholds(tmp_path, drawn):
    run = open_set_run(tmp_path)
    assert open_world.score_histogram(run, tmp_path / "a.png")
    panels = drawn[-1].axes
    assert [axes.get_title(loc="left") for axes in panels] == ["msp", "energy"]
    assert legend(panels[-1])[:3] == [
        text for text in legend(panels[-1]) if text.startswith(("known, right", "known, wrong", "unknown"))
    ]
    assert "threshold: oracle" in legend(panels[-1])
    assert "threshold: fixed" not in legend(panels[-1])  # a probability is no threshold of an energy


def test_without_unknown_images_only_a_histogram_is_made(tmp_path):
    run = open_set_run(tmp_path, unknown=0.0)
    assert not open_world.known_and_unknown(run, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
    assert open_world.score_histogram(run, tmp_path / "b.png")


def test_few_classes_are_named_with_their_average_precision(tmp_path, drawn):
    run = background_run(tmp_path)
    assert open_world.precision_recall(run, tmp_path / "a.png")
    (figure,) = drawn
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(texts) == 5
    expected = run.per_class["average_precision"][0]
    assert texts[0] == f"bird 0 {100 * expected:.1f} %"
    assert texts[-1] == f"mean, mAP {100 * run.headline['metrics']['map']:.1f} %"
    assert figure.axes[0].lines[-1].get_ydata().mean() == pytest.approx(run.headline["metrics"]["map"], abs=0.01)


@pytest.mark.parametrize(("rarest", "most"), [(5, 9), (50, 90), (200, 300), (5, 400)])
def test_each_of_ten_classes_has_a_separate_line(tmp_path, drawn, rarest, most):
    run = background_run(tmp_path, foreground=10, rarest=rarest, most=most)
    assert open_world.precision_recall(run, tmp_path / "a.png")
    looks = {(line.get_color(), line.get_linestyle()) for line in drawn[-1].axes[0].lines}
    assert len(looks) == 11


def test_many_classes_are_coloured_by_group(tmp_path, drawn):
    assert open_world.precision_recall(background_run(tmp_path, foreground=30), tmp_path / "a.png")
    texts = [text.get_text().split()[0] for text in drawn[-1].legends[0].get_texts()]
    assert texts == ["mean,", "many", "medium", "few"]


def test_the_background_is_plotted_with_the_foreground(tmp_path, drawn):
    run = background_run(tmp_path)
    assert open_world.background_histogram(run, tmp_path / "a.png")
    panels = drawn[-1].axes
    assert [text.split(" (")[0] for text in legend(panels[-1])] == ["background", "foreground"]
    alarms = run.result["rows"][0]["metrics"]["false_alarms_per_thousand"]
    assert panels[0].get_title(loc="left") == f"probability: {alarms:.3g} false alarms per thousand"


def test_without_any_foreground_image_there_is_no_curve(tmp_path):
    run = background_run(tmp_path, share=1.0)
    assert not open_world.precision_recall(run, tmp_path / "a.png")
    assert open_world.background_histogram(run, tmp_path / "b.png")


@pytest.mark.parametrize("name", open_world.OPEN_WORLD_FIGURES)
def test_runs_of_other_protocols_get_no_figure(tmp_path, name):
    other = background_run(tmp_path) if name in ("known_and_unknown", "score_histogram") else open_set_run(tmp_path)
    assert not open_world.OPEN_WORLD_FIGURES[name](other, tmp_path / "a.png")


def test_a_damaged_file_of_curves_is_named(tmp_path):
    run = open_set_run(tmp_path)
    (tmp_path / "artifacts" / "open_set_default_msp.npz").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="open_set_default_msp"):
        open_world.score_histogram(run, tmp_path / "a.png")


def test_a_run_without_curves_gets_no_figure(tmp_path):
    run = open_set_run(tmp_path)
    for path in (tmp_path / "artifacts").iterdir():
        path.unlink()
    assert not open_world.known_and_unknown(run, tmp_path / "a.png")


def test_every_scorer_has_a_separate_line(tmp_path, drawn):
    scorers = ("msp", "energy", "max_logit", "entropy", "a", "b", "c", "d", "e", "f", "g", "h")
    run = open_set_run(tmp_path, scorers=("msp",))
    row, curves = run.result["rows"][0], tmp_path / "artifacts" / "open_set_default_msp.npz"
    for scorer in scorers[1:]:
        shutil.copy(curves, tmp_path / "artifacts" / f"open_set_default_{scorer}.npz")
        run.result["rows"].append({**row, "scorer": scorer, "headline": False})
    (tmp_path / "result.json").write_text(json.dumps(run.result))
    assert open_world.known_and_unknown(read_run(tmp_path), tmp_path / "a.png")
    roc = drawn[-1].axes[0]
    assert [text.split(":")[0] for text in legend(roc)] == list(scorers)
    styles = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in roc.lines}
    assert len(styles) == len(scorers)
