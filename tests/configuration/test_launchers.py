"""Launchers that need what the machine does not have."""

from __future__ import annotations

import pytest

from ltr.configuration.launchers import check_launcher, refused_by_queue

SLURM = {"_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"}
LOCAL = {"_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher"}


def with_commands(folder, monkeypatch, *names: str) -> None:
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.parametrize(("names", "words"), [((), "srun and sbatch not found"), (("srun",), "sbatch not found")])
def test_the_slurm_launcher_needs_slurm(tmp_path, monkeypatch, names, words):
    with_commands(tmp_path, monkeypatch, *names)
    (mistake,) = check_launcher(SLURM)
    assert words in mistake
    assert "hydra/launcher=submitit_local" in mistake
    assert check_launcher(LOCAL) == check_launcher(None) == check_launcher("none") == []


def test_with_slurm_on_the_path_the_launcher_is_accepted(tmp_path, monkeypatch):
    with_commands(tmp_path, monkeypatch, "srun", "sbatch")
    assert check_launcher(SLURM) == []


def test_a_refusal_by_slurm_is_passed_on():
    import submitit

    message = refused_by_queue(submitit.core.utils.FailedJobError("\nsbatch: error: invalid partition\nmore"))
    assert message is not None
    assert "could not carry out the jobs: sbatch: error: invalid partition. hydra.launcher" in str(message)
    assert refused_by_queue(ValueError("x")) is None
