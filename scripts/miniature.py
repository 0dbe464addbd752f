"""Synthetic miniature of iNaturalist 2017 in the official folders and files, for trying its readers.

    python scripts/miniature.py DEST [--train 6] [--test 2]
    ltr-train method=crt dataset=inat_bg paths.data=DEST backbone.name=resnet18 dataset.image_size=32

``DEST/inat2017`` gets ``train2017.json``, ``val2017.json`` and ``train_val_images/``: all 5,089 categories, with
``--train`` training images of each of the 100 that iNaturalist-BG's published list has as foreground, and one of each
other; test images of the 100 (``--test`` of each) and of every twentieth other. A category is known by the colours of a
shape and of what is behind it. It is no data set: numbers from it say that everything runs.
"""

from __future__ import annotations

import argparse
import colorsys
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ltr.data.splitting.published import background_list, background_list_classes

WIDTH, HEIGHT = 48, 36
TESTED = 20  # every so many background categories have a test image
SUPERCATEGORIES = ("Aves", "Insecta", "Plantae")


def colour(number: int, brightness: float) -> tuple[int, int, int]:
    """Return a colour; neighbouring numbers get distant colours."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.8, brightness)
    return round(255 * red), round(255 * green), round(255 * blue)


def synthetic_image(category: int, random: np.random.Generator) -> Image.Image:
    """Return an image of a shape at a random position on a noisy plain background."""
    image = Image.new("RGB", (WIDTH, HEIGHT), colour(category // 7, 0.5))
    left, top = int(random.integers(2, WIDTH - 24)), int(random.integers(2, HEIGHT - 20))
    draw = ImageDraw.Draw(image)
    shape = (draw.ellipse, draw.rectangle)[category % 2]
    shape([left, top, left + 20, top + 16], fill=colour(category, 0.95))
    noisy = np.asarray(image) + random.normal(0, 12, (HEIGHT, WIDTH, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def category_entry(number: int) -> dict[str, Any]:
    return {"id": number, "name": f"Species {number}", "supercategory": SUPERCATEGORIES[number % len(SUPERCATEGORIES)]}


def draw(root: Path, train: int, test: int) -> dict[str, int]:
    """Write the miniature below ``root`` and return the number of images of each part."""
    categories, foreground = range(background_list_classes()), set(background_list("inat17_100", 0))
    background = [number for number in categories if number not in foreground]
    counts = {
        "train": {number: train if number in foreground else 1 for number in categories},
        "val": dict.fromkeys(sorted(foreground), test) | dict.fromkeys(background[::TESTED], 1),
    }
    random = np.random.default_rng(0)
    base, written = root / "inat2017", {}
    for part, of_category in counts.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, int]] = []
        for number, count in of_category.items():
            about = category_entry(number)
            folder = base / "train_val_images" / about["supercategory"] / about["name"]
            folder.mkdir(parents=True, exist_ok=True)
            for _ in range(count):
                image = len(images) + (1_000_000 if part == "val" else 0)
                path = folder / f"{image:07d}.jpg"
                synthetic_image(number, random).save(path, quality=90)
                name = path.relative_to(base).as_posix()
                images.append({"id": image, "file_name": name, "width": WIDTH, "height": HEIGHT})
                annotations.append({"id": image, "image_id": image, "category_id": number})
        content = {
            "images": images,
            "annotations": annotations[::-1],  # joined by image_id; the order says nothing
            "categories": [category_entry(number) for number in categories],
        }
        (base / f"{part}2017.json").write_text(json.dumps(content), encoding="utf-8")
        written[part] = len(images)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dest", type=Path, metavar="DEST", help="folder to write, for paths.data")
    parser.add_argument("--train", type=int, default=6, help="training images per foreground category")
    parser.add_argument("--test", type=int, default=2, help="test images per foreground category")
    options = parser.parse_args()
    if min(options.train, options.test) < 1:
        parser.error("--train and --test: allowed is 1 or more")
    written = draw(options.dest, options.train, options.test)
    print(f"{written['train']:,} training and {written['val']:,} validation images in {options.dest / 'inat2017'}")


if __name__ == "__main__":
    main()
