"""Wrong commands are detected: the tests of the documentation can fail."""

from __future__ import annotations

import contextlib

import pytest
import typist

from ltr.errors import LtrError
from manual_pages import Command, commands


def no_stand_ins():
    return contextlib.nullcontext()


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("ltr-trian loss=ldam", id="a program that there is none of"),
        pytest.param("ltr-train loss=ldma", id="a page that there is none of"),
        pytest.param("ltr-train method.tua=1  # needs CIFAR-10", id="a key that there is none of, planned"),
        pytest.param("ltr-train -m loss=ldam,ldma", id="a value of a sweep"),
        pytest.param("ltr-train dataset=cifar10", id="data that are not there, without saying so"),
        pytest.param("ltr-report outputs --matric few  # needs runs", id="a flag that there is none of"),
        pytest.param("python scripts/reproduce.py cifar_lt --epoch 3 --seedz 1", id="a flag of a script"),
        pytest.param("python scripts/no_such_script.py", id="a script that there is none of"),
        pytest.param("make coffee", id="a target that there is none of"),
        pytest.param("pip install 'ltr[everything]'", id="an extra that there is none of"),
    ],
)
def test_invalid_lines_are_errors(line, docs_folder):
    (command,) = commands(line)
    with pytest.raises((AssertionError, LtrError, pytest.fail.Exception)):
        typist.type_in(command, no_stand_ins)


def test_requirements_environment_variables_and_continued_lines_are_parsed():
    text = (
        "PYTHONPATH=. ltr-train a=1 \\\n  b=2    # needs CIFAR-10, 170 MB\n# a comment\nltr-train c='x # y'   # why\n"
    )
    assert commands(text) == [
        Command(("ltr-train", "a=1", "b=2"), (("PYTHONPATH", "."),), "CIFAR-10, 170 MB"),
        Command(("ltr-train", "c=x # y")),
    ]
