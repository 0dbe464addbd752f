"""Made-up camera-trap images, and their annotations in the published formats."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (64, 48)  # width, height
BOX = (16, 12, 24, 24)  # left, top, width, height of the animal in pixels
GROUND = (90, 110, 80)
COLOURS = {"deer": (200, 60, 40), "fox": (230, 150, 30), "owl": (40, 60, 210)}


@dataclass(frozen=True)
class Shot:
    """One image: its path, class, and where and when it was taken."""

    path: str
    label: str
    location: str
    sequence: str
    time: str

    @property
    def key(self) -> str:
        return self.path.removesuffix(".jpg").replace("/", "-")


def shots(
    locations: int = 6, bursts: int = 2, frames: int = 2, labels: Sequence[str] = ("deer", "fox", "empty")
) -> list[Shot]:
    """Bursts of every class at every location; the owl is at two locations only if it is among the classes."""
    made = []
    for index in range(locations):
        for burst in range(bursts):
            for number, label in enumerate(labels):
                if label == "owl" and index > 1:
                    continue
                sequence = f"L{index}-{burst}-{label}"
                for frame in range(frames):
                    time = f"2024-0{1 + index}-{1 + burst:02d} 0{number}:00:{frame:02d}"
                    made.append(Shot(f"L{index}/{burst}_{label}_{frame}.jpg", label, f"L{index}", sequence, time))
    return made


def draw(root: Path, made: Iterable[Shot]) -> None:
    """Write the images: a ground, and a box of the class's colour where an animal is."""
    for number, shot in enumerate(made):
        random = np.random.default_rng(number)
        pixels = np.empty((SIZE[1], SIZE[0], 3), dtype=np.int64)
        pixels[:] = GROUND
        if shot.label in COLOURS:
            left, top, width, height = BOX
            pixels[top : top + height, left : left + width] = COLOURS[shot.label]
        pixels += random.integers(-8, 9, pixels.shape)
        path = root / shot.path
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=95)


def coco(made: Sequence[Shot], boxes: bool = False, **more: Any) -> dict[str, Any]:
    """COCO Camera Traps; the empty class is category 0."""
    names = ["empty", *sorted({shot.label for shot in made} - {"empty"})]
    return {
        "info": {"version": "1.0", "description": "made up"},
        "images": [
            {
                "id": shot.key,
                "file_name": shot.path,
                "location": shot.location,
                "seq_id": shot.sequence,
                "seq_num_frames": 2,
                "frame_num": 0,
                "datetime": shot.time,
                "width": SIZE[0],
                "height": SIZE[1],
                **more,
            }
            for shot in made
        ],
        "annotations": [
            {
                "id": f"a{number}",
                "image_id": shot.key,
                "category_id": names.index(shot.label),
                **({"bbox": list(BOX)} if boxes and shot.label != "empty" else {}),
                "sequence_level_annotation": False,
            }
            for number, shot in enumerate(made)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
    }


def megadetector(made: Sequence[Shot], confidence: float = 0.9, version: str = "1.3") -> dict[str, Any]:
    """MegaDetector's batch results: the animal, and an uncertain false detection."""
    width, height = SIZE
    box = [BOX[0] / width, BOX[1] / height, BOX[2] / width, BOX[3] / height]
    return {
        "info": {"format_version": version, "detector": "md_v5a.0.0.pt", "detection_completion_time": "2024-06-01"},
        "detection_categories": {"1": "animal", "2": "person", "3": "vehicle"},
        "images": [
            {
                "file": shot.path,
                "detections": [
                    *([] if shot.label == "empty" else [{"category": "1", "conf": confidence, "bbox": box}]),
                    {"category": "2", "conf": 0.03, "bbox": [0.5, 0.5, 0.25, 0.25]},
                ],
            }
            for shot in made
        ],
    }


def camtrap_dp(
    folder: Path, made: Sequence[Shot], boxes: bool = False, version: str = "1.0", events: bool = False
) -> Path:
    """A Camtrap DP package in ``folder``; paths start from there too. With ``events``, observations are of events."""
    folder.mkdir(parents=True, exist_ok=True)
    base = f"https://raw.githubusercontent.com/tdwg/camtrap-dp/{version}"
    resources = [
        {
            "name": name,
            "path": f"{name}.csv",
            "profile": "tabular-data-resource",
            "schema": f"{base}/{name}-table-schema.json",
        }
        for name in ("deployments", "media", "observations")
    ]
    content = {"name": "made-up", "profile": f"{base}/camtrap-dp-profile.json", "resources": resources}
    (folder / "datapackage.json").write_text(json.dumps(content))
    places = sorted({shot.location for shot in made})
    _csv(
        folder / "deployments.csv",
        ["deploymentID", "locationID", "latitude", "longitude", "deploymentStart", "deploymentEnd"],
        [[f"{index}-1", index, 52.7, 23.8, "2024-01-01T00:00:00Z", "2024-12-31T00:00:00Z"] for index in places],
    )
    _csv(
        folder / "media.csv",
        ["mediaID", "deploymentID", "captureMethod", "timestamp", "filePath", "filePublic", "fileMediatype"],
        [
            [shot.key, f"{shot.location}-1", "activityDetection", iso(shot.time), shot.path, "true", "image/jpeg"]
            for shot in made
        ],
    )
    width, height = SIZE
    box = [BOX[0] / width, BOX[1] / height, BOX[2] / width, BOX[3] / height]
    seen: set[str] = set()
    rows = []
    for number, shot in enumerate(made):
        if events and shot.sequence in seen:
            continue
        seen.add(shot.sequence)
        times = sorted(one.time for one in made if one.sequence == shot.sequence)
        kind = "blank" if shot.label == "empty" else "animal"
        rows.append(
            [
                *(f"o{number}", f"{shot.location}-1", "" if events else shot.key, shot.sequence),
                *(iso(times[0]), iso(times[-1]), "event" if events else "media", kind),
                "" if kind == "blank" else shot.label,
                *(box if boxes and kind == "animal" else [""] * 4),
            ]
        )
    head = (
        *("observationID", "deploymentID", "mediaID", "eventID", "eventStart", "eventEnd", "observationLevel"),
        *("observationType", "scientificName", "bboxX", "bboxY", "bboxWidth", "bboxHeight"),
    )
    _csv(folder / "observations.csv", list(head), rows)
    return folder / "datapackage.json"


def iso(time: str) -> str:
    return f"{time.replace(' ', 'T')}Z"


def table(file: Path, made: Sequence[Shot], separator: str = ",", start: str = "") -> Path:
    """A CSV of paths and labels."""
    rows = [[shot.path, shot.label, shot.location, shot.sequence, shot.time] for shot in made]
    _csv(file, ["path", "label", "location", "seq_id", "datetime"], rows, separator, start)
    return file


def _csv(file: Path, head: list[str], rows: list[list[Any]], separator: str = ",", start: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w", newline="", encoding="utf-8") as stream:
        stream.write(start)
        writer = csv.writer(stream, delimiter=separator)
        writer.writerow(head)
        writer.writerows(rows)


def write(root: Path, made: Sequence[Shot] | None = None, boxes: bool = False) -> Path:
    """Draw images and write ``annotations.json`` (COCO Camera Traps) and ``md.json`` (MegaDetector) into ``root``."""
    made = shots() if made is None else made
    draw(root, made)
    (root / "annotations.json").write_text(json.dumps(coco(made, boxes)))
    (root / "md.json").write_text(json.dumps(megadetector(made)))
    return root
