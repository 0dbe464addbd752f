"""Output of the commands: the width that the environment gives."""

from __future__ import annotations

import os

import pytest

from ltr.console import ignore_unusable_width


@pytest.mark.parametrize(("given", "kept"), [("0", None), ("-3", None), ("", None), ("wide", None), ("20", "20")])
def test_a_width_that_would_print_nothing_is_ignored(monkeypatch, given, kept):
    monkeypatch.setenv("COLUMNS", given)
    ignore_unusable_width()
    assert os.environ.get("COLUMNS") == kept


def test_no_width_is_left_alone(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    ignore_unusable_width()
    assert "COLUMNS" not in os.environ
