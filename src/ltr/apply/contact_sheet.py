"""Results of mining, to look at and to label from: HTML sheets with embedded thumbnails, and a table."""

from __future__ import annotations

import base64
import io
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from ltr.apply.mine import NOBODY, Mined, Ranking
from ltr.apply.model import Model
from ltr.apply.score_text import probability_texts
from ltr.apply.tables import table
from ltr.data.images.decode import decode_image
from ltr.data.source import PLAIN, Decoding, ImageFiles
from ltr.escaping import html
from ltr.files import write_text

SIDE = 112  # of a thumbnail, in pixels
_NAME_LETTERS = 36  # two lines under a thumbnail
CLASSES_A_SHEET = 40  # so that a sheet stays below some ten megabytes

_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5em; color: #222; background: #fff }
h1 { font-size: 1.3em } h2 { font-size: 1.1em; margin: 1.6em 0 .4em; border-top: 1px solid #ddd; padding-top: .6em }
.about, figcaption { color: #555 } nav a { margin-right: .7em }
.row { display: flex; flex-wrap: wrap; gap: 10px } figure { margin: 0; width: 120px; font-size: 12px }
figure img, .gone { width: 112px; height: 112px; object-fit: contain; background: #f2f2f2; display: block }
figcaption { overflow-wrap: anywhere } .other { color: #b00 }
"""


def write_candidates(path: Path, mined: Mined, model: Model, files: ImageFiles) -> int:
    """Write ``class, rank, probability, predicted, confidence, path, label``; a person fills in the empty last column.

    Returns:
        The number of rows.
    """
    rows = 0
    names = model.class_names
    with table(path) as writer:
        for row, label in enumerate(mined.ranking.classes.tolist()):
            is_filled = mined.ranking.images[row] != NOBODY
            count = int(is_filled.sum())
            rows += count
            writer.write(
                {
                    "class": [names[label]] * count,
                    "rank": np.arange(1, count + 1),
                    "probability": mined.ranking.probability[row][is_filled],
                    "predicted": [names[one] for one in mined.ranking.predicted[row][is_filled].tolist()],
                    "confidence": mined.ranking.confidence[row][is_filled],
                    "path": [files.relative(one) for one in mined.ranking.images[row][is_filled].tolist()],
                    "label": [""] * count,
                }
            )
    return rows


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
        title: what was mined with what, for the head of each sheet.
        thumbnails: images of each class that are shown.
        advance: called with the number of classes that were drawn since.

    Returns:
        The sheets' paths.
    """
    ranking = mined.ranking
    starts = range(0, len(ranking.classes), CLASSES_A_SHEET)
    names = ["sheet.html"] if len(starts) == 1 else [f"sheet-{number}.html" for number in range(1, len(starts) + 1)]
    for old in folder.glob("sheet*.html"):
        if old.name not in names:
            old.unlink()
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
        f"<title>{html(title)}</title><style>{_STYLE}</style></head><body>\n"
        f'<h1>{html(title)}</h1><p class="about">{html(about)}. Under each image: its rank, the probability of the '
        "class (its log-odds ln(p / (1 - p)) where probabilities look the same), the end of its file name, and in red "
        "the class that the network predicts instead. candidates.csv has all of them, to fill in labels.</p>"
        f"{navigation}\n{''.join(sections)}{navigation}</body></html>\n"
    )


def _section(row: int, ranking: Ranking, model: Model, files: ImageFiles, thumbnails: int) -> str:
    label = int(ranking.classes[row])
    names = model.class_names
    decoding = model.decoding_of(files)
    shown = [image for image in ranking.images[row][:thumbnails].tolist() if image != NOBODY]
    figures = []
    scores = probability_texts(ranking.probability[row][: len(shown)].tolist())
    for rank, image in enumerate(shown):
        predicted = int(ranking.predicted[row, rank])
        other = ""
        if predicted != label:
            confidence = ranking.confidence[row, rank]
            other = f'<br><span class="other">{html(names[predicted])} {confidence:.3f}</span>'
        path = files.relative(image)
        whole = os.fsencode(os.path.abspath(files.path(image)))
        figures.append(
            f'<figure title="{html(path)}"><a href="file://{quote(whole)}">{_thumbnail(files, image, decoding)}</a>'
            f"<figcaption>{rank + 1} · {scores[rank]}<br>{html(_end_of_name(path))}{other}</figcaption></figure>"
        )
    count = model.class_counts[label]
    return (
        f'<section><h2>{html(names[label])} <span class="about">{count:,} training images</span></h2>'
        f'<div class="row">{"".join(figures)}</div></section>\n'
    )


def _end_of_name(path: str) -> str:
    """Return a file's name, the end of a long one: cameras and exports count up there."""
    name = os.path.basename(path)
    return name if len(name) <= _NAME_LETTERS else f"…{name[1 - _NAME_LETTERS :]}"


def _thumbnail(files: ImageFiles, image: int, decoding: Decoding) -> str:
    """Return an embedded JPEG; a grey square where the file is gone since."""
    try:
        data = base64.b64encode(thumbnail(files.open(image), decoding)).decode("ascii")
    except Exception as error:  # decoders raise many kinds for a damaged file
        return f'<span class="gone">{html(type(error).__name__)}</span>'
    return f'<img alt="" loading="lazy" src="data:image/jpeg;base64,{data}">'


def thumbnail(opened: Any, decoding: Decoding = PLAIN, *, side: int = SIDE) -> bytes:
    """Return a JPEG of at most ``side`` pixels a side.

    Raises:
        Exception: whatever a decoder raises for a damaged file.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        small = decode_image(opened, decoding)
    small.thumbnail((side, side))
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
