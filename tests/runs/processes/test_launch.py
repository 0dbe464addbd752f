"""Processes that `ltr-train` starts: what the starting process prints of their errors."""

from __future__ import annotations

import pytest

from ltr.cli import report
from ltr.runs.processes.launch import _failure


@pytest.mark.parametrize("code", [1, 2, 130, 143])
def test_an_error_that_a_process_has_reported_is_not_printed_again(code, capsys):
    assert report(_failure(code)) == code
    assert capsys.readouterr() == ("", "")
