"""The published numbers in the generated tables of the docs are those of conf/published.csv."""

from __future__ import annotations

import re

import pytest

from ltr.configuration.tables import table_rows
from manual_pages import PAGES

DOCS_TEXT = "\n".join(path.read_text(encoding="utf-8") for path in PAGES.values())
BLOCKS = dict(re.findall(r"<!-- ([\w,]+):begin -->\n(.*?)<!-- \1:end -->", DOCS_TEXT, re.DOTALL))
PUBLISHED = {(f"{row.published:.2f}", row.citation) for row in table_rows() if row.published is not None}


def test_there_are_generated_tables():
    assert len(BLOCKS) >= 4


@pytest.mark.parametrize("name", BLOCKS)
def test_each_published_number_of_a_generated_table_is_listed_with_its_source(name):
    for dataset in re.split(r"^\*\*\w+\*\*$", BLOCKS[name], flags=re.MULTILINE)[1:]:
        sources = dict(re.findall(r"^\[(\d+)\] (.*)\.$", dataset, re.MULTILINE))
        cells = re.findall(r"\| (\d+\.\d\d) \[(\d+)\]", dataset)
        assert {(number, sources[index]) for number, index in cells} <= PUBLISHED
        assert {index for _, index in cells} == set(sources)
