"""Intervals and tests against other people's code, against hand calculations, and in their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from made_up_outputs import predictions, write
from made_up_runs import row
from scipy import stats

from ltr.errors import ConfigError, DataError
from ltr.report.comparison import sections
from ltr.report.compose import Options, compose_report
from ltr.report.intervals import hits_of, holm, mcnemar, paired_bootstrap, paired_p_value, sign_flip_p_value
from ltr.report.paired_tests import check_reference, pairs, reference_of
from ltr.report.read_runs import finished_runs


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 5), (3, 12), (40, 60), (900, 1100), (0, 3000)])
def test_mcnemar_is_the_exact_binomial_test(first, second):
    wanted = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(wanted, rel=1e-9)
    assert mcnemar(second, first) == mcnemar(first, second)


def test_two_single_runs_are_compared_by_mcnemar():
    difference = np.array([1, 1, 1, -1, 0, 0, 0, 1.0])
    assert paired_p_value(difference) == mcnemar(4, 1)


def test_means_over_seeds_are_tested_by_the_normal_form_of_sign_flips():
    random = np.random.default_rng(0)
    difference = random.choice([-1, -0.5, 0, 0.5, 1], size=300, p=[0.1, 0.1, 0.5, 0.15, 0.15])
    signs = random.choice([-1.0, 1.0], size=(20_000, 300))
    simulated = (np.abs(signs @ difference) >= abs(difference.sum())).mean()
    assert paired_p_value(difference) == pytest.approx(simulated, abs=0.015)


def test_equal_predictions_have_a_p_value_of_one():
    assert paired_p_value(np.zeros(10)) == 1.0


@pytest.mark.parametrize("balanced", [False, True])
def test_the_estimate_is_the_difference_of_the_metrics(balanced):
    labels = np.array([0, 0, 0, 1])
    difference = np.array([1.0, 0.0, 0.0, -1.0])
    interval = paired_bootstrap(difference, labels, balanced=balanced, samples=50)
    # all: (1 - 1) / 4; by class: (1/3 - 1) / 2
    assert interval.estimate == pytest.approx(-1 / 3 if balanced else 0.0)
    assert interval.low <= interval.estimate <= interval.high


def test_the_interval_is_that_of_the_normal_distribution_for_many_images():
    random = np.random.default_rng(1)
    difference = random.choice([-1.0, 0.0, 1.0], size=4000, p=[0.08, 0.8, 0.12])
    interval = paired_bootstrap(difference, np.zeros(4000, np.int64), samples=4000)
    width = 1.96 * difference.std() / math.sqrt(4000)
    assert interval.high - interval.low == pytest.approx(2 * width, rel=0.06)


def test_balanced_intervals_resample_within_classes():
    labels = np.repeat([0, 1], [1000, 10])
    difference = np.zeros(1010)
    difference[labels == 1] = [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
    interval = paired_bootstrap(difference, labels, balanced=True, samples=4000)
    # half of a mean of ten fair coins: 1/4 with standard deviation (1/2) (1/4 / 10)^0.5
    assert interval.estimate == pytest.approx(0.25)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.5 * math.sqrt(0.025), rel=0.12)


def test_a_constant_class_adds_no_width_to_the_interval():
    labels = np.repeat([0, 1], 50)
    interval = paired_bootstrap(np.repeat([1.0, 0.0], 50), labels, balanced=True, samples=100)
    assert [interval.estimate, interval.low, interval.high] == pytest.approx([0.5, 0.5, 0.5])


def test_the_same_seed_gives_the_same_interval_and_another_level_a_narrower_one():
    difference = np.random.default_rng(2).choice([-1.0, 0.0, 1.0], size=200)
    labels = np.zeros(200, np.int64)
    assert paired_bootstrap(difference, labels) == paired_bootstrap(difference, labels)
    narrow, wide = (paired_bootstrap(difference, labels, level=level) for level in (0.5, 0.95))
    assert narrow.high - narrow.low < wide.high - wide.low


def test_intervals_have_their_nominal_coverage():
    random = np.random.default_rng(3)
    covered = 0
    for trial in range(200):
        difference = random.choice([-1.0, 0.0, 1.0], size=150, p=[0.2, 0.5, 0.3])
        interval = paired_bootstrap(difference, np.zeros(150, np.int64), samples=300, level=0.9, seed=trial)
        covered += interval.low <= 0.1 <= interval.high
    assert 0.83 <= covered / 200 <= 0.96


def test_no_images_are_refused():
    with pytest.raises(DataError):
        paired_bootstrap(np.zeros(0), np.zeros(0, np.int64))


def test_sign_flips_over_seeds_equal_an_enumeration():
    assert sign_flip_p_value([1.0, 1.0, 1.0]) == 2 / 8
    assert sign_flip_p_value([1.0, -1.0]) == 1.0
    # of 5, 3, 3, 1 and their mirrors, all but the two of 1 are as extreme as 3
    assert sign_flip_p_value([3.0, 1.0, -1.0]) == 6 / 8
    assert math.isnan(sign_flip_p_value([]))


def test_holm_correction_equals_a_hand_computed_example():
    # sorted 0.01, 0.02, 0.03, 0.5: times 4, 3, 2, 1, never falling
    assert holm([0.03, 0.01, math.nan, 0.5, 0.02])[:2] == pytest.approx([0.06, 0.04])
    adjusted = holm([0.03, 0.01, math.nan, 0.5, 0.02])
    assert math.isnan(adjusted[2])
    assert adjusted[3:] == pytest.approx([0.5, 0.06])


def test_hits_are_averaged_over_runs_without_unlabelled_images():
    one = {"id": np.array([2, 0, 1]), "label": np.array([1, 0, -1]), "prediction": np.array([1, 0, 0])}
    two = {"id": np.array([0, 1, 2]), "label": np.array([0, -1, 1]), "prediction": np.array([5, 0, 1])}
    hits = hits_of([one, two], "x")
    assert hits.ids.tolist() == [0, 2]
    assert hits.correct.tolist() == [0.5, 1.0]


def test_other_test_images_are_refused():
    one = {"id": np.arange(3), "label": np.zeros(3), "prediction": np.zeros(3)}
    two = {"id": np.arange(1, 4), "label": np.zeros(3), "prediction": np.zeros(3)}
    with pytest.raises(DataError, match="different test images"):
        hits_of([one, two], "x")


def make(tmp_path, images: int = 400):
    labels = np.arange(images) % 4
    base = np.arange(images) % 10 < 5
    better = base | (np.arange(images) % 10 == 5)
    for seed in (0, 1):
        folder = write(tmp_path, "erm", seed, metrics={"balanced_accuracy": 0.5})
        predictions(folder, labels, base)
        folder = write(tmp_path, "crt", seed, metrics={"balanced_accuracy": 0.6})
        predictions(folder, labels, better)
    return labels


def test_lines_are_compared_with_the_best_or_a_named_one(tmp_path):
    make(tmp_path)
    (table,) = sections(finished_runs([tmp_path]).runs)
    (pair,) = pairs(table, reference_of(table, "best"))
    assert pair.line.label == "erm"
    assert pair.accuracy.estimate == pytest.approx(-0.1)
    assert pair.accuracy.high < 0
    (pair,) = pairs(table, reference_of(table, "erm"))
    assert pair.accuracy.estimate == pytest.approx(0.1)
    assert pair.balanced.low > 0
    # 40 images that only one gets right, 0 the other; in both seeds the same
    assert pair.p == pytest.approx(mcnemar(40, 0))
    assert pair.p_seeds == pytest.approx(2 / 4)


def test_a_reference_that_no_table_has_is_refused(tmp_path):
    make(tmp_path)
    tables = sections(finished_runs([tmp_path]).runs)
    for label in ("best", "erm", "crt"):
        check_reference(tables, label)
    with pytest.raises(ConfigError, match="--against ncm: no row has this name"):
        check_reference(tables, "ncm")


def test_a_line_without_predictions_is_reported_and_the_rest_are_compared(tmp_path):
    make(tmp_path)
    write(tmp_path, "lws", metrics={"balanced_accuracy": 0.4})
    (table,) = sections(finished_runs([tmp_path]).runs)
    differences = {pair.line.label: pair for pair in pairs(table, reference_of(table, "erm"))}
    assert differences["lws"].accuracy is None
    assert "predictions.parquet is missing" in differences["lws"].reason
    assert differences["crt"].accuracy.estimate == pytest.approx(0.1)


def test_each_protocol_has_a_separate_file(tmp_path):
    rows = [
        row({"auroc": 0.8}, protocol="open_set", scorer="msp"),
        row({"accuracy": 0.5, "balanced_accuracy": 0.5}, headline=False),
    ]
    folder = write(tmp_path, rows=rows)
    predictions(folder, np.array([0, 1]), np.array([True, False]))
    (folder / "predictions.parquet").rename(folder / "predictions_closed_set.parquet")
    (run,) = finished_runs([tmp_path]).runs
    table = run.table("predictions", rows[1], ("id", "prediction"))
    assert table["prediction"].tolist() == [0, 2]
    with pytest.raises(DataError, match=r"predictions\.parquet is missing"):
        run.table("predictions", rows[0], ("id",))


def test_other_protocols_are_not_compared_by_class(tmp_path):
    for method in ("erm", "crt"):
        write(tmp_path, method, rows=[row({"auroc": 0.8}, protocol="open_set", scorer="msp")])
    (part,) = compose_report(finished_runs([tmp_path]), Options(against="best")).parts
    assert part.pairs is None
