"""The spread of made-up runs over training subsets and seeds: lines, differences, published gaps, figure."""

from __future__ import annotations

import numpy as np
import pytest
from made_up_outputs import write

from ltr.errors import ConfigError, DataError
from ltr.report.read_runs import finished_runs
from ltr.report.spread import complete_grid, published_gaps, spreads
from ltr.report.spread_figure import spread_figure
from ltr.report.spread_sheets import spread_sheets, spread_text
from ltr.report.variance_components import variance_components

CIFAR10_LT = {
    "dataset.name": "cifar10_lt",
    "dataset.imbalance_factor": 100,
    "dataset.profile": "exponential",
    "dataset.n_max": None,
    "dataset.num_classes": None,
}


def values_of(method: str, shape: tuple[int, int] = (4, 3)) -> np.ndarray:
    base = {"erm": 0.40, "crt": 0.45}.get(method, 0.5)
    random = np.random.default_rng(list(method.encode()))
    return base + np.linspace(0, 0.02, shape[0])[:, None] + random.normal(0, 0.002, shape)


def write_grid(outputs, method="erm", shape=(4, 3), leave_out=(), **config):
    values = values_of(method, shape)
    for subset, seed in np.ndindex(shape):
        if (subset, seed) not in leave_out:
            settings = {**CIFAR10_LT, "dataset.subset": "seeded", "dataset.split_seed": subset, **config}
            metrics = {"balanced_accuracy": values[subset, seed], "accuracy": values[subset, seed]}
            write(outputs, method, seed, metrics=metrics, config=settings, split=f"exp100-seeded{subset}")
    return values


@pytest.fixture
def outputs(tmp_path):
    write_grid(tmp_path, "erm")
    write_grid(tmp_path, "crt")
    return tmp_path


def test_runs_of_all_subsets_and_seeds_form_one_line(outputs):
    (spread,) = spreads(finished_runs([outputs]).runs)
    assert [line.label for line in spread.lines] == ["crt", "erm"]
    assert spread.factor == "dataset.split_seed"
    assert spread.lines[1].components == variance_components(values_of("erm"))


def test_lines_are_sorted_by_their_mean_and_not_by_their_number_of_runs(tmp_path):
    write_grid(tmp_path, "erm")
    write_grid(tmp_path, "crt", shape=(2, 2))
    (spread,) = spreads(finished_runs([tmp_path]).runs)
    assert [line.label for line in spread.lines] == ["crt", "erm"]


def test_differences_are_computed_run_by_run(outputs):
    (spread,) = spreads(finished_runs([outputs]).runs)
    (pair,) = spread.pairs
    assert (pair.first, pair.second) == ("crt", "erm")
    expected = variance_components(values_of("crt") - values_of("erm"))
    assert pair.components.total.estimate == pytest.approx(expected.total.estimate)
    assert pair.components.subset.estimate < spread.lines[0].components.subset.estimate  # shared by both methods


def test_a_missing_run_excludes_its_subset_or_seed(tmp_path):
    write_grid(tmp_path, "erm", leave_out=[(3, 2)])
    (spread,) = spreads(finished_runs([tmp_path]).runs)
    components = spread.lines[0].components
    assert (components.subsets, components.seeds) == (3, 3)


@pytest.mark.parametrize(
    ("cells", "grid"),
    [
        ([(0, 0), (0, 1), (1, 0), (1, 1)], ([0, 1], [0, 1])),
        ([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (2, 1)], ([0, 1, 2], [0, 1])),
        ([(0, 0), (1, 1)], ([0], [0])),
        ([], ([], [])),
    ],
)
def test_the_grid_is_the_largest_without_a_gap(cells, grid):
    levels, seeds = complete_grid(cells)
    assert (len(levels), len(seeds)) == (len(grid[0]), len(grid[1]))
    assert {(level, seed) for level in levels for seed in seeds} <= set(cells)


def test_settings_other_than_the_factors_separate_lines(outputs):
    write_grid(outputs, "erm", name="erm wide", **{"optimizer.lr": 0.2})
    (spread,) = spreads(finished_runs([outputs]).runs)
    assert {line.label for line in spread.lines} == {"crt", "erm", "erm wide"}


def test_a_reference_limits_the_differences(outputs):
    write_grid(outputs, "lws")
    (spread,) = spreads(finished_runs([outputs]).runs, against="erm")
    assert {(pair.first, pair.second) for pair in spread.pairs} == {("lws", "erm"), ("crt", "erm")}
    with pytest.raises(ConfigError, match="no row has this name"):
        spreads(finished_runs([outputs]).runs, against="ncm")


