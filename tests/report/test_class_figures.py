"""Figures of a run's classes: confusion, priors, norms, reliability, sampled classes, background partition."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up_runs import curve_rows, per_class_table, write_arrays_of, write_predictions, write_run
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.image import imread

from ltr.errors import DataError
from ltr.report import background_classes, confusion, draws, priors, reliability, style, weight_norms
from ltr.report.classes import BACKGROUND, Classes, binned_means, classes_of
from ltr.report.figures import CLASS_FIGURES, draw
from ltr.report.read_run import read_run
from ltr.report.style import GROUP_COLOURS, PALE

MODULES = (background_classes, confusion, draws, priors, reliability, weight_norms)


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(style, "_DPI", 50)


@pytest.fixture
def figure_of(monkeypatch):
    """Draw and return the matplotlib figure."""
    drawn = []
    for module in MODULES:
        original = module.set_run_title
        monkeypatch.setattr(
            module, "set_run_title", lambda figure, run, o=original: (drawn.append(figure), o(figure, run))
        )

    def make(picture_of, run_dir) -> Figure:
        assert picture_of(read_run(run_dir), run_dir / "figure.png")
        return drawn[-1]

    return make


def run_of(folder, classes, images=30, **changes):
    table = per_class_table(classes, images=images) | changes
    run_dir = write_run(folder, table, curve_rows({"representation": 3, "classifier": 2}))
    write_predictions(run_dir, table, images)
    write_arrays_of(run_dir, table)
    return run_dir


def predict(folder, label, prediction, confidence=None):
    """``predictions.parquet`` with exactly these."""
    confidence = np.full(len(label), 0.5) if confidence is None else np.asarray(confidence)
    columns = {"variant": ["default"] * len(label), "id": np.arange(len(label)), "label": label}
    columns |= {"prediction": prediction, "scores": [[float(value)] for value in confidence]}
    pq.write_table(pa.table(columns), folder / "predictions.parquet")


@pytest.mark.parametrize("classes", [2, 10, 100, 8142])
def test_all_figures_are_made_for_any_number_of_classes(tmp_path, classes):
    run_dir = run_of(tmp_path, classes, images=3 if classes > 100 else 30)
    paths = {path.stem: path for path in draw(run_dir, "all")}
    assert set(paths) >= set(CLASS_FIGURES) - {"background_classes"}
    for path in paths.values():
        pixels = imread(path)
        assert pixels.std() > 0.05  # not an empty config
        assert pixels.shape[1] >= 250


def test_two_figures_are_enough_by_default(tmp_path):
    assert [path.stem for path in draw(run_of(tmp_path, 10))] == ["accuracy_by_frequency", "training_curves"]


@pytest.mark.parametrize("left_out", ["many", "medium", "few"])
def test_figures_are_made_with_an_empty_shot_group(tmp_path, left_out):
    table = per_class_table(40)
    other = "medium" if left_out != "medium" else "few"
    groups = np.where(table["group"] == left_out, other, table["group"]).astype(object)
    run = read_run(run_of(tmp_path, 40, group=groups))
    assert run.headline["metrics"][left_out] is None
    drawn = [name for name, make in CLASS_FIGURES.items() if make(run, tmp_path / name)]
    assert drawn == ["confusion", "predicted_prior", "weight_norms", "reliability", "draws"]


def test_figures_are_made_with_classes_without_test_images(tmp_path):
    run_dir = run_of(tmp_path, 10)
    label = np.repeat(np.arange(3), 10)
    predict(run_dir, label, np.roll(label, 1))
    assert len(draw(run_dir, "all")) == 7


def test_a_run_without_predictions_or_arrays_has_the_first_two(tmp_path):
    run_dir = write_run(tmp_path, per_class_table(10), curve_rows({"main": 2}))
    assert len(draw(run_dir, "all")) == 2


def test_damaged_arrays_are_named(tmp_path):
    run_dir = run_of(tmp_path, 10)
    (run_dir / "artifacts" / "draws.npz").write_bytes(b"half of it")
    with pytest.raises(DataError, match=r"draws\.npz is damaged"):
        draw(run_dir, "all")


@pytest.mark.parametrize("protocol", ["retrieval", "few_shot"])
def test_protocols_of_unseen_classes_have_no_class_figures(tmp_path, protocol):
    run_dir = write_run(tmp_path, per_class_table(10), [], protocol=protocol)
    assert classes_of(read_run(run_dir)) is None


# -- confusion ----------------------------------------------------------------------------------------------------

# one many-shot class, two medium, one few
FOUR = Classes(
    np.array(list("abcd"), object), np.array([500, 50, 40, 5]), np.array(["many", "medium", "medium", "few"])
)


def test_the_head_absorption_rate_is_the_share_of_errors_predicted_as_many_shot_classes():
    # the few-shot class d: 4 right, 3 taken for a, 1 for b
    true, predicted = np.array([0, 3, 3, 3, 1]), np.array([0, 3, 0, 1, 0])
    counts = np.array([9, 4, 3, 1, 5])
    assert confusion.absorption(FOUR, true, predicted, counts, "few") == 3 / 4
    assert confusion.absorption(FOUR, true, predicted, counts, "medium") == 1
    assert np.isnan(confusion.absorption(FOUR, true, predicted, counts, "many"))


def test_the_head_absorption_by_chance_spreads_errors_over_all_other_classes():
    assert confusion.absorption_by_chance(FOUR, "few") == pytest.approx(1 / 3)
    assert confusion.absorption_by_chance(FOUR, "many") == 0


def test_rows_of_the_matrix_are_shares_from_frequent_to_rare(tmp_path, figure_of):
    table = per_class_table(3)
    run_dir = write_run(tmp_path, {name: column[::-1] for name, column in table.items()}, [])
    predict(run_dir, [0, 0, 0, 0, 1, 2], [0, 0, 0, 2, 1, 2])
    image = figure_of(confusion.confusion, run_dir).axes[0].images[0].get_array()
    assert image.tolist() == [[0.75, 0, 0.25], [0, 1, 0], [0, 0, 1]]


def test_more_than_a_hundred_classes_are_lists(tmp_path, figure_of):
    run_dir = write_run(tmp_path, per_class_table(101), [])
    label = np.arange(101).repeat(4)
    prediction = label.copy()
    prediction[4 * 100 : 4 * 100 + 3] = 7  # three of the rarest class
    prediction[4] = 7
    predict(run_dir, label, prediction)
    commonest, absorbing, _ = figure_of(confusion.confusion, run_dir).axes
    names = [text.get_text() for text in commonest.get_yticklabels()]
    assert names == ["class 100 → class 7", "class 1 → class 7"]
    assert [bar.get_width() for bar in commonest.patches] == [3, 1]
    assert commonest.patches[0].get_facecolor() == to_rgba(GROUP_COLOURS["few"])
    assert [text.get_text() for text in absorbing.get_yticklabels()] == ["class 7"]


# -- priors, norms, reliability, draws --------------------------------------------------------------------------


def test_bars_are_the_shares_of_the_predictions(tmp_path, figure_of):
    run_dir = write_run(tmp_path, per_class_table(3), [])
    predict(run_dir, [0, 1, 2, 2], [0, 0, 0, 2])
    axes = figure_of(priors.predicted_prior, run_dir).axes[0]
    assert sorted(bar.get_height() for bar in axes.patches) == [0, 25, 75]
    lines = {line.get_label(): line.get_ydata().tolist() for line in axes.lines}
    assert lines["test images"] == [25, 25, 50]
    assert sum(lines["training images"]) == pytest.approx(100)


def test_classes_that_are_never_predicted_are_counted(tmp_path, figure_of):
    run_dir = write_run(tmp_path, per_class_table(50), [])
    predict(run_dir, np.arange(50), np.zeros(50, int))
    legend = figure_of(priors.predicted_prior, run_dir).legends[0]
    assert "predicted, mean (49 classes never)" in [text.get_text() for text in legend.get_texts()]


def test_norms_are_relative_to_their_mean_before_and_after_the_second_stage(tmp_path, figure_of):
    run_dir = run_of(tmp_path, 4)
    np.savez(run_dir / "artifacts" / "class_weights.npz", before=[4.0, 3, 2, 1], after=[10.0, 10, 10, 10])
    axes = figure_of(weight_norms.weight_norms, run_dir).axes[0]
    lines = [line.get_ydata().tolist() for line in axes.lines if len(line.get_ydata()) == 4]
    assert lines == [[1.6, 1.2, 0.8, 0.4], [1, 1, 1, 1]]


def test_a_class_without_weights_is_left_out(tmp_path):
    run_dir = run_of(tmp_path, 4)
    np.savez(run_dir / "artifacts" / "class_weights.npz", after=[np.nan, 3, 2, 1])
    assert weight_norms.weight_norms(read_run(run_dir), tmp_path / "norms.png")


def test_sums_of_the_bins_are_those_of_the_calibration_error():
    n, right, confidence = reliability.binned_sums(np.array([0.5, 0.51, 1.0]), np.array([True, False, True]), 2)
    assert (n.tolist(), right.tolist(), confidence.tolist()) == ([1, 2], [1, 1], [0.5, 1.51])


def test_few_shot_classes_have_a_reliability_panel_if_there_are_any(tmp_path, figure_of):
    run_dir = run_of(tmp_path / "few", 40)
    assert len(figure_of(reliability.reliability, run_dir).axes) == 4
    table = per_class_table(5, n_max=500, factor=2)
    run_dir = write_run(tmp_path / "many", table, [])
    predict(run_dir, [0, 1], [0, 0], [0.9, 0.6])
    axes = figure_of(reliability.reliability, run_dir).axes
    assert [one.get_title(loc="left") for one in axes] == ["all: calibration error 35.0 %", ""]


def test_sampling_figures_show_epochs_and_shares_of_the_groups(tmp_path, figure_of):
    run_dir = run_of(
        tmp_path, 4, train_count=np.array([200, 200, 50, 5]), group=np.array(["many", "many", "medium", "few"], object)
    )
    counts = np.array([[200, 200, 50, 5], [100, 100, 100, 155]])
    arrays = {"main.epochs": [1, 10], "main.counts": counts}
    np.savez(run_dir / "artifacts" / "draws.npz", **arrays)
    of_classes, of_groups = figure_of(draws.draws, run_dir).axes
    lines = {line.get_label(): line.get_ydata().tolist() for line in (*of_classes.lines, *of_groups.lines)}
    assert lines["sampled in epoch 10"] == [100, 100, 100, 155]
    assert lines["few (1 class)"] == pytest.approx([500 / 455, 15500 / 455])


def test_epochs_with_equal_sampling_are_one_line():
    counts = np.repeat([[5, 1], [3, 3]], [4, 2], axis=0)
    assert draws.shown_draws(np.array([1, 10, 20, 32, 33, 40]), counts) == {
        "sampled in epochs 1 to 32": 0,
        "sampled in epochs 33 to 40": 4,
    }


def test_if_all_epochs_differ_the_first_middle_and_last_are_shown():
    counts = np.arange(14).reshape(7, 2)
    assert list(draws.shown_draws(np.arange(1, 8), counts).values()) == [0, 3, 6]


def test_a_constant_sampling_distribution_is_one_line(tmp_path, figure_of):
    axes = figure_of(draws.draws, run_of(tmp_path, 10)).axes[0]
    assert [line.get_label() for line in axes.lines] == ["training images", "sampled in every epoch"]


# -- the background ---------------------------------------------------------------------------------------------


@pytest.fixture
def background_run(tmp_path):
    """Two foreground classes of 30 and 10 images among a background of 960, in two scorers' tables."""
    table = per_class_table(2) | {"class_id": np.array([1, 2]), "train_count": np.array([30, 10])}
    table |= {"group": np.array(["medium", "few"], dtype=object)}
    twice = {name: np.concatenate([column, column]) for name, column in table.items()}
    twice["scorer"] = np.array(["probability"] * 2 + ["logit"] * 2, dtype=object)
    run_dir = write_run(tmp_path, twice, [], protocol="background", scorer="probability")
    result = json.loads((run_dir / "result.json").read_text())
    result["data"] = {"train_images": 1000}
    (run_dir / "result.json").write_text(json.dumps(result))
    (run_dir / "artifacts").mkdir()
    np.savez(run_dir / "artifacts" / "partition.npz", background_counts=[0, 240, 720])
    return run_dir


