"""User code may import modules of an earlier version for one release, with a notice."""

from __future__ import annotations

import importlib
import sys

import pytest

from ltr.former_modules import FORMER_MODULES


@pytest.mark.parametrize("former", sorted(FORMER_MODULES))
def test_a_former_module_has_the_contents_of_its_successor(former):
    sys.modules.pop(former, None)
    current = importlib.import_module(FORMER_MODULES[former])
    with pytest.warns(FutureWarning, match=f"{former} is now {FORMER_MODULES[former]}"):
        module = importlib.import_module(former)
    assert module is not current
    name = next(name for name in vars(current) if not name.startswith("__"))
    assert getattr(module, name) is getattr(current, name)
    assert current.__spec__.name == FORMER_MODULES[former]
    sys.modules.pop(former, None)


def test_a_former_name_of_a_class_is_translated():
    from ltr.methods.core.settings import DatasetInfo

    with pytest.warns(FutureWarning, match="ltr.methods.core.stage"):
        from ltr.methods.stage import DataFacts
    assert DataFacts is DatasetInfo
    sys.modules.pop("ltr.methods.stage", None)


def test_an_unknown_module_is_not_found():
    with pytest.raises(ModuleNotFoundError, match="never_was"):
        importlib.import_module("ltr.methods.never_was")
