"""A text that is typed as a message shows it comes through the shell, Hydra and OmegaConf as it was."""

from __future__ import annotations

import subprocess

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from ltr.configuration.parsing import parse
from ltr.configuration.quoting import as_typed, quoted

LETTERS = [*map(chr, range(32, 127)), "é", "e\u0301", "日", "\u00a0", "\n", "\t"]
TEXTS = [
    *(f"a{letter}b" for letter in LETTERS),
    *LETTERS[1:],
    *(f"runs/{letter}{letter}/{letter}" for letter in "=,'\"\\$[]{}()#!"),
    "runs/lr=0.1/pics", "a\\", "a\\\\", "a\\'b", "a\\\\'", "${x}", "\\${x}", "\\\\${x}\\", "$HOME", "`id`", "$(id)",
    "it's 100 % [new], {really}; ok?", "null", "1e3", "true", "~/x", "-x", "  two  spaces  ",
]  # fmt: skip


def value_of(argument: str) -> object:
    override = OverridesParser.create().parse_override(argument)
    return OmegaConf.create({"key": override.value()}).key


def test_quoted_text_is_parsed_back_unchanged():
    typed = "\n".join(f"printf '%s\\0' {as_typed('key', text)}" for text in TEXTS)
    shell = subprocess.run(["bash", "-c", typed], capture_output=True, check=True)
    arguments = shell.stdout.decode().split("\0")[:-1]
    assert [value_of(argument) for argument in arguments] == TEXTS


def test_quoting_follows_hydras_grammar():
    assert quoted("runs/lr=0.1/pics") == "'runs/lr=0.1/pics'"
    assert as_typed("dataset.root", "runs/lr=0.1/pics") == "\"dataset.root='runs/lr=0.1/pics'\""


@pytest.mark.parametrize("letter", "=()[]{}'\"#!&;<>^`~é")
def test_the_refusal_of_a_path_shows_how_it_is_typed(letter):
    path = f"runs/{letter}x"
    parsed, mistakes = parse([f"dataset.root={path}"])
    if parsed:  # this letter needs no quotes here
        assert parsed[0].values == [path]
    else:
        assert mistakes[0].endswith(f"type {as_typed('dataset.root', path)}")


def test_an_override_without_a_key_gets_no_advice_on_quoting():
    assert "type" not in "".join(parse(["=3", "loss", "a b=[", "seed="])[1])


def test_a_comma_and_brackets_that_were_meant_as_text_are_reported(ltr_train):
    done = ltr_train("dataset=folder", "dataset.root=a,b", "stages=plan")
    assert done.code == 2
    assert "type \"dataset.root='a,b'\"" in done.err
    done = ltr_train("dataset=folder", "dataset.root=[a]", "stages=plan")
    assert done.code == 2
    assert "dataset.root='[a]'" in done.err
