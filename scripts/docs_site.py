"""Hooks of the documentation site (see mkdocs.yml): equations as MathML, notebooks as pages.

Equations are converted while the site is built, and browsers draw MathML by themselves: a page needs no script and no
font for them, with or without a network.
"""

from __future__ import annotations

import re
from html import unescape

import nbformat
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)  # of pymdownx.arithmatex
NAME = re.compile(r"<m[io]>([A-Za-z]{2,})</m[io]>(<mo[^>]*>&#x00028;)?")  # of a function, and what follows
UNKNOWN = re.compile(r"\\|>&amp;<|>&<")  # a command or an alignment mark that latex2mathml has not understood


def mathml(equation: str, display: str) -> str:
    """Return the MathML of an equation in TeX.

    Args:
        display: ``inline`` or ``block``.

    Raises:
        PluginError: names an equation that the converter does not know; otherwise readers would see its source.
    """
    markup = convert(equation, display=display)
    if UNKNOWN.search(markup):
        raise PluginError(f"latex2mathml cannot convert '{equation}'. Use other commands of TeX")
    return NAME.sub(spaced, markup)


def spaced(name: re.Match[str]) -> str:
    """Return the name of a function with the spaces that TeX gives it; MathML gives it those of a relation."""
    after = "0" if name[2] else "0.17em"
    return f'<mo lspace="0.17em" rspace="{after}">{name[1]}</mo>{name[2] or ""}'


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace the equations of a page by MathML."""
    return EQUATION.sub(lambda match: mathml(unescape(match[2]), "block" if match[1] == "div" else "inline"), html)


class Notebook(File):
    """A notebook, which becomes a page as a file of Markdown does."""

    def is_documentation_page(self) -> bool:
        return True


def markdown_of(file: File) -> tuple[str, dict[str, bytes]]:
    """Return a notebook and its outputs as Markdown, and its pictures by file name."""
    notebook = nbformat.reads(file.content_string, as_version=4)
    text, resources = MarkdownExporter().from_notebook_node(notebook, resources={"unique_key": file.name})
    return text.replace("![png](", "![Figure drawn by the cell above]("), resources["outputs"]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make pages of notebooks, with their pictures beside them."""
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            files.remove(file)
            page = Notebook(file.src_uri, config.docs_dir, config.site_dir, config.use_directory_urls)
            files.append(page)
            for name, picture in markdown_of(page)[1].items():
                files.append(File.generated(config, f"{file.src_uri.rpartition('/')[0]}/{name}", content=picture))
    return files


def on_page_read_source(page: Page, config: MkDocsConfig) -> str | None:
    """Return the Markdown of a notebook; None lets MkDocs read any other page."""
    return markdown_of(page.file)[0] if isinstance(page.file, Notebook) else None
