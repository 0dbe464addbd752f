"""Sweeps: several runs from one command, one of which may fail."""

from __future__ import annotations

import pytest

from ltr.errors import Interrupted

FAST = ("debug=fast", "evaluation.batch_size=400")


def test_two_seeds_give_two_runs(ltr_train):
    done = ltr_train(*FAST, "-m", "seed=0,1")
    assert done.code == 0, done.err
    assert [path.name.partition("-s")[2][0] for path in done.directories] == ["0", "1"]


def test_a_failing_job_does_not_stop_the_other_and_the_exit_code_is_1(ltr_train):
    done = ltr_train("-m", *FAST, "seed=-1,1")
    assert done.code == 1
    assert len(done.directories) == 1
    assert "seed=-1: allowed is int [0, inf)" in done.err
    assert "job 0 (" in done.err
    assert "Traceback" not in done.err


def test_even_an_unforeseen_error_in_a_job_is_told_and_the_next_job_runs(ltr_train, monkeypatch):
    import ltr.cli

    seeds = []

    def task(config):
        seeds.append(config.seed)
        if config.seed == 0:
            raise RuntimeError("a slip of ours")

    monkeypatch.setattr(ltr.cli, "_train_task", task)
    done = ltr_train("-m", "seed=0,1")
    assert done.code == 1
    assert seeds == [0, 1]
    assert "a slip of ours" in done.err
    assert "Traceback" not in done.err


def test_a_signal_ends_the_whole_sweep(ltr_train, monkeypatch):
    import ltr.cli

    seeds = []

    def task(config):
        seeds.append(config.seed)
        raise Interrupted(15, "stopped by SIGTERM")

    monkeypatch.setattr(ltr.cli, "_train_task", task)
    done = ltr_train("-m", "seed=0,1")
    assert done.code == 143
    assert seeds == [0]
    assert done.err == "stopped: stopped by SIGTERM\n"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["loss=ldam,nope"], "there is no loss 'nope'"),
        (["seed=0,-1", "epochs=3"], "seed=-1: allowed is int [0, inf)"),
    ],
)
def test_a_wrong_sweep_is_refused_before_its_first_job(refused, overrides, words):
    done = refused("-m", *overrides)
    assert done.code == 2
    assert words in done.err
    assert not [path for path in done.left if "digits" in path]


def test_a_plugin_that_is_not_installed_says_what_to_install(refused):
    try:
        __import__("hydra_plugins.hydra_joblib_launcher")
    except ImportError:
        assert "pip install 'ltr[sweep]'" in refused("-m", "hydra/launcher=joblib", "seed=0,1").err
    else:
        pytest.skip("it is installed")
