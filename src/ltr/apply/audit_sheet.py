"""Contact sheet of an audit: the images behind each kind of issue, embedded in one offline HTML file."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ltr.apply.score_text import score_texts
from ltr.data.description import thumbnail
from ltr.data.source import Source
from ltr.escaping import html
from ltr.files import write_text

SIDE = 96
SHOWN = 200  # images of each kind
_HEADINGS = {
    "label": "Likely label errors",
    "copy": "Copies under another label",
    "outlier": "Outliers of their class",
}
_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5em; color: #222; background: #fff }
h1 { font-size: 1.3em } h2 { font-size: 1.1em; margin: 1.6em 0 .4em }
ul { display: flex; flex-wrap: wrap; gap: 12px; padding: 0; list-style: none }
li { width: 150px; font-size: 12px; overflow-wrap: anywhere }
img, .gone { width: 96px; height: 96px; object-fit: contain; background: #f2f2f2; display: block }
"""


def write_audit_sheet(path: Path, title: str, issues: Sequence[Mapping[str, Any]], source: Source) -> None:
    """Write a section for each kind of issue, its images in the order of the issues.

    Args:
        issues: mappings with path, part, label, issue, suggested, score, copy_of and index into ``source``.
    """
    sections = []
    for kind, heading in _HEADINGS.items():
        rows = [issue for issue in issues if issue["issue"] == kind]
        if rows:
            more = f" (the first {SHOWN:,} of {len(rows):,})" if len(rows) > SHOWN else f" ({len(rows):,})"
            scores = score_texts([issue["score"] for issue in rows[:SHOWN]])
            items = "".join(_item(issue, score, source) for issue, score in zip(rows, scores))
            sections.append(f"<section><h2>{heading}{more}</h2><ul>{items}</ul></section>")
    write_text(
        path,
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html(title)}</title><style>{_STYLE}</style></head><body><main><h1>{html(title)}</h1>"
        f"{''.join(sections) or '<p>No issue.</p>'}</main></body></html>\n",
    )


def _item(issue: Mapping[str, Any], score: str, source: Source) -> str:
    says = f"labelled {issue['label']}"
    if issue["suggested"]:
        says += f", looks like {issue['suggested']}"
    if issue["copy_of"]:
        says += f", copy of {issue['copy_of']}"
    pixels = thumbnail(source, int(issue["index"]), SIDE)
    if pixels is None:
        picture = '<span class="gone">cannot be read</span>'
    else:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=80)
        data = base64.b64encode(stream.getvalue()).decode("ascii")
        picture = f'<img alt="{html(says)}" loading="lazy" src="data:image/jpeg;base64,{data}">'
    return f"<li>{picture}{html(says)}<br>{score}, {html(issue['part'])}<br>{html(issue['path'])}</li>"
