"""The table at the end of a sweep."""

from __future__ import annotations

from dataclasses import replace

import pytest

import ltr
from ltr.report.ignored_settings import is_ignored_override
from ltr.report.sweep import Job, _as_typed, sweep_table
from ltr.runs import keys


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


def same_run(number, run, overrides, accuracy=0.5, *, reused=False, **data):
    one = job(number, "a", accuracy, reused=reused)
    result = {**one.result, "run_hash": run, "data": data}
    return Job(number, tuple(overrides), result, reused)


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


@pytest.mark.parametrize(("batches", "note"), [((2, 2), "ranked among equal schedules"), ((2, 3), "never marked as")])
def test_the_note_of_limited_jobs_agrees_with_their_mark(batches, note):
    jobs = [
        replace(one, result={**one.result, "config": {"trainer.limit_train_batches": number}})
        for one, number in zip((job(0, "a", 0.9, val=0.3), job(1, "b", 0.1, val=0.4)), batches)
    ]
    text = sweep_table(jobs)
    assert ("*†" in text) == (note == "ranked among equal schedules")
    assert note in text


@pytest.mark.parametrize("val", [(None, None), (0.3, None)])
def test_without_validation_everywhere_none_is_marked(val):
    table = lines([job(0, "a", 0.9, val=val[0]), job(1, "b", 0.1, val=val[1])])
    assert not any(line.startswith("*") for line in table)


def test_an_empty_group_is_a_dash():
    assert "–" in lines([job(0, "a", 0.5, few=None)])[1]


def test_stages_are_counted():
    jobs = [job(0, "a", 0.5), job(1, "b", 0.5, status="reused"), job(2, "c", 0.5, reused=True)]
    assert "stages: 1 trained or computed, 2 from the cache" in sweep_table(jobs)


def test_failed_jobs_are_named_with_the_first_lines_of_their_error():
    table = lines([job(0, "a", 0.5), Job(1, ("loss=b",), error="no data\n  look there")])
    assert table[-1] == "failed: job 1 (loss=b): no data look there"


def test_a_sweep_of_plans_has_no_table():
    assert sweep_table([Job(0, ("seed=0",)), Job(1, ("seed=1",))]) == ""


def test_jobs_that_are_one_run_count_once():
    texts = [(lr, workers) for lr in ("0.1", "0.10") for workers in (0, 1)]
    jobs = [
        same_run(index, "h", [f"optimizer.lr={lr}", f"trainer.num_workers={workers}"], reused=index > 0)
        for index, (lr, workers) in enumerate(texts)
    ]
    table = lines(jobs)
    assert table[1].split()[:3] == ["optimizer.lr=0.1", "1", "50.0"]
    assert "±" not in table[1]
    assert "stages: 1 trained or computed, 0 from the cache" in table[2]
    assert table[-1] == "4 jobs, 1 run: jobs of the same run count once"


def test_a_repeated_run_does_not_change_the_deviation_of_two_seeds():
    seeds = [same_run(0, "h", ["seed=0"], 0.5), same_run(1, "i", ["seed=1"], 0.6)]
    again = [same_run(2, "h", ["seed=0"], 0.5, reused=True), same_run(3, "i", ["seed=1"], 0.6, reused=True)]
    assert lines(seeds)[1] == lines([*seeds, *again])[1]


def test_the_job_that_trained_a_run_is_credited_with_its_stages():
    jobs = [same_run(0, "h", ["figures=none"], reused=True), same_run(1, "h", ["figures=all"])]
    assert "stages: 1 trained or computed, 0 from the cache" in "\n".join(lines(jobs))


def test_runs_on_different_data_are_not_averaged():
    jobs = [same_run(0, "h", ["seed=0"], fingerprint="x"), same_run(1, "i", ["seed=1"], fingerprint="y")]
    assert [line.split()[1] for line in lines(jobs)[1:3]] == ["1", "1"]
    older = [same_run(0, "h", ["seed=0"]), same_run(1, "i", ["seed=1"], fingerprint="y")]
    assert lines(older)[1].split()[1] == "2"


def test_labels_contain_only_settings_that_identify_a_run():
    keys_left_out = [f"{key}." for key in keys._NOT_IDENTITY] + [
        f"trainer.{key}=" for key in keys._NOT_IDENTITY_TRAINER
    ]
    keys_left_out += [f"evaluation.{key}=" for key in keys._NOT_IDENTITY_EVALUATION]
    keys_left_out += [f"dataset.{key}=" for key in keys._NOT_IDENTITY_DATASET]
    for key in keys_left_out:
        assert is_ignored_override(key.rstrip(".=") + "=1"), key


@pytest.mark.parametrize(
    ("context", "override", "label"),
    [
        (["features=stored", "features.output=map"], "pool@features.pool=max", "features.pool=max"),
        (
            ["method=crt"],
            "scheduler@method.classifier.scheduler=constant",
            "method.classifier.scheduler=constant",
        ),
        (["method=crt"], "optimizer@method.classifier.optimizer=adamw", "method.classifier.optimizer=adamw"),
    ],
)
def test_labels_of_nested_choices_can_be_typed_and_compose_the_same_config(context, override, label):
    assert _as_typed(override) == _as_typed(f"+{override}") == _as_typed(label) == label
    chosen, plain = (ltr.config([*context, text]) for text in (override, label))
    assert plain == chosen != ltr.config(context)


def on(one, **data):
    """A job with further data in its result."""
    return replace(one, result={**one.result, "data": data})


@pytest.mark.parametrize(
    "data", [{"split_digest": "d2", "fingerprint": "f1"}, {"split_digest": "d1", "fingerprint": "f2"}]
)
def test_none_is_marked_if_validation_images_differ(data):
    jobs = [on(job(0, "a", 0.9, val=0.3), split_digest="d1", fingerprint="f1"), on(job(1, "b", 0.1, val=0.4), **data)]
    table = sweep_table(jobs)
    assert "*" not in table
    assert "the validation images or the metrics of the rows differ" in table


def test_weights_that_were_selected_on_the_test_set_are_named_and_never_the_best():
    chosen = job(2, "c", 0.9, val=0.9)
    chosen.result["rows"][0]["selection"] = "best_test"
    table = lines([job(0, "a", 0.9, val=0.3), job(1, "b", 0.1, val=0.4), chosen])
    assert [line[0] for line in table[1:4]] == [" ", "*", " "]
    assert "selected on test, never the best: loss=c" in table[-1]
