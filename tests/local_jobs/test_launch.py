"""The launching process of a local sweep, with jobs that compute little."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import pytest
from hydra._internal.callbacks import Callbacks
from hydra._internal.utils import create_config_search_path
from hydra.core.utils import JobStatus
from hydra.types import HydraContext, RunMode

import local_tasks
from ltr.configuration.configs import conf_directory
from ltr.configuration.nested import NestedLoader
from ltr.configuration.resolvers import register
from ltr.local_jobs.launch import LocalJobs
from ltr.local_jobs.options import LocalOptions
from ltr.local_jobs.pool import WorkerPool
from ltr.runs.processes.interrupt import Stopped
from ltr.sweeps import job_titles


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """A function that runs a task function as jobs with the seeds 0, 1, ...; returns the results."""
    monkeypatch.setenv("LOCAL_TASKS", str(tmp_path))
    monkeypatch.setenv("LTR_ALLOW", "local_tasks")
    monkeypatch.setenv("LTR_SWEEP_FOLDER", str(tmp_path))
    register()
    loader = NestedLoader(create_config_search_path(str(conf_directory())))
    overrides = [f"hydra.sweep.dir={tmp_path}", "figures=none", "hydra.mode=MULTIRUN"]
    config = loader.load_configuration("train", overrides, RunMode.MULTIRUN)

    def run(task, seeds: int = 2, overrides=(), **options):
        context = HydraContext(config_loader=loader, callbacks=Callbacks())
        launched = LocalJobs(context, task, config, LocalOptions(**{"n_jobs": 2, **options}))
        started.append(launched)
        texts = [[f"seed={seed}", *more] for seed, more in zip(range(seeds), [*overrides, *[[]] * seeds])]
        return launched.run(texts, 0)

    def close():
        for launched in started:
            launched.close()

    started: list[LocalJobs] = []
    run.close = close
    run.again = lambda overrides: started[-1].run(overrides, 1)
    yield run
    close()


def events(folder) -> list[str]:
    return (folder / "events").read_text().splitlines()


def test_each_job_has_its_threads_and_a_separate_session(jobs, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    results = jobs(local_tasks.threads, threads=3)
    assert [one.return_value for one in results] == [3.0, 3.0]
    assert sorted(events(tmp_path)) == ["0 3  True", "1 3  True"]


def test_a_killed_job_is_reported_as_failed_and_the_others_finish(jobs, tmp_path, capfd):
    results = jobs(local_tasks.killed_if_seed_is_zero, seeds=3)
    assert [one.return_value for one in results] == [None, 1.0, 1.0]
    record = json.loads((tmp_path / "jobs" / "00000.json").read_text())
    assert record["overrides"] == ["seed=0"]
    assert "its process ended by SIGKILL" in record["error"]
    assert "hydra.launcher.n_jobs" in record["error"]
    out, err = capfd.readouterr()
    assert "job 0 (seed=0): error: its process ended by SIGKILL" in err
    assert "job 2 (seed=2): finished" in out


def test_a_process_takes_further_jobs_until_one_fails(jobs, tmp_path):
    results = jobs(local_tasks.process_of_job, seeds=5, n_jobs=1)
    first, second, failed, fourth, fifth = results
    assert first.return_value == second.return_value
    assert failed.status is JobStatus.FAILED
    assert fourth.return_value == fifth.return_value != first.return_value
    assert events(tmp_path) == [f"{seed} clean" for seed in range(5)]


def test_jobs_that_compile_differently_do_not_share_a_process(jobs):
    results = jobs(local_tasks.process_of_job, seeds=2, n_jobs=1, overrides=[[], ["compile=true"]])
    assert all(one.status is JobStatus.COMPLETED for one in results)
    assert results[0].return_value != results[1].return_value


def test_processes_end_with_the_sweep(jobs):
    (result,) = jobs(local_tasks.process_of_job, seeds=1)
    jobs.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(result.return_value), 0)


def test_a_process_that_is_killed_between_jobs_is_replaced(jobs):
    (result,) = jobs(local_tasks.process_of_job, seeds=1)
    os.kill(int(result.return_value), signal.SIGKILL)
    (after,) = jobs.again([["seed=1"]])
    assert after.status is JobStatus.COMPLETED
    assert after.return_value != result.return_value


def test_a_waiting_job_releases_its_core(jobs, tmp_path):
    results = jobs(local_tasks.lends, n_jobs=1)
    assert all(one.status is JobStatus.COMPLETED for one in results)
    assert events(tmp_path) == ["1 computes", "0 computes"]


def test_only_one_job_reads_the_pixels(jobs, tmp_path):
    results = jobs(local_tasks.reads, seeds=3)
    assert [one.return_value for one in results] == [sum(range(24))] * 3
    assert (tmp_path / "reads").read_text() == "read\n"
    assert sorted(events(tmp_path)) == [f"{seed} maps False" for seed in range(3)]


def test_a_signal_stops_all_jobs_and_starts_no_further_one(jobs, tmp_path, capfd):
    def interrupt():
        until = time.monotonic() + 120
        while time.monotonic() < until and (not (tmp_path / "events").exists() or len(events(tmp_path)) < 2):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(Stopped) as stopped:
        jobs(local_tasks.until_stopped, seeds=3)
    assert stopped.value.__cause__.exit_code == 130
    assert "0 of 3 jobs had ended" in str(stopped.value.__cause__)
    assert sorted(events(tmp_path)) == ["0 started", "1 started"]
    assert capfd.readouterr().out.count("stopped after") == 2


def test_a_signal_that_arrives_while_a_job_is_started_reaches_it(jobs, tmp_path, monkeypatch):
    start = WorkerPool.start

    def interrupted(pool, *arguments, **options):
        worker = start(pool, *arguments, **options)
        os.kill(os.getpid(), signal.SIGINT)
        return worker

    monkeypatch.setattr(WorkerPool, "start", interrupted)
    with pytest.raises(Stopped):
        jobs(local_tasks.until_stopped, seeds=2)


def test_the_title_of_a_job_shows_what_is_swept():
    overrides = [["seed=0", "loss=ldam", "hydra.x=1"], ["seed=1", "loss=ldam", "hydra.x=1"]]
    assert job_titles(overrides, 4) == ["job 4 (seed=0)", "job 5 (seed=1)"]
    assert job_titles([["seed=0"]], 0) == ["job 0 (seed=0)"]
    command = ["loss=ldam", "optimizer.lr=interval(0.01,0.3)"]
    assert job_titles([["optimizer.lr=0.2", "loss=ldam"]], 3, command) == ["job 3 (optimizer.lr=0.2)"]
    assert job_titles([["seed=0"], ["seed=0"]], 0) == ["job 0", "job 1"]
