"""Every command of the documentation works, and its code runs: each page is followed from top to bottom.

`typist` runs commands; this file handles fenced blocks.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typist
import yaml
from torchvision.models import squeezenet1_0

from ltr.runs import check_networks
from manual_pages import PAGES, Fence, commands, commands_in_text, fences

PROGRAMS = (*typist.PROJECT["scripts"], *typist.OTHERS, "python", "git", "cd")


@functools.cache
def teacher_weights() -> bytes:
    """Return a file of random weights of the network that pseudo-labels are computed with."""
    file = io.BytesIO()
    torch.save(squeezenet1_0(weights=None).state_dict(), file)
    return file.getvalue()


@pytest.fixture
def stand_ins(put_small_sources) -> Callable:
    @contextlib.contextmanager
    def there() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            put_small_sources(patch)
            weights = Path(os.environ["LTR_DATA"], "weights", "squeezenet1_0_imagenet.pth")
            weights.parent.mkdir(exist_ok=True)
            weights.write_bytes(teacher_weights())
            patch.setattr(check_networks, "check_initial_weights", lambda backbone, image_shape: None)  # stand-ins
            yield

    return there


@pytest.mark.slow
@pytest.mark.timeout(900)  # the longest page is many runs; on a busy machine they take minutes
@pytest.mark.parametrize("page", [page for page in PAGES if fences(page)])
def test_commands_of_a_docs_page_succeed_in_order(page, docs_folder, stand_ins, monkeypatch):
    if page == "README.md":  # its recipes are pasted in order
        typist.forget()
    for fence in fences(page):
        try:
            follow(fence, docs_folder, stand_ins, monkeypatch)
        except (Exception, pytest.fail.Exception) as error:
            pytest.fail(f"{page}:{fence.line}: {error or type(error).__name__}")


def follow(fence: Fence, folder: Path, stand_ins: Callable, monkeypatch) -> None:
    if fence.title:
        path = folder / fence.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(fence.text, encoding="utf-8")
    if fence.language == "bash":
        for command in commands(fence.text):
            needs = command.needs or fence.needs or ("a queue" if fence.title else "")
            typist.type_in(replace(command, needs=needs), stand_ins)
    elif fence.title:
        return
    elif fence.language == "python":
        exec(compile(fence.text, f"line {fence.line}", "exec"), {"__name__": "page"})
    elif fence.language == "yaml":
        assert yaml.safe_load(fence.text) is not None
    elif fence.language == "csv":
        assert len({len(row) for row in csv.reader(io.StringIO(fence.text))}) == 1
    elif fence.language == "text":
        for line in fence.text.splitlines():
            assert line.split(" ")[0] not in PROGRAMS, f"'{line}' is a command: it belongs in a block of bash"
    else:
        pytest.fail(f"unknown language of a block: '{fence.language}'; there are bash, python, yaml, csv and text")


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands_in_text(page)])
def test_commands_in_running_text_are_valid(page, docs_folder, stand_ins):
    for command in commands_in_text(page):
        try:
            if "..." not in str(command):  # part of one
                typist.type_in(command, stand_ins)
        except (Exception, pytest.fail.Exception) as error:
            pytest.fail(f"{page}: {command}: {error or type(error).__name__}")
