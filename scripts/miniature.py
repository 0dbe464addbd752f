"""A miniature of iNaturalist 2017 in the official folders and files, of drawn pictures: to try what reads it.

    python scripts/miniature.py DEST [--background 20] [--train 6] [--test 2]
    ltr-train method=crt dataset=inat_bg paths.data=DEST backbone.name=resnet18 dataset.image_size=64

``DEST/inat2017`` gets ``train2017.json``, ``val2017.json`` and ``train_val_images/``. The categories are the 100 of
iNaturalist-BG's published list, with ``--train`` training images each, and ``--background`` others with ten times as
many. A category is known by the colours of a shape and of what is behind it. It is no data set: numbers from it say
that everything runs.
"""

from __future__ import annotations

import argparse
import colorsys
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ltr.data.published import background_list, background_list_classes
from ltr.errors import ConfigError

WIDTH, HEIGHT = 96, 72
COMMON = 10  # a background category has so many times the images of a foreground one
SUPERCATEGORIES = ("Aves", "Insecta", "Plantae")


def colour(number: int, brightness: float) -> tuple[int, int, int]:
    """Neighbouring numbers get colours far apart."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.8, brightness)
    return round(255 * red), round(255 * green), round(255 * blue)


def picture(category: int, random: np.random.Generator) -> Image.Image:
    """A shape at a random place, before a plain ground with some noise."""
    image = Image.new("RGB", (WIDTH, HEIGHT), colour(category // 7, 0.5))
    left, top = int(random.integers(4, WIDTH - 48)), int(random.integers(4, HEIGHT - 44))
    draw = ImageDraw.Draw(image)
    shape = (draw.ellipse, draw.rectangle)[category % 2]
    shape([left, top, left + 40, top + 36], fill=colour(category, 0.95))
    noisy = np.asarray(image) + random.normal(0, 12, (HEIGHT, WIDTH, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def category_entry(number: int) -> dict[str, Any]:
    return {"id": number, "name": f"Species {number}", "supercategory": SUPERCATEGORIES[number % len(SUPERCATEGORIES)]}


def draw(root: Path, background: int, train: int, test: int) -> dict[str, int]:
    """Write the miniature below ``root``; images of each part."""
    foreground = background_list("inat17_100", 0)
    others = np.setdiff1d(np.arange(background_list_classes()), foreground)
    chosen = others[np.linspace(0, len(others) - 1, background).astype(int)].tolist()
    random = np.random.default_rng(0)
    base, written = root / "inat2017", {}
    for part, each in (("train", train), ("val", test)):
        images, annotations = [], []
        for number in [*foreground, *chosen]:
            about = category_entry(int(number))
            for _ in range(each * (COMMON if part == "train" and number in chosen else 1)):
                image = len(images) + (1_000_000 if part == "val" else 0)
                path = f"train_val_images/{about['supercategory']}/{about['name']}/{image:07d}.jpg"
                (base / path).parent.mkdir(parents=True, exist_ok=True)
                picture(int(number), random).save(base / path, quality=90)
                images.append({"id": image, "file_name": path, "width": WIDTH, "height": HEIGHT})
                annotations.append({"id": image, "image_id": image, "category_id": int(number)})
        content = {
            "images": images,
            "annotations": annotations[::-1],  # joined by image_id; the order says nothing
            "categories": [category_entry(int(number)) for number in sorted([*foreground, *chosen])],
        }
        (base / f"{part}2017.json").write_text(json.dumps(content), encoding="utf-8")
        written[part] = len(images)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dest", type=Path, metavar="DEST", help="folder to be given as paths.data")
    parser.add_argument("--background", type=int, default=20, help="background categories")
    parser.add_argument("--train", type=int, default=6, help="training images of a foreground category")
    parser.add_argument("--test", type=int, default=2, help="test images of a category")
    options = parser.parse_args()
    if min(options.background, options.train, options.test) < 1:
        raise ConfigError("--background, --train and --test: allowed is 1 or more")
    written = draw(options.dest, options.background, options.train, options.test)
    print(f"{written['train']:,} training and {written['val']:,} validation images in {options.dest / 'inat2017'}")


if __name__ == "__main__":
    main()
