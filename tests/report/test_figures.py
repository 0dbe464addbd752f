"""Figures of runs of all sizes: complete PNG files with the right content."""

import json

import numpy as np
import pytest
from made_up_runs import curve_rows, per_class_table, write_arrays_of, write_predictions, write_run
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from ltr.errors import ConfigError, DataError
from ltr.report import curves, frequency
from ltr.report.classes import shorten
from ltr.report.figures import DEFAULT_FIGURES, FIGURES, draw
from ltr.report.read_run import read_run
from ltr.report.style import GROUP_COLOURS, figure_file, percent

SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def figure_of(monkeypatch):
    """Draw and return the matplotlib figure."""
    drawn = []

    def keep(original):
        def call(figure, run):
            drawn.append(figure)
            original(figure, run)

        return call

    for module in (frequency, curves):
        monkeypatch.setattr(module, "set_run_title", keep(module.set_run_title))

    def make(picture_of, run_dir) -> Figure:
        assert picture_of(read_run(run_dir), run_dir / "figure.png")
        return drawn[-1]

    return make


def legend_of(figure):
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    return [text.get_text() for legend in legends if legend for text in legend.get_texts()]


def lines_of(axes):
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


@pytest.mark.parametrize("classes", [2, 10, 100, 8142])
def test_every_run_gets_two_whole_figures(tmp_path, classes):
    run_dir = write_run(tmp_path, per_class_table(classes, images=3), curve_rows({"main": 4}))
    paths = draw(run_dir)
    assert [path.name for path in paths] == ["accuracy_by_frequency.png", "training_curves.png"]
    for path in paths:
        assert path.parent == run_dir / "figures"
        assert path.read_bytes().startswith(SIGNATURE)
        pixels = imread(path)
        assert pixels.shape[1] > 1200
        assert pixels.std() > 0.05  # not an empty config


def test_figures_leave_no_temporary_files(tmp_path):
    draw(write_run(tmp_path, per_class_table(10), curve_rows({"main": 2})))
    assert len(list((tmp_path / "figures").iterdir())) == 2


def test_the_same_run_gives_the_same_bytes(tmp_path):
    run_dir = write_run(tmp_path, per_class_table(10), curve_rows({"main": 2}))
    first = [path.read_bytes() for path in draw(run_dir)]
    assert [path.read_bytes() for path in draw(run_dir, "all")][:2] == first


def test_a_failing_figure_leaves_the_old_file(tmp_path):
    path = tmp_path / "old.png"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), figure_file(path, 2, 2):
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_without_training_has_no_curves(tmp_path):
    assert [path.stem for path in draw(write_run(tmp_path, per_class_table(10), []))] == ["accuracy_by_frequency"]


def test_an_unknown_choice_of_figures_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'two'"):
        draw(tmp_path, "tow")


def test_an_unfinished_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="not a run directory"):
        draw(tmp_path)


@pytest.mark.parametrize("make", DEFAULT_FIGURES.values(), ids=DEFAULT_FIGURES)
@pytest.mark.parametrize(("selection", "flagged"), [("last", False), ("best_test", True)])
def test_figures_of_a_run_selected_on_test_are_marked(tmp_path, figure_of, make, selection, flagged):
    run_dir = write_run(tmp_path, per_class_table(10), curve_rows({"main": 2}), selection=selection)
    assert ("selected on test" in figure_of(make, run_dir).get_suptitle()) is flagged


def test_a_named_run_has_its_name_as_title(tmp_path, figure_of):
    run_dir = write_run(tmp_path, per_class_table(10), [])
    path = run_dir / "result.json"
    result = json.loads(path.read_text())
    for name, title in (("balanced_softmax", "balanced_softmax · erm · cifar10_lt"), ("erm", "erm · cifar10_lt")):
        path.write_text(json.dumps({**result, "config": {**result["config"], "name": name}}))
        assert figure_of(frequency.accuracy_by_frequency, run_dir).get_suptitle().startswith(title)


def test_few_classes_are_bars_with_names_and_counts_from_frequent_to_rare(tmp_path, figure_of):
    table = per_class_table(10, n_max=5000)
    shuffled = np.random.default_rng(0).permutation(10)
    table = {name: column[shuffled] for name, column in table.items()}
    axes = figure_of(frequency.accuracy_by_frequency, write_run(tmp_path, table, [])).axes[0]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels[0] == "airplane (5000)"
    assert labels[-1].startswith("truck (")
    assert [bar.get_height() for bar in axes.patches] == (100 * table["accuracy"][np.argsort(shuffled)]).tolist()


