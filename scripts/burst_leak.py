"""Accuracy of a random against a grouped split of bursts, made from real images.

    python scripts/burst_leak.py --out outputs/bursts    # needs CIFAR-10

Each of ``--bursts`` CIFAR-10 images per class becomes a burst of ``--frames`` frames: shifted by up to two pixels, with
another brightness and noise, as a camera takes them. The frames and a table with ``seq_id`` are written to ``--out``;
the same network is trained once with ``dataset.group=none`` and once with ``dataset.group=seq_id``, and tested on
bursts of further images as well, which is what both splits try to predict.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

from ltr.randomness import generator

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def frames(image: np.ndarray, number: int, seed: int) -> list[np.ndarray]:
    """Return the frames of a burst, uint8 [H, W, 3] each."""
    random = generator(seed, "burst")
    padded = np.pad(image.astype(np.float64), ((2, 2), (2, 2), (0, 0)), mode="reflect")
    made = []
    for _ in range(number):
        down, right = random.integers(0, 5, 2)
        frame = padded[down : down + image.shape[0], right : right + image.shape[1]]
        frame = frame * random.uniform(0.9, 1.1) + random.normal(scale=4, size=image.shape)
        made.append(frame.clip(0, 255).astype(np.uint8))
    return made


def write_bursts(folder: Path, images: np.ndarray, labels: np.ndarray, bursts: int, number: int, start: int) -> Path:
    """Write the bursts of images ``start`` to ``start + bursts`` of each class, and their table."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for label, name in enumerate(CLASSES):
        for index in np.flatnonzero(labels == label)[start : start + bursts].tolist():
            for position, frame in enumerate(frames(images[index], number, index)):
                path = f"{index:05d}-{position}.png"
                Image.fromarray(frame).save(folder / path)
                rows.append([path, name, f"burst {index}"])
    with open(folder / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "seq_id"], *rows])
    return folder / "table.csv"


def main() -> None:
    import ltr
    from ltr.data.sources.cifar import cifar10

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("outputs/bursts"))
    parser.add_argument("--data", default="data", help="folder with the CIFAR-10 files (default: data)")
    parser.add_argument("--bursts", type=int, default=50, help="bursts per class (default: 50)")
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    source = cifar10(root=arguments.data)
    images, labels = np.asarray(source.images), source.labels
    out = arguments.out.absolute()
    table = write_bursts(out / "images", images, labels, arguments.bursts, arguments.frames, 0)
    new = write_bursts(out / "new", images, labels, arguments.bursts, arguments.frames, arguments.bursts)
    with open(new, newline="") as file:
        truth = [row["label"] for row in csv.DictReader(file)]
        file.seek(0)
        paths = [row["path"] for row in csv.DictReader(file)]
    pixels = np.stack([np.asarray(Image.open(out / "new" / path)) for path in paths])
    for group in ("none", "seq_id"):
        outcome = ltr.train(
            [
                "dataset=camera_traps",
                f"dataset.root={table.parent}",
                f"dataset.annotations={table}",
                f"dataset.group={group}",
                "dataset.image_size=32",
                "dataset.image_resize=32",
                "augment=cifar",
                "backbone=resnet20",
                f"trainer.max_epochs={arguments.epochs}",
                "optimizer.lr=0.05",
                "scheduler=cosine",
                "trainer.num_workers=0",
                "figures=none",
                "callbacks.progress=none",
                f"paths.outputs={out / 'runs'}",
            ]
        )
        run = outcome.directory
        row = next(row for row in (outcome.result or {})["rows"] if row["headline"])
        network = ltr.load(run)
        predicted = [network.class_names[label] for label in network.predict(pixels).argmax(axis=1)]
        honest = np.mean([one == other for one, other in zip(predicted, truth)])
        accuracy = row["metrics"]["accuracy"]
        print(f"dataset.group={group}: accuracy {accuracy:.1%} in its test part, {honest:.1%} on new bursts")


if __name__ == "__main__":
    main()