def test_the_background_is_a_class_with_the_remaining_images(background_run):
    classes = classes_of(read_run(background_run))
    assert classes.names.tolist() == [BACKGROUND, "class 0", "class 1"]
    assert classes.counts.tolist() == [960, 30, 10]
    assert classes.groups.tolist() == [BACKGROUND, "medium", "few"]


def test_several_scorers_show_each_class_once(background_run):
    assert len(read_run(background_run).per_class["class_id"]) == 2


def test_splitting_figures_show_the_background_before_and_after(background_run, figure_of):
    before, after = figure_of(background_classes.background_classes, background_run).axes
    assert [bar.get_height() for bar in before.patches] == [960, 30, 10]
    assert before.patches[0].get_facecolor() == to_rgba(PALE)
    assert before.get_title(loc="left") == "before: 96.0 % in one class"
    assert [bar.get_height() for bar in after.patches] == [720, 240]
    assert after.get_title(loc="left").startswith("after: 2 pseudo-classes, as good as 1.75")


def test_thousands_of_pseudo_classes_are_one_filled_shape(background_run, figure_of):
    np.savez(background_run / "artifacts" / "partition.npz", background_counts=np.arange(5000))
    _, after = figure_of(background_classes.background_classes, background_run).axes
    assert len(after.patches) == 1


def test_bins_are_means_of_neighbours_without_missing_values():
    centres, means = binned_means(np.array([1.0, 3.0, np.nan, 5.0] * 12))
    assert len(centres) == 12
    assert centres[0] == 1.5
    assert means.tolist() == [3.0] * 12
