"""The short form of ``scripts/torture.py``: kills at random instants, a torn checkpoint, a full disk, a race."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def torture(tmp_path_factory):
    path = Path(__file__).parents[2] / "scripts" / "torture.py"
    spec = importlib.util.spec_from_file_location("torture", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["torture"] = module
    spec.loader.exec_module(module)
    return module, module.Torture(tmp_path_factory.mktemp("torture"), random.Random(0))


@pytest.mark.parametrize("kind", ["killed", "killed in two", "torn", "full", "locked", "racing"])
def test_a_run_that_was_disturbed_ends_with_the_same_bits(torture, kind):
    module, trials = torture
    tally = module.Tally("erm", 2 if kind == "killed in two" else 1)
    if kind.startswith("killed"):
        trials.killed(tally, most=2)
    else:
        getattr(trials, kind)(tally)
    assert (tally.same, tally.wrong) == (1, [])
