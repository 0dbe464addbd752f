"""Results of mining for a person: HTML sheets with embedded thumbnails, and a table of candidates to label."""

from __future__ import annotations

import base64
import csv
import io
import os
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from ltr.apply.mine import NO_IMAGE, Mined, Ranking
from ltr.apply.model import Model
from ltr.apply.score_text import probability_texts
from ltr.apply.tables import open_table
from ltr.data.images.decode import decode_image
from ltr.data.source import Decoding, ImageFiles
from ltr.escaping import html
from ltr.files import write_text
from ltr.writing import HTML_MARK

SIDE = 112  # of a thumbnail, in pixels
_NAME_LETTERS = 36  # two lines under a thumbnail
CLASSES_A_SHEET = 40  # keeps a sheet below some ten megabytes

CANDIDATES = "candidates.csv"
CANDIDATE_COLUMNS = ("class", "rank", "probability", "predicted", "confidence", "path", "label")
_SHEET = re.compile(r"sheet(-\d+)?\.html")
_UNREADABLE = '<span class="gone">cannot be read</span>'
_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5em; color: #222; background: #fff }
h1 { font-size: 1.3em } h2 { font-size: 1.1em; margin: 1.6em 0 .4em; border-top: 1px solid #ddd; padding-top: .6em }
.about, figcaption { color: #555 } nav a { margin-right: .7em }
.row { display: flex; flex-wrap: wrap; gap: 10px } figure { margin: 0; width: 120px; font-size: 12px }
figure img, .gone { width: 112px; height: 112px; object-fit: contain; background: #f2f2f2; display: block }
figcaption { overflow-wrap: anywhere } .other { color: #b00 }
"""


def write_candidates(path: Path, mined: Mined, model: Model, files: ImageFiles) -> int:
    """Write a table with `CANDIDATE_COLUMNS`; a person fills in the empty last one.

    Returns:
        The number of rows.
    """
    names, ranking = model.class_names, mined.ranking
    with open_table(path) as writer:
        for row, label in enumerate(ranking.classes.tolist()):
            count = int((ranking.images[row] != NO_IMAGE).sum())  # empty entries are the last ones
            values = (
                [names[label]] * count,
                np.arange(1, count + 1),
                ranking.probability[row, :count],
                [names[predicted] for predicted in ranking.predicted[row, :count].tolist()],
                ranking.confidence[row, :count],
                [files.relative(image) for image in ranking.images[row, :count].tolist()],
                [""] * count,
            )
            writer.write(dict(zip(CANDIDATE_COLUMNS, values)))
    return int((ranking.images != NO_IMAGE).sum())


def existing_sheets(folder: Path) -> list[str]:
    """Return the names of a folder's files that are named as the sheets of `write_sheets`."""
    return [path.name for path in folder.glob("sheet*.html") if _SHEET.fullmatch(path.name)]


def labelled_rows(path: Path) -> int:
    """Return the number of rows of a table of candidates with a label; 0 if there is no such file.

    A table that cannot be read, or without a column ``label``, counts as labelled: a person has edited it.
    """
    if not path.is_file():
        return 0
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
        first, _, _ = text.partition("\n")
        rows = csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=first.count))
        if "label" not in (rows.fieldnames or ()):
            return 1
        return sum(bool((row["label"] or "").strip()) for row in rows)
    except (OSError, csv.Error):
        return 1


def write_sheets(
    folder: Path,
    mined: Mined,
    model: Model,
    files: ImageFiles,
    *,
    title: str,
    thumbnails: int,
    advance: Callable[[int], object] = lambda number: None,
) -> list[Path]:
    """Write ``sheet.html``, or ``sheet-1.html``, ``sheet-2.html``, ... of 40 classes each, with links to the files.

    Args:
        title: heading of each sheet.
        thumbnails: number of images shown of each class.
        advance: called with the number of newly drawn classes.

    Returns:
        The sheets' paths.
    """
    ranking = mined.ranking
    starts = range(0, len(ranking.classes), CLASSES_A_SHEET)
    names = ["sheet.html"] if len(starts) == 1 else [f"sheet-{number}.html" for number in range(1, len(starts) + 1)]
    for old in existing_sheets(folder):
        if old not in names:
            (folder / old).unlink()
    for start, name in zip(starts, names):
        sections = []
        for row in range(start, min(start + CLASSES_A_SHEET, len(ranking.classes))):
            sections.append(_section(row, ranking, model, files, thumbnails))
            advance(1)
        write_text(folder / name, _sheet(title, mined, names, name, sections))
    return [folder / name for name in names]


def _sheet(title: str, mined: Mined, names: Sequence[str], location: str, sections: Sequence[str]) -> str:
    links = "".join(
        f"<b>{number}</b> " if name == location else f'<a href="{name}">{number}</a>'
        for number, name in enumerate(names, start=1)
    )
    navigation = f"<nav>sheet {links}</nav>" if len(names) > 1 else ""
    unread = f"; {len(mined.broken):,} could not be read" if mined.broken else ""
    about = f"{mined.ranked:,} images ranked for {len(mined.ranking.classes):,} classes{unread}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"{HTML_MARK}<title>{html(title)}</title><style>{_STYLE}</style></head><body>\n"
        f'<h1>{html(title)}</h1><p class="about">{html(about)}. Under each image: its rank, the probability of the '
        "class (or log-odds ln(p / (1 - p)), if rounding would make probabilities equal), the end of its file name, "
        "and in red the class that the network predicts instead. Fill in labels in candidates.csv, which has all of "
        "these images.</p>"
        f"{navigation}\n{''.join(sections)}{navigation}</body></html>\n"
    )


def _section(row: int, ranking: Ranking, model: Model, files: ImageFiles, thumbnails: int) -> str:
    label = int(ranking.classes[row])
    names, decoding = model.class_names, model.decoding_of(files)
    shown = [image for image in ranking.images[row][:thumbnails].tolist() if image != NO_IMAGE]
    figures = []
    scores = probability_texts(ranking.probability[row][: len(shown)].tolist())
    for rank, image in enumerate(shown):
        predicted = int(ranking.predicted[row, rank])
        other = f'<br><span class="other">{html(names[predicted])} {ranking.confidence[row, rank]:.3f}</span>'
        path = files.relative(image)
        link = quote(os.fsencode(os.path.abspath(files.path(image))))
        data = thumbnail_data(files, image, decoding, SIDE)
        img = f'<img alt="" loading="lazy" src="data:image/jpeg;base64,{data}">' if data else _UNREADABLE
        figures.append(
            f'<figure title="{html(path)}"><a href="file://{link}">{img}</a><figcaption>{rank + 1} · {scores[rank]}'
            f"<br>{html(_end_of_name(path))}{other if predicted != label else ''}</figcaption></figure>"
        )
    count = model.class_counts[label]
    return (
        f'<section><h2>{html(names[label])} <span class="about">{count:,} training images</span></h2>'
        f'<div class="row">{"".join(figures)}</div></section>\n'
    )


def _end_of_name(path: str) -> str:
    """Return the name of a file; only the end of a long one, where cameras put their counter."""
    name = os.path.basename(path)
    return name if len(name) <= _NAME_LETTERS else f"…{name[1 - _NAME_LETTERS :]}"


def thumbnail_data(files: ImageFiles, image: int, decoding: Decoding, side: int) -> str:
    """Return a JPEG of at most ``side`` pixels a side as base64; '' if the file is missing or damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            small = decode_image(files.open(image), decoding)
        small.thumbnail((side, side))
        return jpeg_data(small)
    except Exception:  # decoders raise errors of any type for damaged files
        return ""


def jpeg_data(image: Image.Image) -> str:
    """Return an image as JPEG in base64."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
