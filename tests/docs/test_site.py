"""The documentation builds as a site without a warning, and its pages load nothing from other hosts."""

from __future__ import annotations

import logging
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

import browser
from manual_pages import NOTEBOOKS, PAGES, ROOT

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


def test_every_page_is_built(site):
    pages = [path for path in [*PAGES.values(), *NOTEBOOKS] if path.parent != ROOT]
    names = [str(path.relative_to(ROOT / "docs").with_suffix(".html")) for path in pages]
    assert [name for name in names if not (site / name).is_file()] == []


def test_equations_are_mathml(site):
    for path in site.rglob("*.html"):
        html = path.read_text(encoding="utf-8")
        assert "arithmatex" not in html, path.name
        if path.parent.name == "methods" and path.name != "index.html":
            assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in html, path.name


def test_the_search_index_is_a_script(site):
    """A local page may read scripts, but no other files."""
    index, script = ((site / "search" / f"search_index.{kind}").read_text(encoding="utf-8") for kind in ("json", "js"))
    assert script == f"var __index = {index}"
    assert "javascripts/iframe-worker.js" in Addresses((site / "index.html").read_text(encoding="utf-8")).fetched


@pytest.mark.skipif(browser.EXECUTABLE is None, reason="no Chromium is installed")
def test_search_works_without_a_server(site, tmp_path):
    with browser.open_page(site / "faq.html", tmp_path) as page:
        page.click("document.querySelector('.md-search__input')")
        page.type("reciprocal")
        found = "document.querySelector('.md-search-result__list').innerText"
        page.wait_for(f"{found} !== ''")
        assert "RPL: reciprocal point learning" in page.evaluate(found)
        assert [address for address in page.requests if not address.startswith(("file:", "data:"))] == []


def test_pages_and_styles_load_nothing_from_other_hosts(site):
    for path in site.rglob("*.html"):
        outside = [a for a in Addresses(path.read_text(encoding="utf-8")).fetched if re.match(r"(https?:)?//", a)]
        assert outside == [], path.name
    for path in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import\s+)[\"']?(?:https?:)?//", path.read_text(encoding="utf-8")), path.name


def test_the_reference_shows_the_public_names(site):
    api = (site / "api.html").read_text(encoding="utf-8")
    for name in ("ltr.api.train", "ltr.methods.core.network.ImageClassifier", "ltr.data.source.Source"):
        assert f'id="{name}"' in api
