"""Sheet of an audit: the images with issues in one offline HTML file, to relabel with the keyboard and save as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ltr.apply.contact_sheet import jpeg_data
from ltr.apply.labelling_sheet import SIDE, path_entry, sheet_document
from ltr.apply.score_text import score_texts
from ltr.data.description import thumbnail
from ltr.data.source import Source
from ltr.escaping import one_line
from ltr.files import write_text

SHOWN = 2000  # at most this many images of each kind of issue
FILE = "corrected.csv"  # name of the saved table
_KINDS = {"label": "likely label error", "copy": "copy under another label", "outlier": "outlier of its class"}


def write_audit_sheet(
    path: Path, title: str, issues: Sequence[Mapping[str, Any]], source: Source, class_names: Sequence[str]
) -> None:
    """Write the images of each kind of issue, in the order of the issues, each image once.

    Args:
        issues: mappings with path, part, label, issue, suggested, score, copy_of, box (numbers as text, '' without) and
            index into ``source``.
        class_names: the labels to choose from.
    """
    images: dict[int, dict[str, Any]] = {}
    for kind, words in _KINDS.items():
        rows = [issue for issue in issues if issue["issue"] == kind][:SHOWN]
        for issue, score in zip(rows, score_texts([issue["score"] for issue in rows])):
            sentence = f"{words}: {_description(issue)}, score {score}"
            if (image := images.get(issue["index"])) is not None:
                image["says"] += f"; {sentence}"
            else:
                images[issue["index"]] = _image(issue, sentence, source)
    document = sheet_document(
        title, class_names, list(images.values()), file=FILE, filters=("Issue", "Score at least"), most=""
    )
    write_text(path, document)


def _image(issue: Mapping[str, Any], sentence: str, source: Source) -> dict[str, Any]:
    """Return the entry of an image, see `ltr.apply.labelling_sheet.sheet_document`."""
    entry = path_entry(str(issue["path"]))
    pixels = thumbnail(source, int(issue["index"]), SIDE)
    image = {
        **entry,
        "class": _KINDS[issue["issue"]],
        "score": float(issue["score"]),
        "says": sentence,
        "data": "" if pixels is None else jpeg_data(Image.fromarray(pixels)),
    }
    if issue.get("box"):
        image |= {"id": f"{entry['path']} {issue['box']}", "box": issue["box"].split()}
    return image


def _description(issue: Mapping[str, Any]) -> str:
    text = f"labelled {one_line(issue['label'])} ({issue['part']})"
    if issue["suggested"]:
        text += f", looks like {one_line(issue['suggested'])}"
    if issue["copy_of"]:
        text += f", copy of {one_line(issue['copy_of'])}"
    return text
