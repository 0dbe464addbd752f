"""The table of methods and protocols: a tick is a run, a dash a refusal before training."""

from __future__ import annotations

import re

import pytest
from typist import TINY

from manual_pages import PAGES

PROTOCOLS = {
    "closed set": ["dataset=digits_lt"],
    "background": ["dataset=digits_bg"],
    "open set": ["dataset=digits_open"],
    "retrieval": ["dataset=digits_retrieval"],
    "few-shot": ["dataset=digits_retrieval", "dataset.protocols=[few_shot]", "batch_size=80"],
}


def table() -> dict[str, list[str]]:
    """Method -> its ticks and dashes, in the order of `PROTOCOLS`."""
    lines = PAGES["docs/methods/index.md"].read_text(encoding="utf-8").splitlines()
    head = next(line for line in lines if line.startswith("| method |"))
    assert head.split(" | ")[2:] == [*list(PROTOCOLS)[:-1], f"{list(PROTOCOLS)[-1]} |"]
    rows = [re.fullmatch(r"\|.*\| `(\w+)` \| (.+) \|", line) for line in lines]
    return {row[1]: row[2].split(" | ") for row in rows if row}


@pytest.mark.long
@pytest.mark.parametrize(("method", "cells"), table().items())
def test_combinations_with_a_tick_run_and_those_with_a_dash_are_refused(method, cells, ltr_train, tmp_path):
    for cell, (protocol, overrides) in zip(cells, PROTOCOLS.items(), strict=True):
        done = ltr_train(f"method={method}", *overrides, *TINY, "trainer.precision=fp32", outputs=tmp_path / protocol)
        assert (done.code == 0) == (cell == "✓"), f"{protocol}: {done.err}"
        assert done.code in (0, 2), f"{protocol}: {done.err}"
