"""Frames of HTML files, and the elements that their tables share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ltr import escaping
from ltr.report.html_script import SCRIPT
from ltr.report.html_style import STYLE
from ltr.writing import HTML_MARK

# whatever a name looks like, the browser fetches nothing
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)

text = escaping.html


def data_block(value: Any) -> str:
    """Return JSON for a ``script`` element, escaped so that no content ends the element."""
    plain = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII, so without line separators of Unicode
    for letter in "<>&":
        plain = plain.replace(letter, f"\\u{ord(letter):04x}")
    return f'<script type="application/json">{plain}</script>'


def css_class(names: str) -> str:
    """Return the attribute ``class``; empty without a name."""
    return f' class="{names}"' if names else ""


def sort_value(value: float) -> str:
    """Return the attribute by which the script sorts a cell of numbers; empty for NaN."""
    return "" if value != value else f' data-value="{value:.10g}"'


def sort_headings(columns: Iterable[tuple[str, bool]]) -> str:
    """Return the cells of a head whose buttons sort the table; of each column its title and whether it has numbers."""
    return "".join(
        f'<th scope="col"{css_class("number" if is_numeric else "")}><button type="button">{text(title)}</button></th>'
        for title, is_numeric in columns
    )


def scroll_region(label: str, content: str) -> str:
    """Return a part that scrolls sideways, also with the keyboard."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{text(label)}">{content}</div>'


def html_file(title: str, style: str, body: str, script: str) -> str:
    """Return an HTML file that needs no other file."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width">\n{HTML_MARK}\n'
        f"<title>{text(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}\n"
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def report_document(title: str, warnings: Iterable[str], content: str) -> str:
    """Return the HTML file of a report: title, warnings and controls around its sections."""
    warning_lines = "".join(f"<li>{text(line)}</li>" for line in warnings)
    notices = f'<ul class="notices warning" aria-label="warnings">{warning_lines}</ul>' if warning_lines else ""
    body = (
        '<a class="skip" href="#content">Skip to the results</a>\n'
        f'<header><h1>{text(title)}</h1><button type="button" class="theme" id="theme">Dark mode</button></header>\n'
        f'{notices}\n<p class="controls"><label>Filter <input id="filter" type="search" '
        'placeholder="e.g. cifar100 crt"></label> <span class="note">A click on a heading sorts its table.</span> '
        '<span class="note" id="matches" role="status"></span></p>\n'
        f'<main id="content" tabindex="-1">\n{content}\n</main>\n<div id="tip" role="tooltip"></div>'
    )
    return html_file(title, STYLE, body, SCRIPT)