def test_groups_have_fixed_colours_and_show_their_means(tmp_path, figure_of):
    run_dir = write_run(tmp_path, per_class_table(10, n_max=5000), [])
    figure = figure_of(frequency.accuracy_by_frequency, run_dir)
    metrics = read_run(run_dir).headline["metrics"]
    assert legend_of(figure) == [
        f"many {percent(metrics['many'])} (8 classes)",
        f"medium {percent(metrics['medium'])} (2 classes)",
        "few – (0 classes)",
    ]
    from matplotlib.colors import to_rgba

    assert figure.axes[0].patches[0].get_facecolor() == to_rgba(GROUP_COLOURS["many"])


def test_many_classes_are_points_and_binned_means(tmp_path, figure_of):
    table = per_class_table(100)
    axes = figure_of(frequency.accuracy_by_frequency, write_run(tmp_path, table, [])).axes[0]
    mean = lines_of(axes)["mean of classes"]
    first = table["train_count"] >= np.geomspace(4.9999, 500, 13)[11]
    assert mean.get_ydata()[-1] == pytest.approx(100 * table["accuracy"][first].mean())
    assert sum(len(points.get_offsets()) for points in axes.collections) >= 90
    assert axes.get_xscale() == "log"


def test_classes_without_evaluated_images_are_left_out(tmp_path, figure_of):
    table = per_class_table(10)
    table["n"] = table["n"].copy()
    table["n"][3:] = 0
    table["accuracy"][3:] = np.nan
    axes = figure_of(frequency.accuracy_by_frequency, write_run(tmp_path, table, [])).axes[0]
    assert len(axes.patches) == 3


@pytest.mark.parametrize("change", ["balanced", "unseen", "none evaluated"])
def test_figures_are_made_for_unusual_counts(tmp_path, change):
    table = per_class_table(40)
    if change == "balanced":
        table["train_count"] = np.full(40, 500)
    elif change == "unseen":
        table["train_count"] = np.where(np.arange(40) > 30, 0, table["train_count"])
    else:
        table["n"], table["accuracy"] = np.zeros(40, dtype=np.int64), np.full(40, np.nan)
    path = draw(write_run(tmp_path, table, []))[0]
    assert path.read_bytes().startswith(SIGNATURE)


def test_curves_hold_the_numbers_in_percent(tmp_path, figure_of):
    rows = curve_rows({"main": 5})
    figure = figure_of(curves.training_curves, write_run(tmp_path, per_class_table(10), rows))
    loss, accuracy, groups = figure.axes
    assert lines_of(loss)["train"].get_ydata().tolist() == pytest.approx([row["train/loss"] for row in rows])
    assert lines_of(accuracy)["val"].get_ydata().tolist() == pytest.approx([100 * row["val/accuracy"] for row in rows])
    assert lines_of(groups)["few"].get_color() == GROUP_COLOURS["few"]
    assert lines_of(groups)["few"].get_xdata().tolist() == [1, 2, 3, 4, 5]


def test_an_empty_group_has_no_curve(tmp_path, figure_of):
    run_dir = write_run(tmp_path, per_class_table(10), curve_rows({"main": 5}, few=False))
    assert set(lines_of(figure_of(curves.training_curves, run_dir).axes[2])) == {"many", "medium", "test"}


def test_a_monitored_test_split_is_plotted_under_its_name(tmp_path, figure_of):
    run_dir = write_run(tmp_path, per_class_table(10), curve_rows({"main": 5}, watched="test"))
    assert set(lines_of(figure_of(curves.training_curves, run_dir).axes[1])) == {"train", "test"}


def test_without_a_monitored_split_there_are_two_panels(tmp_path, figure_of):
    run_dir = write_run(tmp_path, per_class_table(10), curve_rows({"main": 5}, watched=None))
    assert len(figure_of(curves.training_curves, run_dir).axes) == 2


def test_curves_connect_the_monitored_epochs(tmp_path, figure_of):
    rows = curve_rows({"main": 6})
    for row in rows[::2]:
        row["val/accuracy"] = ""
    axes = figure_of(curves.training_curves, write_run(tmp_path, per_class_table(10), rows)).axes[1]
    assert lines_of(axes)["val"].get_xdata().tolist() == [2, 4, 6]