def test_runs_of_one_seed_are_refused_with_a_command(tmp_path):
    write_grid(tmp_path, "erm", shape=(4, 1))
    with pytest.raises(DataError, match=r"dataset\.split_seed=0,1,2 seed=0,1,2"):
        spreads(finished_runs([tmp_path]).runs)


def test_differences_without_common_runs_are_counted_and_not_shown(tmp_path):
    write_grid(tmp_path, "erm")
    write_grid(tmp_path, "crt")
    write_grid(tmp_path, "lws", shape=(2, 1))
    (spread,) = spreads(finished_runs([tmp_path]).runs)
    assert len(spread.pairs) == 3
    text = spread_text([spread], "table", "name", 0.95)
    assert "crt - erm" in text
    assert "lws - crt" not in text
    assert "2 differences left out, without two subsets x two seeds in common" in text


def test_subsets_of_the_same_images_are_refused(tmp_path):
    for subset, seed in np.ndindex((2, 2)):
        settings = {**CIFAR10_LT, "dataset.subset": "cao", "dataset.split_seed": subset}
        write(tmp_path, "erm", seed, metrics={"balanced_accuracy": 0.5}, config=settings, split="exp100-cao")
    runs = finished_runs([tmp_path]).runs
    assert len({run.data["split_digest"] for run in runs}) == 1
    with pytest.raises(DataError, match=r"2 values of dataset.split_seed and all the same images.*subset=seeded"):
        spreads(runs)


def test_published_gaps_are_of_the_same_data_and_those_inside_are_smaller_than_the_spread(outputs):
    (spread,) = spreads(finished_runs([outputs]).runs)
    assert spread.gaps == published_gaps(CIFAR10_LT)
    assert len(spread.gaps) > 20
    assert all(gap.first.startswith("cifar10_lt_") and gap.points >= 0 for gap in spread.gaps)
    inside = {gap for gap in spread.gaps if gap.points < 100 * spread.single_run_spread}
    assert set(spread.gaps_inside) == inside
    assert 0 < len(inside) < len(spread.gaps)
    assert published_gaps({**CIFAR10_LT, "dataset.imbalance_factor": 50}) == ()


def test_a_single_run_spreads_at_least_as_much_over_subsets_as_over_seeds(outputs):
    (spread,) = spreads(finished_runs([outputs]).runs)
    assert spread.seed_spread <= spread.single_run_spread
    variance = spread.pairs[0].components.total.estimate
    assert spread.single_run_spread == pytest.approx(1.959964 * variance**0.5)


@pytest.mark.parametrize("form", ["table", "markdown", "latex", "csv"])
def test_every_format_holds_lines_and_differences(outputs, form):
    text = spread_text(spreads(finished_runs([outputs]).runs), form, "name", 0.95)
    assert "crt" in text
    assert "4 x 3" in text or "crt,erm,4,3" in text


def test_tables_show_mean_deviations_and_share(outputs):
    (spread,) = spreads(finished_runs([outputs]).runs)
    lines, pairs, gaps = spread_sheets(spread, "name", 0.95)
    components = spread.lines[0].components
    assert lines.rows[0][2].number == components.mean.estimate
    assert lines.rows[0][3].number == pytest.approx(components.subset.estimate**0.5)
    assert pairs.rows[0][2].text == f"{100 * spread.pairs[0].components.mean.estimate:+.2f}"
    assert len(gaps.rows) == len(spread.gaps_inside)


def test_the_figure_is_a_png(outputs, tmp_path):
    (spread,) = spreads(finished_runs([outputs]).runs)
    spread_figure(spread, tmp_path / "spread.png")
    assert (tmp_path / "spread.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("against", ["", "best", "erm"])
def test_a_metric_that_no_run_has_a_value_of_is_named(tmp_path, against):
    for subset, seed in np.ndindex(2, 2):
        settings = {**CIFAR10_LT, "dataset.subset": "seeded", "dataset.split_seed": subset}
        write(tmp_path, "erm", seed, metrics={"balanced_accuracy": 0.5, "few": None}, config=settings)
    with pytest.raises(DataError, match="no run has a value of few"):
        spreads(finished_runs([tmp_path]).runs, metric="few", against=against)
