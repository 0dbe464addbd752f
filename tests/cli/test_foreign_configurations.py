"""Values in a run's config.yaml or a checkpoint are checked like the command line: names become folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from ltr.configuration.structure import check_foreign


@pytest.fixture
def foreign(finished_run, tmp_path):
    """Write a copy of a run whose config.yaml has other values; returns its directory."""

    def write(**changes) -> str:
        run = tmp_path / "foreign"
        shutil.copytree(finished_run, run, dirs_exist_ok=True)
        config = yaml.safe_load((run / "config.yaml").read_text())
        for path, value in changes.items():
            *groups, key = path.split("__")
            node = config
            for group in groups:
                node = node[group]
            node[key] = value
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        return str(run)

    return write


@pytest.mark.parametrize("name", ["/tmp/outside", "../outside", "..", "a/b", "", 3.5, ["x"], None, "a\0b", "x" * 101])
@pytest.mark.parametrize("key", ["dataset__name", "method__name", "name"])
def test_a_name_that_is_not_a_folder_name_is_refused(foreign, key, name):
    config = yaml.safe_load((Path(foreign(**{key: name})) / "config.yaml").read_text())
    (mistake,) = check_foreign(config)
    assert mistake.startswith(f"{key.replace('__', '.')}=")
    assert "a folder's name is needed" in mistake


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset__name": "../../outside"}, "dataset.name=../../outside: a folder's name is needed"),
        ({"dataset": [1]}, "dataset=[1]: keys with values are needed"),
        ({"evaluation__batch_size": "x"}, "evaluation.batch_size=x: allowed is int [1, inf)"),
        ({"evaluation__scorers": ["../x"]}, "evaluation.scorers=[../x]: allowed is one of"),
        ({"dataset__val_fraction": 7}, "dataset.val_fraction=7: allowed is (0, 1)"),
        ({"trainer__num_workers": -1}, "trainer.num_workers=-1: allowed is int [0, inf)"),
    ],
)
def test_a_foreign_configuration_is_refused_before_anything_is_written(foreign, ltr_eval, tmp_path, changes, words):
    code, out, err = ltr_eval(foreign(**changes), "--out", tmp_path / "out")
    assert code == 1, (out, err)
    assert words in err
    assert "config.yaml is damaged, or was not written by ltr" in err
    assert not (tmp_path / "out").exists()


def test_a_lone_checkpoint_is_checked_too(finished_run, ltr_eval, tmp_path):
    content = torch.load(finished_run / "checkpoints" / "final.ckpt", weights_only=True)
    description = json.loads(content["description"])
    description["dataset"]["name"] = str(tmp_path / "outside")
    torch.save({**content, "description": json.dumps(description)}, tmp_path / "lone.ckpt")
    code, _, err = ltr_eval(tmp_path / "lone.ckpt", "--out", tmp_path / "out")
    assert code == 1
    assert f"dataset.name={tmp_path / 'outside'}: a folder's name is needed" in err
    assert not (tmp_path / "outside").exists()


def test_the_configuration_written_by_a_run_is_accepted(finished_run):
    assert check_foreign(yaml.safe_load((finished_run / "config.yaml").read_text())) == []
