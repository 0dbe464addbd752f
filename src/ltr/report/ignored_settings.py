"""Settings that do not distinguish runs: one declaration for comparisons of configurations and for labels of sweeps."""

from __future__ import annotations

from typing import NamedTuple

_SEPARATORS = (".", "/", "@")  # of a node's keys, a group's subfolders, and the package of a choice


class IgnoredSetting(NamedTuple):
    """Key, or node with all its keys, by which runs are not told apart.

    Attributes:
        key: dotted key.
        reason: why it does not distinguish runs.
        in_labels: True if labels of a sweep's jobs leave it out too; False if a typed override is worth showing.
    """

    key: str
    reason: str
    in_labels: bool = True


IGNORED = (
    IgnoredSetting("seed", "runs are averaged over seeds"),
    IgnoredSetting("name", "names a row, but does not change a result", in_labels=False),
    IgnoredSetting("figures", "display"),
    IgnoredSetting("callbacks", "display"),
    IgnoredSetting("logger", "display"),
    IgnoredSetting("trainer.log_every", "display"),
    IgnoredSetting("trainer.profiler", "display"),
    IgnoredSetting("debug", "its changes are settings of their own", in_labels=False),
    IgnoredSetting("resume", "a resumed run has the same result"),
    IgnoredSetting("stages", "a cached stage has the same result"),
    IgnoredSetting("checkpoint", "which weights are kept; the result rows name those that were evaluated"),
    IgnoredSetting("compile", "speed"),
    IgnoredSetting("trainer.num_workers", "speed"),
    IgnoredSetting("evaluation.batch_size", "speed"),
    IgnoredSetting("trainer.devices", "speed: batch_size is that of all devices together", in_labels=False),
    IgnoredSetting("trainer.check_files", "refuses unreadable images, but does not change a result"),
    IgnoredSetting(
        "trainer.on_error", "when a run fails; a result names replaced images, and is used where they are allowed"
    ),
    IgnoredSetting("trainer.max_skipped", "when a run fails; a result names replaced images"),
    IgnoredSetting("trainer.max_nonfinite", "when a run fails; a result names skipped steps"),
    IgnoredSetting("paths", "location"),
    IgnoredSetting("hydra", "location and launching"),
    IgnoredSetting("launcher", "launching"),
    IgnoredSetting("dataset.roots", "location"),
    IgnoredSetting("dataset.download", "location"),
    IgnoredSetting("dataset.source", "location; the fingerprint of the data tells data apart", in_labels=False),
    IgnoredSetting("dataset.split", "the digest of the split tells splits apart", in_labels=False),
)


def is_ignored(key: str) -> bool:
    """Return True if runs are not compared by a key of their flat configurations."""
    return any(_covers(setting, key) for setting in IGNORED)


def is_ignored_override(override: str) -> bool:
    """Return True if labels of a sweep's jobs leave out this override, as typed."""
    key = override.lstrip("+~").partition("=")[0]
    return any(_covers(setting, key) for setting in IGNORED if setting.in_labels)


def _covers(setting: IgnoredSetting, key: str) -> bool:
    return key == setting.key or (key.startswith(setting.key) and key[len(setting.key)] in _SEPARATORS)
