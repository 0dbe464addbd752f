"""The identity of user code: it changes with every edit of code that a target can run, and with nothing else."""

from __future__ import annotations

import sys
from importlib import metadata

import pytest

from ltr.configuration import own_code as module
from ltr.configuration.own_code import changed_code, identities, own_code


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A folder of packages on the path: ``made_up`` with two modules, and ``made_up_helper``."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(module, "_known", {})
    for name, text in {
        "made_up/__init__.py": "",
        "made_up/losses.py": "import numpy\nfrom made_up_helper import scale\n",
        "made_up/deep/heads.py": "x = 1\n",
        "made_up_helper.py": "scale = 1\n",
        "made_up_alone.py": "import os\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("made_up")]:
        del sys.modules[name]


def identity(name="made_up"):
    module._known.clear()
    return own_code({"loss": {"_target_": f"{name}.losses.Mine"}})[name]


@pytest.mark.parametrize("file", ["made_up/losses.py", "made_up/deep/heads.py", "made_up_helper.py", "made_up/new.py"])
def test_an_edit_in_the_package_or_its_imports_changes_the_identity(code, file):
    before = identity()
    (code / file).write_text("y = 2\n")
    assert identity() != before


@pytest.mark.parametrize("file", ["made_up_alone.py", "made_up/.hidden/x.py", "made_up/__pycache__/x.py"])
def test_unused_files_do_not_change_the_identity(code, file):
    before = identity()
    (code / file).parent.mkdir(exist_ok=True)
    (code / file).write_text("y = 2\n")
    assert identity() == before


def test_a_virtual_environment_inside_the_package_is_skipped(code):
    before = identity()
    (code / "made_up/venv/lib").mkdir(parents=True)
    (code / "made_up/venv/pyvenv.cfg").write_text("")
    (code / "made_up/venv/lib/x.py").write_text("y = 2\n")
    assert identity() == before


def test_a_module_of_one_file_and_a_folder_without_init_have_an_identity(code):
    before = identity("made_up_alone")
    (code / "made_up_alone.py").write_text("import sys\n")
    assert identity("made_up_alone") != before
    (code / "made_up/__init__.py").unlink()
    assert identity() != "unknown"


def test_targets_at_any_depth_count_except_those_of_ltr(code):
    configs = {"method": {"extras": [{"_target_": "made_up.A"}]}, "loss": {"_target_": "ltr.losses.classification.X"}}
    assert list(own_code([configs, {"_target_": "torch.nn.Linear"}, {"_target_": "collections.Counter"}])) == [
        "made_up"
    ]
    assert (
        own_code({"loss": {"_target_": "ltr.x"}, "x": {"_target_": "timm.y"}, "z": {"_target_": "torchvision.z"}}) == {}
    )


def test_an_installed_package_counts_by_its_version():
    assert identities(["PIL.Image.open", "sklearn.metrics.accuracy_score"]) == {"PIL": metadata.version("pillow")}


def test_loaded_code_has_the_identity_of_the_time_of_loading(code):
    first = own_code({"_target_": "made_up_alone.x"})
    __import__("made_up_alone")
    (code / "made_up_alone.py").write_text("import sys\n")
    assert own_code({"_target_": "made_up_alone.x"}) == first
    del sys.modules["made_up_alone"]  # loaded anew, it is what the file says now
    assert own_code({"_target_": "made_up_alone.x"}) != first


def test_code_without_a_file_is_unknown_and_unparsable_files_count_by_their_bytes(code):
    assert identities(["made_up_nowhere.x"]) == {"made_up_nowhere": "unknown"}
    (code / "made_up_alone.py").write_bytes(b"\xff\x00 not python")
    assert identity("made_up_alone") != "unknown"


def test_a_run_that_was_made_with_other_code_is_named(code):
    config = {"loss": {"_target_": "made_up.losses.Mine"}}
    config["code"] = own_code(config)
    assert changed_code(config) == []
    (code / "made_up/losses.py").write_text("y = 2\n")
    module._known.clear()
    assert changed_code(config) == ["made_up"]
    assert changed_code({"loss": config["loss"]}) == []  # a run of an older version does not know
