"""Frame of an HTML report: head, title, warnings and controls around its sections."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ltr import escaping
from ltr.report.html_script import SCRIPT
from ltr.report.html_style import STYLE

# the browser fetches nothing, whatever a name in the report looks like
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

text = escaping.html


def data_block(value: Any) -> str:
    """Return JSON for a ``script`` element, escaped so that no content ends the element."""
    plain = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII: no separators of lines that scripts see
    for letter in "<>&":
        plain = plain.replace(letter, f"\\u{ord(letter):04x}")
    return f'<script type="application/json">{plain}</script>'


def html_document(title: str, warnings: Iterable[str], body: str) -> str:
    """Return the complete HTML file."""
    warning_lines = "".join(f"<li>{text(line)}</li>" for line in warnings)
    notices = f'<ul class="notices warning" aria-label="warnings">{warning_lines}</ul>' if warning_lines else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#content">Skip to the results</a>\n'
        f'<header><h1>{text(title)}</h1><button type="button" class="theme" id="theme">Dark mode</button></header>\n'
        f'{notices}\n<p class="controls"><label>Filter <input id="filter" type="search" '
        'placeholder="e.g. cifar100 crt"></label> <span class="note">A click on a heading sorts its table.</span> '
        '<span class="note" id="matches" role="status"></span></p>\n'
        f'<main id="content" tabindex="-1">\n{body}\n</main>\n'
        f'<div id="tip" role="tooltip"></div>\n<script>{SCRIPT}</script>\n</body>\n</html>\n'
    )
