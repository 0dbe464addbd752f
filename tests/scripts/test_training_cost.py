"""Estimated cost of a run's plan."""

from __future__ import annotations

from pathlib import Path

import pytest

import training_cost as cost
from ltr.configuration.overrides import load_config
from ltr.data.sources.digits import digits
from ltr.errors import ConfigError, TrainingError
from ltr.runs.plan import NeedsValidation, plan_of
from ltr.runs.processes.interrupt import StopRequest
from ltr.runs.store import StageStore
from training_cost import PlannedRun, cost_lines, measured_rate, rates

SOURCE = digits()


@pytest.fixture
def planned(tmp_path):
    """A planned run of digits with these overrides; its stages go to a folder of the test."""

    def make(*overrides: str) -> PlannedRun:
        common = [f"paths.outputs={tmp_path}", "trainer.max_epochs=7", "trainer.limit_train_batches=3"]
        return PlannedRun.of(load_config([*common, *overrides]), SOURCE)

    return make


def test_a_plan_uses_the_source_that_is_passed_in(planned):
    assert planned().plan.source is SOURCE


def test_a_plan_has_the_same_keys_when_it_reads_the_source_itself(planned):
    run = planned("method=crt")
    assert plan_of(run.config).keys == run.plan.keys


@pytest.mark.parametrize("overrides", [["method=tau_norm", "method.tau=auto"], ["trainer.selection=best_val"]])
def test_choices_on_validation_images_need_a_validation_split(planned, overrides):
    with pytest.raises(NeedsValidation, match=r"dataset\.val=train_fraction"):
        planned(*overrides)
    planned(*overrides, "dataset.val=test_fraction")


def test_other_mistakes_of_a_plan_are_reported_unchanged(planned):
    with pytest.raises(ConfigError) as refused:
        planned("dataset.mean=[0.5,0.5]")
    assert not isinstance(refused.value, NeedsValidation)


def test_a_run_whose_networks_all_build_on_computed_stages_is_timed_too(planned):
    run = planned("dataset=digits_bg", "method=background_splitting")
    assert set(rates([run], StopRequest())) == {stage.kind for stage in run.open if not stage.is_computed}


def test_open_stages_are_trained_or_computed(planned):
    stages = {stage.name: stage for stage in planned("method=posthoc_la").open}
    assert (stages["representation"].epochs, stages["representation"].images) == (7, 3 * 64)
    assert stages["tau"].is_computed


def test_without_a_limit_the_whole_training_set_is_counted(planned):
    (stage,) = planned("trainer.limit_train_batches=null").open
    assert stage.images == len(planned().plan.split.train)
    (stage,) = planned("trainer.limit_train_batches=null", "sampler.num_samples=50").open
    assert stage.images == 50


def test_a_cached_stage_has_no_cost(planned):
    run = planned("method=crt")
    key, spec = run.plan.keys["representation"]
    store = StageStore(_stages(run))
    store.folder(key).mkdir(parents=True)
    store.finish(key, spec, 1.0)
    assert [stage.name for stage in planned("method=crt").open] == ["classifier"]


def test_finished_epochs_of_an_interrupted_stage_are_subtracted(planned):
    run = planned()
    folder = StageStore(_stages(run)).folder(run.open[0].key)
    (folder / "state").mkdir(parents=True)
    (folder / "metrics.csv").write_text("stage,epoch\nrepresentation,1\nrepresentation,2\n")
    assert planned().open[0].epochs == 5


def test_measuring_a_rate_leaves_no_files(planned, tmp_path):
    run = planned("trainer.precision=fp32", "scheduler.warmup_epochs=5")
    assert measured_rate(run.config, run.plan, StopRequest()) > 0
    assert not list(tmp_path.iterdir())


def test_stages_that_runs_share_are_counted_once(planned, monkeypatch):
    monkeypatch.setattr(cost, "measured_rate", lambda *_: 192 * 7 / 60)  # a minute for a representation
    lines = cost_lines([planned(), planned("method=crt", "method.classifier.epochs=14")], StopRequest())
    assert lines[0].startswith(
        "stages: 2 (one that several runs share counts once); 0 cached, 2 to train, 0 to compute"
    )
    assert lines[1] == "training: 21 epochs, 4,032 images"
    assert "(3 minutes)" in lines[3]


def test_stages_of_a_kind_are_measured_once_and_a_run_that_fails_measures_nothing(planned, monkeypatch):
    calls = []

    def rate(config, plan, request):
        calls.append(config["seed"])
        if config["seed"] == 0:
            raise TrainingError("a loss that is not finite")
        return 5.0

    monkeypatch.setattr(cost, "measured_rate", rate)
    runs = [planned(f"seed={seed}") for seed in range(3)]
    assert list(rates(runs, StopRequest()).values()) == [5.0]
    assert calls == [0, 1]
    assert cost_lines(runs[:1], StopRequest())[-1] == "this leaves out 1 stage, whose first steps failed"


def _stages(run: PlannedRun) -> Path:
    return Path(run.config["paths"]["stages"])
