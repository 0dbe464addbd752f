"""Settings that do not distinguish runs: one declaration, read by comparisons and by labels of sweeps."""

from __future__ import annotations

import pytest

from ltr.report import ignored_settings
from ltr.report.ignored_settings import IGNORED, IgnoredSetting, is_ignored, is_ignored_override
from ltr.report.read_runs import settings
from ltr.report.sweep import Job, sweep_table


def job(number, *overrides):
    row = {"split": "test", "protocol": "closed_set", "headline": True, "metrics": {"accuracy": 0.5}}
    return Job(number, overrides, {"rows": [row], "group_hash": str(number), "config": {}})


def test_settings_and_labels_read_the_same_declaration(monkeypatch):
    assert settings({"loss.beta": 0.9}) == {"loss.beta": 0.9}
    assert "loss.beta=0.9" in sweep_table([job(0, "loss.beta=0.9"), job(1, "loss.gamma=1")])
    monkeypatch.setattr(ignored_settings, "IGNORED", (IgnoredSetting("loss.beta", "made up"),))
    assert settings({"loss.beta": 0.9}) == {}
    assert "loss.beta=0.9" not in sweep_table([job(0, "loss.beta=0.9"), job(1, "loss.gamma=1")])


@pytest.mark.parametrize("setting", IGNORED, ids=lambda setting: setting.key)
def test_a_node_covers_its_keys_and_no_key_that_begins_alike(setting):
    assert is_ignored(setting.key)
    assert is_ignored(f"{setting.key}.deeper")
    assert not is_ignored(f"{setting.key}s_of_another")
    assert is_ignored_override(f"+{setting.key}=1") == setting.in_labels
    assert setting.reason


@pytest.mark.parametrize("override", ["hydra/launcher=basic", "logger@logger.b=csv", "++paths.outputs=x", "~callbacks"])
def test_overrides_are_recognised_in_every_form(override):
    assert is_ignored_override(override)


def test_each_key_is_declared_once():
    assert len({setting.key for setting in IGNORED}) == len(IGNORED)
