"""Labelling sheet: mined images in one offline HTML file, to label with the keyboard and save as CSV."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ltr.apply.contact_sheet import thumbnail_data
from ltr.apply.labelling_script import SCRIPT, STYLE
from ltr.apply.mine import NO_IMAGE, Mined
from ltr.apply.model import Model
from ltr.data.source import ImageFiles
from ltr.escaping import csv_cell, html, one_line, utf8
from ltr.files import write_text
from ltr.writing import HTML_MARK

SIDE = 160  # of a thumbnail, in pixels
KEYS = "123456789abcdefghijklmnopqrtvwxy"  # of classes; s, u and z skip, undo and zoom


def write_labelling_sheet(
    path: Path,
    mined: Mined,
    model: Model,
    files: ImageFiles,
    *,
    title: str,
    advance: Callable[[int], object] = lambda number: None,
) -> int:
    """Write the sheet of all mined images, each once; return their number.

    The classes are those of the network, including the background; those without a key have buttons only. The browser
    stores the labels, under a key made of the images' paths, until they are saved as ``path,label``.

    Args:
        title: heading of the sheet.
        advance: called with the number of newly written images.
    """
    images = []
    for image in _images(mined, model, files):
        index = image.pop("index")
        images.append({**image, "data": thumbnail_data(files, index, model.decoding_of(files), SIDE)})
        advance(1)
    write_text(path, sheet_document(title, model.class_names, images))
    return len(images)


def sheet_document(
    title: str,
    class_names: Sequence[str],
    images: Sequence[Mapping[str, Any]],
    *,
    file: str = "labels.csv",
    filters: tuple[str, str] = ("Class", "Probability at least"),
    most: str = "1",
) -> str:
    """Return the HTML of a sheet in which a person gives each image one of some classes.

    Args:
        class_names: the classes, in the order of their keys.
        images: ``path``, ``class``, ``score``, ``predicted`` and ``data`` (JPEG in base64) of each image; ``says``
            replaces the sentence made of these, ``cell`` is the path in the saved table, and ``id`` and ``box`` tell
            the crops of one file apart.
        file: name of the saved table.
        filters: names of the filters by ``class`` and by ``score``.
        most: largest score of the filter; '' without a limit.
    """
    names = [one_line(name) for name in class_names]
    listed = sorted({str(image["class"]) for image in images})
    ids = "\n".join(str(image.get("id", image["path"])) for image in images)
    key = hashlib.sha256(ids.encode("utf-8", "backslashreplace")).hexdigest()[:16]
    cells = {one_line(name): csv_cell(name) for name in class_names}
    data = json.dumps({"key": key, "file": file, "images": images, "cells": cells}).replace("<", "\\u003c")
    buttons = "".join(_button(name, KEYS[row] if row < len(KEYS) else "") for row, name in enumerate(names))
    options = "".join(f'<option value="{html(name)}">{html(name)}</option>' for name in listed)
    actions = "".join(
        f'<button type="button" id="{key}"{more}><kbd>{shortcut}</kbd>{text}</button>'
        for key, shortcut, text, more in (
            ("back", "&larr;", "Back", ""),
            ("next", "&rarr;", "Next", ""),
            ("skip", "s", "Skip", ""),
            ("undo", "u", "Undo", ""),
            ("zoom", "z", "Zoom", ' aria-pressed="false"'),
        )
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{HTML_MARK}<title>{html(title)}</title><style>{STYLE}</style></head><body><main><h1>{html(title)}</h1>"
        f'<p><progress id="progress" max="{len(images)}" value="0" aria-label="Images done"></progress> '
        f'<span id="done"></span> <button type="button" id="save">Save {html(file)}</button></p>'
        f'<p><label>{html(filters[0])} <select id="class"><option value="">all</option>{options}</select></label>'
        f'<label>{html(filters[1])} <input id="score" type="number" min="0" max="{most}" step="0.05" value="0"></label>'
        '<label><input id="open" type="checkbox"> only without a label</label></p>'
        '<p id="nothing" hidden>No image fits this choice.</p>'
        '<section id="viewer" aria-label="Image"><figure><img id="image" alt=""><figcaption id="about"></figcaption>'
        f'</figure><div><div id="classes" role="group" aria-label="Label">{buttons}</div><div>{actions}</div></div>'
        '</section><p id="status" role="status" aria-live="polite"></p></main>'
        f'<script type="application/json" id="data">{data}</script><script>{SCRIPT}</script></body></html>\n'
    )


def path_entry(path: str) -> dict[str, str]:
    """Return ``path``, and ``cell`` if the script of the sheet cannot derive the cell of the saved table from it."""
    shown, cell = utf8(path), csv_cell(path)
    is_derived = cell in (shown, f"'{shown}") and not path.startswith("'")
    return {"path": shown} if is_derived else {"path": shown, "cell": cell}


def _images(mined: Mined, model: Model, files: ImageFiles) -> Iterator[dict[str, Any]]:
    """Yield each mined image once, under the first class that lists it."""
    ranking = mined.ranking
    seen: set[int] = set()
    for rank in range(ranking.images.shape[1]):
        for row, label in enumerate(ranking.classes.tolist()):
            index = int(ranking.images[row, rank])
            if index == NO_IMAGE or index in seen:
                continue
            seen.add(index)
            yield {
                "index": index,
                **path_entry(files.relative(index)),
                "class": one_line(model.class_names[label]),
                "score": float(f"{ranking.probability[row, rank]:.6g}"),
                "predicted": one_line(model.class_names[int(ranking.predicted[row, rank])]),
            }


def _button(name: str, key: str) -> str:
    shown = f"<kbd>{key}</kbd>" if key else ""
    return (
        f'<button type="button" data-name="{html(name)}" data-key="{key}" aria-pressed="false">{shown}{html(name)}'
        "<span></span></button>"
    )
