"""Keys that only some configs of a sweep have are set where they exist."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from ltr.configuration.swept_configs import as_written
from ltr.configuration.swept_keys import split_applicable

METHODS = {"erm": {}, "crt": {"classifier": {"epochs": 10}}, "lws": {"classifier": {"epochs": 10}, "init": 1.0}}


def compose(texts):
    """Return a configuration with a single group, `method`."""
    choices = dict(text.split("=") for text in texts)
    config = OmegaConf.create({"method": METHODS[choices.pop("method", "erm")], "seed": 0})
    for key, value in choices.items():
        node, _, last = key.rpartition(".")
        if last not in OmegaConf.select(config, node):
            raise KeyError(key)
        OmegaConf.update(config, key, value)
    return config


def split(command, job):
    return split_applicable(command, job, lambda key: key == "method", compose)


def test_a_value_is_left_out_of_the_jobs_that_lack_its_key():
    command = ["method=erm,crt", "method.classifier.epochs=choice(1)", "seed=1,2"]
    kept, notices = split(command, ["method=erm", "method.classifier.epochs=1", "seed=2"])
    assert kept == ["method=erm", "seed=2"]
    assert notices == ["note: method.classifier.epochs=1 is left out with method=erm, which has no such key"]


@pytest.mark.parametrize(
    ("command", "job"),
    [
        (["method=erm,crt", "method.clasifier.epochs=1"], ["method=erm", "method.clasifier.epochs=1"]),
        (["seed=1,2", "method.classifier.epochs=1"], ["seed=1", "method.classifier.epochs=1"]),
        (
            ["method=erm,crt", "method.classifier.epochs=1", "method.init=2"],
            ["method=erm", "method.classifier.epochs=1", "method.init=2"],
        ),
    ],
)
def test_a_key_that_no_job_has_stays_a_mistake(command, job):
    assert split(command, job) == (job, [])


def test_each_key_is_looked_for_in_every_other_job():
    command = ["method=erm,crt,lws", "method.classifier.epochs=1", "method.init=2"]
    kept, notices = split(command, ["method=crt", "method.classifier.epochs=1", "method.init=2"])
    assert kept == ["method=crt", "method.classifier.epochs=1"]
    assert len(notices) == 1
    kept, notices = split(command, ["method=erm", "method.classifier.epochs=1", "method.init=2"])
    assert kept == ["method=erm"]
    assert len(notices) == 2


def test_a_comparison_runs_each_method_with_the_values_that_it_knows(ltr_train):
    done = ltr_train("-m", "method=erm,crt", "method.classifier.epochs=1", "stages=plan")
    assert done.code == 0, done.err
    assert "note: method.classifier.epochs=1 is left out with method=erm, which has no such key" in done.err
    assert done.err.count("is left out") == 1


def test_a_key_of_one_job_is_not_reported_along_with_a_real_mistake(ltr_train):
    done = ltr_train("-m", "method=erm,crt", "method.classifier.epochs=1", "loss.bet=3")
    assert done.code == 2
    assert "loss.bet=3: there is no key" in done.err
    assert "method.classifier.epochs" not in done.err


@pytest.mark.parametrize(
    ("job", "typed"),
    [
        ("method.keep_bias=True", "method.keep_bias=true"),
        ("head.bias=False", "head.bias=false"),
        (r"optimizer.lr=$\{oc.decode\:null\}", "optimizer.lr=null"),
        ("name=Trueness", "name=Trueness"),
        ("~sharpness", "~sharpness"),
    ],
)
def test_booleans_and_null_of_a_job_are_shown_as_typed(job, typed):
    assert as_written(job) == typed
