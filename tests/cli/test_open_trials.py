"""The published open-set trials as one sweep."""

from __future__ import annotations

import json

import pytest
import yaml

from ltr.configuration.configs import conf_directory, config_names, read_config
from ltr.configuration.overrides import compose_config

CONF = conf_directory()


def test_the_config_composes_with_every_data_set_that_has_published_trials():
    parameters = yaml.safe_load((CONF / "sweep" / "open_trials.yaml").read_text(encoding="utf-8"))["hydra"]["sweeper"]
    assert parameters == {"params": {"dataset.trial": "0,1,2,3,4"}}
    with_trials = [name for name in config_names("dataset") if "trial" in read_config(f"dataset/{name}")]
    names = {name for name in with_trials if not name.startswith("inat_bg")}
    assert names == {
        "cifar10_open",
        "cifar_plus_10",
        "cifar_plus_50",
        "mnist_open",
        "svhn_open",
        "tiny_imagenet_open",
    }
    assert compose_config(["sweep=open_trials"]).dataset.name == "cifar10_open"
    for name in names:
        config = compose_config(["sweep=open_trials", f"dataset={name}", "dataset.trial=4"])
        assert (config.dataset.name, config.dataset.split.trial) == (name, 4)


@pytest.mark.slow
def test_trials_end_in_one_line_of_mean_and_standard_deviation(ltr_train, small_sources):
    short = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "batch_size=32", "backbone=digits_net")
    done = ltr_train("+sweep=open_trials", *short, "scheduler=constant", "augment=none", "dataset.trial=0,2,4")
    assert done.code == 0, done.err
    assert len(done.directories) == 3
    aurocs = []
    for directory in done.directories:
        rows = json.loads((directory / "result.json").read_text(encoding="utf-8"))["rows"]
        assert [row["scorer"] for row in rows] == ["msp", "max_logit"]
        aurocs.append(100 * rows[0]["metrics"]["auroc"])
        assert sorted(path.name for path in (directory / "artifacts").iterdir()) == [
            "class_weights.npz",
            "draws.npz",
            "open_set_default_max_logit.npz",
            "open_set_default_msp.npz",
        ]
    table = next((done.outputs / "sweeps").glob("*/table.txt")).read_text(encoding="utf-8")
    heading, line = table.splitlines()[:2]
    assert "AUROC" in heading
    assert f"{sum(aurocs) / 3:.1f} ± " in line
    assert "over seeds and trials" in table
