"""Sheet of an audit: suspicious images in one offline HTML file, relabelled with the keyboard and saved as CSV."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ltr.apply.labelling_sheet import SIDE, sheet_document
from ltr.apply.score_text import score_texts
from ltr.data.description import thumbnail
from ltr.data.source import Source
from ltr.escaping import one_line
from ltr.files import write_text

SHOWN = 2000  # images of each kind of issue
FILE = "corrected.csv"  # name of the saved table
_KINDS = {
    "label": "likely label error",
    "copy": "copy under another label",
    "outlier": "outlier of its class",
}


def write_audit_sheet(
    path: Path, title: str, issues: Sequence[Mapping[str, Any]], source: Source, class_names: Sequence[str]
) -> None:
    """Write the images of each kind of issue, in the order of the issues; an image of several issues comes once.

    Args:
        issues: mappings with path, part, label, issue, suggested, score, copy_of, box (numbers as text, '' without) and
            index into ``source``.
        class_names: labels that an image may get.
    """
    images: dict[int, dict[str, Any]] = {}
    for kind, words in _KINDS.items():
        rows = [issue for issue in issues if issue["issue"] == kind][:SHOWN]
        for issue, score in zip(rows, score_texts([issue["score"] for issue in rows])):
            sentence = f"{words}: {_says(issue)}, score {score}"
            if (image := images.get(issue["index"])) is not None:
                image["says"] += f"; {sentence}"
            else:
                images[issue["index"]] = _image(issue, sentence, source)
    document = sheet_document(
        title, class_names, list(images.values()), file=FILE, filters=("Issue", "Score at least"), most=""
    )
    write_text(path, document)


def _image(issue: Mapping[str, Any], sentence: str, source: Source) -> dict[str, Any]:
    """Return what the sheet holds of an image."""
    path = str(issue["path"]).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    image = {
        "path": path,
        "class": _KINDS[issue["issue"]],
        "score": float(issue["score"]),
        "says": sentence,
        "data": _thumbnail(source, int(issue["index"])),
    }
    if issue.get("box"):
        image |= {"id": f"{path} {issue['box']}", "box": issue["box"].split()}
    return image


def _says(issue: Mapping[str, Any]) -> str:
    text = f"labelled {one_line(issue['label'])} ({issue['part']})"
    if issue["suggested"]:
        text += f", looks like {one_line(issue['suggested'])}"
    if issue["copy_of"]:
        text += f", copy of {one_line(issue['copy_of'])}"
    return text


def _thumbnail(source: Source, index: int) -> str:
    """Return a JPEG as base64; '' if the image cannot be read."""
    pixels = thumbnail(source, index, SIDE)
    if pixels is None:
        return ""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=80)
    return base64.b64encode(stream.getvalue()).decode("ascii")
