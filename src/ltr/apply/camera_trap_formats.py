"""Predictions in the formats of camera-trap tools: MegaDetector's batch results, and observations of Camtrap DP.

MegaDetector's format (https://lila.science/megadetector-output-format) is read by Timelapse and AddaxAI. A detection
has ``classifications``, a list of [category id, probability] in descending order; ``classification_categories`` names
the ids, non-negative integers as text; ``info`` has ``classifier`` and ``classification_completion_time``. For Camtrap
DP 1.0 (https://camtrap-dp.tdwg.org/data), the table ``observations`` is written, with ``observationLevel`` media and
``classificationMethod`` machine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np

from ltr.apply.detections import DetectionPool
from ltr.data.annotations.camtrap_dp import BLANK, open_package
from ltr.data.images.decode import open_image
from ltr.data.source import ImageFiles
from ltr.data.sources.json_arrays import read_arrays
from ltr.data.tables import iterate_rows
from ltr.escaping import utf8
from ltr.files import write_csv, written_atomically
from ltr.names import normal_path

_VERSION = "1.3"  # of a new MegaDetector file
WHOLE = (0.0, 0.0, 1.0, 1.0)  # box of a whole image
_HUMANS, _VEHICLES = ("human", "person", "homo sapiens"), ("vehicle",)
_TIME_TAKEN = 0x9003  # EXIF DateTimeOriginal
_BOX_COLUMNS = ("bboxX", "bboxY", "bboxWidth", "bboxHeight")
_BLANK_COLUMNS = (
    "count", "lifeStage", "sex", "behavior", "individualID", "individualPositionRadius", "individualPositionAngle",
    "individualSpeed",
)  # fmt: skip


@dataclass(frozen=True)
class Predictions:
    """Predictions for a whole pool; rows of unreadable images have class -1.

    Attributes:
        classes: int32 [n, k], best first.
        probabilities: float32 [n, k].
        background: float32 [n] probability of the background, or None without one.
        reasons: reasons of unreadable images, by row.
        class_names: names of the C classes.
        background_label: label of the background; None without one.
        classifier: name of the run.
    """

    classes: np.ndarray
    probabilities: np.ndarray
    background: np.ndarray | None
    reasons: Mapping[int, str]
    class_names: tuple[str, ...]
    background_label: int | None
    classifier: str

    def pairs(self, row: int) -> list[list[Any]]:
        """Return [category id, probability] of a row, best first; [] without a prediction."""
        if self.classes[row, 0] < 0:
            return []
        values = zip(self.classes[row].tolist(), self.probabilities[row].tolist())
        return [[str(label), round(probability, 5)] for label, probability in values]


def write_megadetector(out: Path, predictions: Predictions, files: ImageFiles, pool: DetectionPool | None) -> None:
    """Write a MegaDetector file with classifications.

    With a pool of detections, it is the detector's file, record by record, with ``classifications`` for each classified
    detection; those of an earlier classifier are replaced. Without a pool, each image has one detection, the whole
    image, with 1 minus the background's probability as confidence (1 without a background). Unreadable images have a
    ``failure``.
    """
    categories = {str(number): class_name for number, class_name in enumerate(predictions.class_names)}
    values: dict[str, Any] = {"info": {"format_version": _VERSION}, "detection_categories": {"1": "animal"}}
    if pool is not None:
        values = dict(pool.detections.values)
        values.pop("classification_category_descriptions", None)
    values["info"] = {
        **values["info"],
        "classifier": predictions.classifier,
        "classification_completion_time": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
    }
    values["classification_categories"] = categories
    with written_atomically(out) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        stream.write("{\n")
        for key, value in values.items():
            stream.write(f" {json.dumps(key)}: {json.dumps(value)},\n")
        stream.write(' "images": [')
        separators = chain(("\n  ",), repeat(",\n  "))

        def write(image: Mapping[str, Any]) -> None:
            stream.write(next(separators) + json.dumps(image))

        if pool is None:
            for image in _whole_images(predictions, files):
                write(image)
        else:
            _classify_records(pool, predictions, write)
        stream.write("\n ]\n}\n")


def _whole_images(predictions: Predictions, files: ImageFiles) -> Iterator[dict[str, Any]]:
    for row in range(len(files)):
        pairs = predictions.pairs(row)
        image: dict[str, Any] = {"file": utf8(files.relative(row))}
        if not pairs:
            yield image | {"failure": f"Failure image access: {predictions.reasons.get(row, 'unreadable')}"}
            continue
        background = 0.0 if predictions.background is None else float(predictions.background[row])
        confidence = round(1 - background, 5)
        yield image | {
            "detections": [{"category": "1", "conf": confidence, "bbox": list(WHOLE), "classifications": pairs}]
        }


def _classify_records(pool: DetectionPool, predictions: Predictions, write: Any) -> None:
    """Write the detector's records with classifications added to their detections."""
    detections = pool.detections
    row_of = np.full(len(detections.images), -1, dtype=np.int64)
    row_of[pool.rows] = np.arange(len(pool.rows))
    position = 0

    def classify(image: dict[str, Any]) -> None:
        nonlocal position
        listed = None if image.get("failure") else image.get("detections")
        for detection in listed or ():
            detection.pop("classifications", None)
            row = int(row_of[position])
            if row >= 0 and (pairs := predictions.pairs(row)):
                detection["classifications"] = pairs
            position += 1
        write(image)

    read_arrays("--detections", detections.file, {"images": classify})


