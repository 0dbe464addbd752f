"""Runs that tune a part of a backbone: their identity, their checkpoints, and their messages."""

from __future__ import annotations

import pytest
import torch

import ltr
from ltr.methods.core.checkpoint import load_network
from ltr.methods.core.stage import Settings
from ltr.runs.keys import run_hash

SHORT = ["debug=fast", "trainer.precision=fp32"]


def outcome(tmp_path, *overrides):
    folders = [f"paths.outputs={tmp_path}/o", f"paths.stages={tmp_path}/s"]
    return ltr.train([*SHORT, *folders, *overrides], quiet=True)


def test_the_default_leaves_a_runs_identity_as_it_was():
    config = ltr.config(SHORT)
    assert run_hash(config) == run_hash({key: value for key, value in config.items() if key != "tune"})
    assert run_hash(config) != run_hash(ltr.config([*SHORT, "tune=norm"]))


@pytest.mark.parametrize("tune", ["none", "norm", "lora"])
def test_a_tuned_network_is_rebuilt_from_its_checkpoint(tmp_path, tune, digits):
    run = outcome(tmp_path, f"tune={tune}")
    network = load_network(run.directory / "checkpoints" / "final.ckpt")
    assert isinstance(network.settings, Settings)
    assert network.settings.tune["_target_"].startswith("ltr.models.tuning")
    first, second = (ltr.load(run.directory).predict(digits) for _ in range(2))
    assert (first == second).all()
    with torch.no_grad():
        logits = network(torch.as_tensor(digits).permute(0, 3, 1, 2).float() / 255)
    assert (logits.softmax(1).numpy().argmax(1) == first.argmax(1)).all()


@pytest.fixture
def digits():
    from ltr.data.sources.digits import digits as source

    return source().images[:4]


def test_frozen_random_weights_are_warned_of(tmp_path, capsys):
    ltr.train([*SHORT, "tune=norm", "stages=plan", f"paths.outputs={tmp_path}"], quiet=True)
    assert "tune trains a part of the backbone, and there are no weights" in capsys.readouterr().err


def test_a_later_stage_keeps_the_tuned_structure(tmp_path):
    run = outcome(tmp_path, "method=crt", "tune=lora", "tune.rank=2")
    network = load_network(run.directory / "checkpoints" / "final.ckpt")
    assert any(".lora_" in name for name in network.state_dict())
