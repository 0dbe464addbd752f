"""The wheel: it holds the configs, so that an installed ltr-train finds them from any folder."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ltr.configuration.configs import conf_directory

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="hatchling is not installed"),
]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """The content of a wheel built from this checkout, without an index and without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q", "-w", str(folder), "."]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("ltr-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_the_wheel_contains_every_config(unpacked):
    configs = {str(path.relative_to(conf_directory())) for path in conf_directory().rglob("*.*")}
    inside = {str(path.relative_to(unpacked / "ltr" / "conf")) for path in (unpacked / "ltr" / "conf").rglob("*.*")}
    assert {"train.yaml", "published.csv"} <= inside
    assert inside == configs


def test_the_wheel_declares_the_commands(unpacked):
    (entry_points,) = unpacked.glob("ltr-*.dist-info/entry_points.txt")
    lines = entry_points.read_text().splitlines()
    assert "ltr-train = ltr.cli:train" in lines
    assert "ltr-eval = ltr.cli:evaluate" in lines


def test_an_installed_command_finds_its_configs_from_an_empty_folder(unpacked, tmp_path):
    code = "from ltr.cli import train; from ltr.configuration.configs import conf_directory as c; print(c()); train()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--cfg", "job", "loss=ldam"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(unpacked / "ltr" / "conf")
    assert "_target_: ltr.losses.classification.LDAM" in done.stdout