def write_camtrap_dp(
    out: Path, predictions: Predictions, files: ImageFiles, pool: DetectionPool | None, images: Path
) -> int:
    """Write the table ``observations`` of Camtrap DP: one observation for each image or detection.

    If the folder of images has a Camtrap DP package, media, deployments and times are those of the package. Otherwise a
    medium's id is its path, its deployment the file's folder, and its time that of EXIF, read as UTC.

    Returns:
        The number of observations without a time, although the standard requires one.
    """
    media = _media(images)
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    untimed = 0
    rows: list[dict[str, Any]] = []
    for row in range(len(files)):
        label = int(predictions.classes[row, 0])
        if label < 0:
            continue
        path = files.relative(row)
        key = normal_path(path.replace("\\", "/"))
        if key not in media:
            media[key] = _read_medium(files, row, images)  # once for all boxes of an image
        medium, deployment, time = media[key]
        untimed += not time
        class_name = predictions.class_names[label]
        kind = _kind(label, class_name, predictions.background_label)
        number = int(pool.detections.numbers[pool.rows[row]]) if pool is not None else 0
        box: list[Any] = [""] * 4
        if files.crops is not None and kind != BLANK:
            box = [round(side, 6) for side in files.crops.boxes[row].tolist()]
        rows.append(
            {
                "observationID": f"{medium}-{predictions.classifier}-{number}",
                "deploymentID": deployment,
                "mediaID": medium,
                "eventID": "",
                "eventStart": time,
                "eventEnd": time,
                "observationLevel": "media",
                "observationType": kind,
                "cameraSetupType": "",
                "scientificName": class_name if kind == "animal" else "",
                **dict.fromkeys(_BLANK_COLUMNS, ""),
                **dict(zip(_BOX_COLUMNS, box)),
                "classificationMethod": "machine",
                "classifiedBy": predictions.classifier,
                "classificationTimestamp": stamp,
                "classificationProbability": round(float(predictions.probabilities[row, 0]), 5),
                "observationTags": "",
                "observationComments": "",
            }
        )
    write_csv(out, rows)
    return untimed


def _media(images: Path) -> dict[str, tuple[str, str, str]]:
    """Return id, deployment and time of each medium of a package, by path; {} if there is no package."""
    if not (images / "datapackage.json").is_file():
        return {}
    package = open_package("--format camtrap_dp", images, ("media",))
    columns = ("mediaID", "deploymentID", "timestamp", "filePath")
    return {
        normal_path((path or "").replace("\\", "/")): (medium or "", deployment or "", time or "")
        for _, (medium, deployment, time, path) in iterate_rows(package.tables["media"], columns)
    }


def _read_medium(files: ImageFiles, row: int, images: Path) -> tuple[str, str, str]:
    """Return id, deployment and time of an image without a package."""
    path = files.relative(row)
    folder = os.path.dirname(path) or images.expanduser().absolute().name
    try:
        with open_image(files.path(row)) as image:
            exif = image.getexif()
            time = exif.get_ifd(0x8769).get(_TIME_TAKEN) or exif.get(_TIME_TAKEN) or ""
    except Exception:  # decoders raise errors of any type for damaged files
        time = ""
    text = str(time).strip()
    is_time = len(text) == 19 and text[4] == ":" and text[10] == " "
    return utf8(path), utf8(folder), f"{text[:10].replace(':', '-')}T{text[11:]}Z" if is_time else ""


def _kind(label: int, class_name: str, background: int | None) -> str:
    """Return the ``observationType`` of a class."""
    plain = class_name.casefold()
    if label == background or plain in (BLANK, "empty"):
        return BLANK
    return "human" if plain in _HUMANS else "vehicle" if plain in _VEHICLES else "animal"


def detection_columns(pool: DetectionPool, indices: Sequence[int] | np.ndarray) -> dict[str, Any]:
    """Return the columns, without the path, of a table of detections for some rows of the pool."""
    detections, rows = pool.detections, pool.rows[np.asarray(indices)]
    columns: dict[str, Any] = {
        "detection": detections.numbers[rows],
        "detector_category": [
            detections.category_names[number] if number >= 0 else "" for number in detections.categories[rows].tolist()
        ],
        "detector_confidence": detections.confidences[rows],
    }
    for number, side in enumerate(("x", "y", "width", "height")):
        columns[side] = detections.boxes[rows, number]
    return columns
