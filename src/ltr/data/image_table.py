"""Export of a source's images as a CSV table for ``dataset=camera_traps`` or, without boxes, ``dataset=table``."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ltr.data.source import ImageFiles, Source
from ltr.errors import ConfigError
from ltr.escaping import csv_cell
from ltr.files import written_atomically

BOX = ("x", "y", "width", "height")


def write_image_table(source: Source, to: Path) -> None:
    """Write a row for each image: ``path``, ``label``, ``split``, its groups, and the box of a crop.

    Raises:
        ConfigError: the images are not files.
    """
    if not isinstance(source.images, ImageFiles):
        raise ConfigError(f"{source.name} is not read from image files, so there are no paths to write")
    groups = [key for key in source.groupings if key not in ("path", "label", "split", *BOX)]
    has_boxes = source.images.crops is not None
    with written_atomically(to) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([csv_cell(name) for name in ("path", "label", "split", *groups, *(BOX if has_boxes else ()))])
        writer.writerows(_rows(source, groups))


def _rows(source: Source, groups: list[str]) -> Iterator[list[Any]]:
    files = source.images
    assert isinstance(files, ImageFiles)
    columns = [(source.groupings[key].codes, (*source.groupings[key].values, "")) for key in groups]
    for part, rows in source.parts.items():
        for row in rows:
            cells = [files.relative(row), source.class_names[source.labels[row]], part]
            cells += [values[codes[row]] for codes, values in columns]
            box = []
            if files.crops is not None:
                numbers = files.crops.boxes[row]
                box = ["", "", "", ""] if np.isnan(numbers[0]) else [f"{value:.7g}" for value in numbers]
            yield [csv_cell(cell) for cell in cells] + box
