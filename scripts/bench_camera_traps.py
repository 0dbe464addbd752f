"""Time and memory of reading the annotations of a million camera-trap images, on made-up files.

Each format is read in a process of its own on one core, with the check that every image file is there (they are empty
files) and the division by location. Prints CPU seconds and peak memory, beside the memory of the imports alone.

    python scripts/bench_camera_traps.py [--images 1000000] [--formats coco megadetector camtrap_dp csv]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

FORMATS = ("coco", "megadetector", "camtrap_dp", "csv")
PER_LOCATION, PER_SEQUENCE, CLASSES = 2000, 3, 50


def shots(images: int) -> Iterator[tuple[str, str, str, str, str, int]]:
    """Yield id, path, location, sequence, time and class of each image; a third of them are empty (class 0)."""
    for number in range(images):
        location, sequence = number // PER_LOCATION, number // PER_SEQUENCE
        day, second = divmod(sequence * 60, 86_400)
        stamp = f"2024-{1 + day // 28 % 12:02d}-{1 + day % 28:02d} {second // 3600:02d}:{second // 60 % 60:02d}:00"
        label = 0 if sequence % 3 == 0 else 1 + (sequence * sequence) % (CLASSES - 1)
        key = str(uuid.UUID(int=number * 2654435761 % 2**128))
        yield key, f"L{location:04d}/IMG_{number:07d}.JPG", f"L{location:04d}", f"S{sequence:07d}", stamp, label


def write_files(root: Path, images: int, formats: list[str]) -> None:
    """Write empty image files, and the annotations in each format."""
    for _, path, location, *_ in shots(images):
        try:
            os.close(os.open(root / path, os.O_CREAT))
        except FileNotFoundError:
            (root / location).mkdir(parents=True)
            os.close(os.open(root / path, os.O_CREAT))
    if "coco" in formats or "megadetector" in formats:
        _write_coco(root / "coco.json", images)
    if "megadetector" in formats:
        _write_megadetector(root / "md.json", images)
    if "camtrap_dp" in formats:
        _write_camtrap_dp(root, images)
    if "csv" in formats:
        rows = (
            [path, f"species {label}", location, sequence, stamp]
            for _, path, location, sequence, stamp, label in shots(images)
        )
        _write_csv(root / "table.csv", ["path", "label", "location", "seq_id", "datetime"], rows)


def _write_coco(file: Path, images: int) -> None:
    with open(file, "w") as stream:
        stream.write('{"info": {"version": "1.0"}, "images": [')
        for number, (key, path, location, sequence, stamp, _) in enumerate(shots(images)):
            entry = {"id": key, "file_name": path, "location": location, "seq_id": sequence, "seq_num_frames": 3}
            entry |= {"frame_num": number % 3, "datetime": stamp, "width": 2048, "height": 1536}
            stream.write((", " if number else "") + json.dumps(entry))
        stream.write('], "annotations": [')
        for number, (key, *_, label) in enumerate(shots(images)):
            entry = {"id": f"a-{key}", "image_id": key, "category_id": label, "sequence_level_annotation": True}
            stream.write((", " if number else "") + json.dumps(entry))
        names = ["empty", *(f"species {label}" for label in range(1, CLASSES))]
        categories = [{"id": number, "name": name} for number, name in enumerate(names)]
        stream.write(f'], "categories": {json.dumps(categories)}}}')


def _write_megadetector(file: Path, images: int) -> None:
    with open(file, "w") as stream:
        stream.write('{"info": {"format_version": "1.3"}, "detection_categories": {"1": "animal"}, "images": [')
        for number, (_, path, *_, label) in enumerate(shots(images)):
            box = [0.1, 0.2, 0.3 + number % 7 / 20, 0.25]
            weak = {"category": "1", "conf": 0.012, "bbox": [0.7, 0.7, 0.1, 0.1]}
            strong = [{"category": "1", "conf": 0.931, "bbox": box}] if label else []
            stream.write((", " if number else "") + json.dumps({"file": path, "detections": [*strong, weak]}))
        stream.write("]}")


def _write_camtrap_dp(root: Path, images: int) -> None:
    base = "https://raw.githubusercontent.com/tdwg/camtrap-dp/1.0"
    names = ("deployments", "media", "observations")
    resources = [{"name": name, "path": f"{name}.csv"} for name in names]
    (root / "datapackage.json").write_text(
        json.dumps({"profile": f"{base}/camtrap-dp-profile.json", "resources": resources})
    )
    places = dict.fromkeys(location for _, _, location, *_ in shots(images))
    _write_csv(root / "deployments.csv", ["deploymentID", "locationID"], ([location, location] for location in places))
    media = ([key, location, stamp, path] for key, path, location, _, stamp, _ in shots(images))
    _write_csv(root / "media.csv", ["mediaID", "deploymentID", "timestamp", "filePath"], media)
    head = ["observationID", "deploymentID", "mediaID", "eventID", "eventStart", "eventEnd", "observationLevel"]
    rows = (
        [f"o-{key}", location, key, sequence, stamp, stamp, "media", "animal" if label else "blank", f"species {label}"]
        for key, _, location, sequence, stamp, label in shots(images)
    )
    _write_csv(root / "observations.csv", [*head, "observationType", "scientificName"], rows)


def _write_csv(file: Path, head: list[str], rows: Iterator[list[str]]) -> None:
    with open(file, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(head)
        writer.writerows(rows)


def measure(root: Path, kind: str) -> None:
    """Read one format in this process and print seconds and peak memory as JSON."""
    from ltr.data.sources.camera_traps import camera_traps

    options = {"coco": ("coco.json", None), "megadetector": ("coco.json", "md.json"),
               "camtrap_dp": ("datapackage.json", None), "csv": ("table.csv", None)}  # fmt: skip
    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    warnings.simplefilter("ignore")
    started = time.process_time()
    file, detections = options[kind]
    source = camera_traps(
        name="bench",
        annotations=str(root / file),
        root=str(root),
        detections=None if detections is None else str(root / detections),
    )
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak": peak, "imported": imported, "images": len(source)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--measure", nargs=2, metavar=("ROOT", "FORMAT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(Path(arguments.measure[0]), arguments.measure[1])
        return
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), arguments.images, arguments.formats)
        print(f"{'format':<14}{'images':>10}{'seconds':>9}{'peak MB':>9}{'imports MB':>12}")
        for kind in arguments.formats:
            command = [sys.executable, __file__, "--measure", folder, kind]
            line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            outcome = json.loads(line)
            print(
                f"{kind:<14}{outcome['images']:>10,}{outcome['seconds']:>9.1f}{outcome['peak']:>9,.0f}"
                f"{outcome['imported']:>12,.0f}"
            )


if __name__ == "__main__":
    main()
