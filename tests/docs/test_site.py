"""The documentation builds as a site, without a warning, and its pages ask for nothing outside."""

from __future__ import annotations

import logging
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

from manual_pages import PAGES, ROOT

pytestmark = pytest.mark.slow
FETCHED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site; a warning of the build is an error."""
    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging, "raiseExceptions", False)
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
    return folder


class Addresses(HTMLParser):
    """The resources that a browser fetches for a page, and the targets of its links."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if tag in FETCHED and named.get("rel") not in ("canonical", "next", "prev"):
            self.fetched += [named[FETCHED[tag]]] if named.get(FETCHED[tag]) else []
        elif tag == "a" and named.get("href"):
            self.links.append(named["href"])


def test_every_page_is_there(site):
    pages = [page.removeprefix("docs/").replace(".md", ".html") for page in PAGES if page.startswith("docs/")]
    assert [page for page in pages if not (site / page).is_file()] == []


def test_pages_and_styles_ask_for_nothing_outside(site):
    for path in site.rglob("*.html"):
        outside = [a for a in Addresses(path.read_text(encoding="utf-8")).fetched if re.match(r"(https?:)?//", a)]
        assert outside == [], path.name
    for path in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import\s+)[\"']?(?:https?:)?//", path.read_text(encoding="utf-8")), path.name


def test_the_reference_shows_the_public_names(site):
    api = (site / "api.html").read_text(encoding="utf-8")
    for name in ("ltr.api.train", "ltr.methods.core.network.ImageClassifier", "ltr.data.source.Source"):
        assert f'id="{name}"' in api