def test_the_test_result_is_marked_at_the_end_of_validation_curves(tmp_path, figure_of):
    table = per_class_table(10)
    run_dir = write_run(tmp_path, table, curve_rows({"main": 5}))
    _, accuracy, groups = figure_of(curves.training_curves, run_dir).axes
    star = lines_of(accuracy)["test, final weights"]
    assert star.get_xdata() == [5]
    assert star.get_ydata() == [pytest.approx(100 * table["accuracy"].mean())]
    stars = [line for line in groups.lines if line.get_marker() == "*"]
    metrics = read_run(run_dir).headline["metrics"]
    assert [line.get_ydata()[0] for line in stars] == [pytest.approx(100 * metrics[name]) for name in GROUP_COLOURS]
    assert [line.get_color() for line in stars] == list(GROUP_COLOURS.values())


@pytest.mark.parametrize(("watched", "stars"), [(None, 1), ("test", 0)])
def test_the_test_result_is_marked_unless_its_curve_is_plotted(tmp_path, figure_of, watched, stars):
    run_dir = write_run(tmp_path, per_class_table(10), curve_rows({"main": 5}, watched=watched))
    axes = figure_of(curves.training_curves, run_dir).axes[1]
    assert sum(line.get_marker() == "*" for line in axes.lines) == stars


def overhanging_texts(figure: Figure) -> list[str]:
    """Texts of a drawn figure that reach over its edge; ticks outside of their axis are not drawn."""
    figure.draw_without_rendering()
    hidden = set()
    for axis in [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]:
        low, high = sorted(axis.get_view_interval())
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            if not low - 1e-9 <= tick.get_loc() <= high + 1e-9:
                hidden |= {id(tick.label1), id(tick.label2)}
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text() and id(text) not in hidden]
    edges = figure.bbox.padded(1)
    return [
        text.get_text()
        for text in texts
        for box in [text.get_window_extent()]
        if box.x0 < edges.x0 or box.y0 < edges.y0 or box.x1 > edges.x1 or box.y1 > edges.y1
    ]


LONG = "Thalasseus sandvicensis acuflavidus, first winter plumage"


@pytest.mark.parametrize("name", ["accuracy_by_frequency", "training_curves", "confusion", "weight_norms"])
def test_long_names_do_not_exceed_the_figure(tmp_path, monkeypatch, name):
    table = per_class_table(10)
    table["class_name"] = np.array([f"{LONG} {number}" for number in range(10)], dtype=object)
    stages = {"representation": 190, "classifier_retraining": 4, "scales": 1}
    run_dir = write_run(tmp_path, table, curve_rows(stages))
    write_predictions(run_dir, table, 20)
    write_arrays_of(run_dir, table)
    run = read_run(run_dir)
    run.result["config"] |= {"method.name": "a_method_with_a_long_name", "dataset.name": "camera_traps_" * 6}
    drawn = []
    original = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (drawn.append(figure), original(figure, *a, **k)))
    assert FIGURES[name](run, tmp_path / "figure.png")
    assert overhanging_texts(drawn[0]) == []
    assert "seed 0" in drawn[0].get_suptitle()


def test_overhanging_texts_are_detected(tmp_path):
    figure = Figure(figsize=(2, 1))
    figure.text(0.9, 0.5, "a text beyond the edge")
    assert overhanging_texts(figure) == ["a text beyond the edge"]


def test_names_of_narrow_stages_are_listed_below(tmp_path, figure_of):
    run_dir = write_run(tmp_path, per_class_table(10), curve_rows({"representation": 40, "classifier": 3, "scales": 1}))
    figure = figure_of(curves.training_curves, run_dir)
    assert not figure.axes[0].texts
    assert figure.get_supxlabel() == "stages: representation (1 to 40), classifier (41 to 43), scales (44)"


def test_classes_with_equal_beginnings_get_distinct_labels():
    assert shorten("a" * 30 + "first") != shorten("a" * 30 + "other")
    assert len(shorten(LONG, 20)) == 20
    assert shorten("short") == "short"


def test_stages_are_plotted_in_order_with_their_names(tmp_path, figure_of):
    run_dir = write_run(tmp_path, per_class_table(10), curve_rows({"representation": 4, "classifier": 3}))
    axes = figure_of(curves.training_curves, run_dir).axes[0]
    assert [text.get_text() for text in axes.texts] == ["representation", "classifier"]
    drawn = [line.get_xdata().tolist() for line in axes.lines if len(line.get_xdata()) > 2]
    assert [5, 6, 7] in drawn
    assert legend_of(axes.figure).count("train") == 2  # once in the panel of the loss, once in that of the accuracy
