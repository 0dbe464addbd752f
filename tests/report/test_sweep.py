"""The table at the end of a sweep."""

from __future__ import annotations

import pytest

from ltr.report.sweep import Job, sweep_table


def job(number, group, accuracy, *, seed=0, val=None, few=0.5, status="trained", **more):
    metrics = {"accuracy": accuracy, "many": accuracy, "medium": accuracy, "few": few, "balanced_accuracy": accuracy}
    row = {"split": "test", "variant": "default", "headline": True, "metrics": metrics}
    rows = [row]
    if val is not None:
        rows.append({**row, "split": "val", "headline": False, "metrics": {"balanced_accuracy": val}})
    result = {
        "metric": "balanced_accuracy",
        "group_hash": group,
        "rows": rows,
        "stages": [{"name": "representation", "status": status}],
    }
    return Job(number, (f"loss={group}", f"seed={seed}"), result, **more)


def lines(jobs):
    return sweep_table(jobs).splitlines()


def test_seeds_share_a_line_with_mean_and_standard_deviation():
    table = lines([job(0, "a", 0.50), job(1, "a", 0.60, seed=1), job(2, "b", 0.70)])
    assert table[1].split()[:5] == ["loss=a", "2", "55.0", "±", "7.1"]
    assert table[2].split()[:3] == ["loss=b", "1", "70.0"]


def test_the_best_is_marked_by_validation_not_by_test():
    table = lines([job(0, "a", 0.9, val=0.3), job(1, "b", 0.1, val=0.4)])
    assert [line[0] for line in table[1:3]] == [" ", "*"]
    assert "validation" in table[-1]


@pytest.mark.parametrize("val", [(None, None), (0.3, None)])
def test_without_validation_everywhere_none_is_marked(val):
    table = lines([job(0, "a", 0.9, val=val[0]), job(1, "b", 0.1, val=val[1])])
    assert not any(line.startswith("*") for line in table)


def test_an_empty_group_is_a_dash():
    assert "–" in lines([job(0, "a", 0.5, few=None)])[1]


def test_stages_are_counted():
    jobs = [job(0, "a", 0.5), job(1, "b", 0.5, status="reused"), job(2, "c", 0.5, reused=True)]
    assert "stages: 1 made, 2 reused" in sweep_table(jobs)


def test_failed_jobs_are_named_with_the_first_lines_of_their_error():
    table = lines([job(0, "a", 0.5), Job(1, ("loss=b",), error="no data\n  look there")])
    assert table[-1] == "failed: job 1 (loss=b): no data look there"


def test_a_sweep_of_plans_has_no_table():
    assert sweep_table([Job(0, ("seed=0",)), Job(1, ("seed=1",))]) == ""
