"""Miniature data sets in the official folders and files, with a few tiny images of made-up content.

Each function draws one below ``root``, which stands for ``paths.data``; `draw_all` draws all of them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

import camera_trap_files

PER_CLASS = {"train": 3, "val": 1, "test": 2}


@cache
def jpeg(number: int, size: tuple[int, int] = (20, 16)) -> bytes:
    """A JPEG of ``size`` (width, height) in one of eight colours, with some noise."""
    random = np.random.default_rng(number % 8)
    colour = random.integers(40, 216, 3)
    pixels = np.clip(colour + random.integers(-40, 40, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def put(path: Path, number: int, size: tuple[int, int] = (20, 16)) -> None:
    """Write an image, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(number, size))


def lines(path: Path, rows: Sequence[object]) -> None:
    """Write a text file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def cub(root: Path, classes: int = 6, train: int = 3, test: int = 2) -> Path:
    """CUB-200-2011; images of both parts alternate in ``images.txt``."""
    return _birds(root / "CUB_200_2011", list(range(1, classes + 1)), train, test, "{:03d}.Made_up_Bird_{}")


def nabirds(root: Path, class_ids: Sequence[int] = (817, 295, 1010), train: int = 3, test: int = 2) -> Path:
    """NABirds; image ids are UUIDs, class ids sparse, and a hierarchy lies above them."""
    base = _birds(root / "nabirds", list(class_ids), train, test, "{:04d}")
    inner = {0: "Birds", 1: "Ducks and Others", 2: "Owls"}
    leaves = {number: f"Made-up Bird {number}" for number in class_ids}
    lines(base / "classes.txt", [f"{number} {name}" for number, name in {**inner, **leaves}.items()])
    above = {1: 0, 2: 0, **{number: 1 + number % 2 for number in class_ids}}
    lines(base / "hierarchy.txt", [f"{child} {parent}" for child, parent in above.items()])
    return base


def _birds(base: Path, class_ids: list[int], train: int, test: int, folder: str) -> Path:
    rows = []  # of (id, path, class id, is training)
    for number in class_ids:
        flags = [1] * train + [0] * test
        flags = flags[::2] + flags[1::2]
        for index, flag in enumerate(flags):
            image = f"0000139e-{number:04d}-{index:04d}" if "nabirds" in base.name else str(len(rows) + 1)
            rows.append((image, f"{folder.format(number, number)}/Bird_{number}_{index}.jpg", number, flag))
    for row, (_, path, number, _) in enumerate(rows):
        put(base / "images" / path, number, (20 + row % 3, 16))
    lines(base / "images.txt", [f"{image} {path}" for image, path, _, _ in rows])
    lines(base / "image_class_labels.txt", [f"{image} {number}" for image, _, number, _ in rows])
    lines(base / "train_test_split.txt", [f"{image} {flag}" for image, _, _, flag in rows])
    lines(base / "bounding_boxes.txt", [f"{row[0]} 2.0 {index % 3}.0 12.0 10.0" for index, row in enumerate(rows)])
    lines(base / "classes.txt", [f"{number} {folder.format(number, number)}" for number in class_ids])
    return base


def inat_category(number: int) -> dict[str, object]:
    """A category of the annotation files, with a made-up taxonomy."""
    kingdom = "Plantae" if number % 2 else "Animalia"
    return {"id": number, "name": f"Species {number}", "supercategory": kingdom, "kingdom": kingdom,
            "genus": f"Genus {number // 2}"}  # fmt: skip


def inaturalist(
    root: Path, version: str = "2018", category_ids: Sequence[int] = (0, 1, 2, 3), train: int = 3, test: int = 1
) -> Path:
    """One year of iNaturalist. Annotations stand in another order than images, so that zipping the two goes wrong."""
    base = root / f"inat{version[:4]}"
    files = {
        "2017": ("train2017.json", "val2017.json", "train_val_images", "train_val_images"),
        "2018": ("train2018.json", "val2018.json", "train_val2018", "train_val2018"),
        "2019": ("train2019.json", "val2019.json", "train_val2019", "train_val2019"),
        "2021": ("train.json", "val.json", "train", "val"),
        "2021_mini": ("train_mini.json", "val.json", "train_mini", "val"),
    }[version]
    for part, (file, folder, count) in enumerate([(files[0], files[2], train), (files[1], files[3], test)]):
        images, annotations = [], []
        for _ in range(count):
            for number in category_ids:
                image = 1_000_000 * part + 7 * len(images) + 3
                path = f"{folder}/{inat_category(number)['kingdom']}/{number}/{image}.jpg"
                put(base / path, number)
                images.append({"id": image, "width": 20, "height": 16, "file_name": path, "license": 0,
                               "latitude": float("nan")})  # fmt: skip
                annotations.append({"id": 10 * len(images), "image_id": image, "category_id": number})
        content = {
            "info": {"year": int(version[:4])},
            "images": images,
            "annotations": annotations[::-1],
            "categories": [inat_category(number) for number in category_ids],
            "licenses": [{"id": 0, "name": "", "url": ""}],
        }
        (base / file).write_text(json.dumps(content), encoding="utf-8")
    return base


def tiny_imagenet(root: Path, classes: int = 4, train: int = 3, test: int = 2) -> Path:
    """Tiny-ImageNet-200; ``wnids.txt`` is not sorted, as the official one is not."""
    base = root / "tiny-imagenet-200"
    wnids = [f"n{1_000_000 + 37 * number:08d}" for number in range(classes)]
    lines(base / "wnids.txt", wnids[1::2] + wnids[::2])
    lines(base / "words.txt", [f"{wnid}\tword {number}, other word" for number, wnid in enumerate(wnids)])
    annotations = []
    for number, wnid in enumerate(wnids):
        for index in range(train):
            put(base / "train" / wnid / "images" / f"{wnid}_{index}.JPEG", number, (64, 64))
    for _ in range(test):
        for number, wnid in enumerate(wnids):
            name = f"val_{len(annotations)}.JPEG"
            put(base / "val" / "images" / name, number, (64, 64))
            annotations.append(f"{name}\t{wnid}\t0\t32\t44\t62")
    lines(base / "val" / "val_annotations.txt", annotations)
    return base


def cars(root: Path, classes: int = 4, train: int = 3, test: int = 2) -> Path:
    """Stanford Cars in torchvision's layout."""
    from scipy.io import savemat

    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True, exist_ok=True)
    files = {"train": base / "devkit" / "cars_train_annos.mat", "test": base / "cars_test_annos_withlabels.mat"}
    for part, count in (("train", train), ("test", test)):
        kind = [("bbox_x1", "i4"), ("bbox_y1", "i4"), ("bbox_x2", "i4"), ("bbox_y2", "i4"), ("class", "i4"),
                ("fname", "O")]  # fmt: skip
        rows = []
        for index in range(classes * count):
            name = f"{index + 1:05d}.jpg"
            put(base / f"cars_{part}" / name, index % classes)
            rows.append((1, 2, 18, 14, index % classes + 1, name))
        savemat(files[part], {"annotations": np.array([rows], dtype=kind)[0].reshape(1, -1)})
    names = np.array([f"Maker Model {number} 2012" for number in range(classes)], dtype=object)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": names.reshape(1, -1)})
    return base


def aircraft(root: Path, classes: int = 4, train: int = 2, test: int = 2) -> Path:
    """FGVC-Aircraft; two variants belong to one family, all to one manufacturer."""
    base = root / "fgvc-aircraft-2013b"
    data = base / "data"
    names = {
        "variant": [f"Made-up {number}-100" for number in range(classes)],
        "family": [f"Made-up {number // 2} family" for number in range(classes)],
        "manufacturer": ["Made-up Works"] * classes,
    }
    for level, plural in (("variant", "variants"), ("family", "families"), ("manufacturer", "manufacturers")):
        lines(data / f"{plural}.txt", list(dict.fromkeys(names[level])))
    listed: dict[str, list[tuple[str, int]]] = {}
    for part, count in (("train", train), ("val", 1), ("test", test)):
        for index in range(classes * count):
            image = f"{len(listed)}{index:06d}"
            listed.setdefault(part, []).append((image, index % classes))
            put(data / "images" / f"{image}.jpg", index % classes)
    listed["trainval"] = listed["train"] + listed["val"]
    for part, rows in listed.items():
        for level in names:
            lines(data / f"images_{level}_{part}.txt", [f"{image} {names[level][number]}" for image, number in rows])
    return base


def online_products(root: Path, classes: int = 4, per_class: int = 3) -> Path:
    """Stanford Online Products; ``classes`` products train and as many others test."""
    base = root / "Stanford_Online_Products"
    image = 0
    for file, first in (("Ebay_train.txt", 1), ("Ebay_test.txt", classes + 1)):
        rows = ["image_id class_id super_class_id path"]
        for number in range(first, first + classes):
            for index in range(per_class):
                image += 1
                kind = ("bicycle", "sofa")[number % 2]
                path = f"{kind}_final/{110_000 + number}_{index}.JPG"
                put(base / path, number)
                rows.append(f"{image} {number} {number % 2 + 1} {path}")
        lines(base / file, rows)
    return base


def text_lists(root: Path, folder: str, lists: str, name: str, parts: Sequence[str], classes: int = 4) -> Path:
    """A data set of "path label" lists; its test images lie in one folder, as ILSVRC's validation images do."""
    for part in parts:
        rows = []
        for index in range(PER_CLASS[part] * classes):
            label = index % classes
            inner = "val" if part == "test" else f"train/n{label:08d}"
            path = f"{inner}/{part}_{index}.JPEG"
            put(root / folder / path, label)
            rows.append(f"{path} {label}")
        lines(root / lists / f"{name}_{part}.txt", rows)
    return root / folder


def imagenet_lt(root: Path) -> Path:
    return text_lists(root, "imagenet", "ImageNet_LT", "ImageNet_LT", ("train", "val", "test"))


def places_lt(root: Path) -> Path:
    return text_lists(root, "places365", "Places_LT", "Places_LT", ("train", "val", "test"))


def inat18_lists(root: Path) -> Path:
    return text_lists(root, "inat2018", "iNaturalist18", "iNaturalist18", ("train", "val"))


def folder(
    root: Path, parts: Sequence[str] = (), classes: Sequence[str] = ("cat", "dog", "eel"), each: int = 4
) -> Path:
    """User images: a folder per class, or the same in a folder for each of ``parts``."""
    base = root / "images"
    for part in parts or ("",):
        for number, class_name in enumerate(classes):
            for index in range(each):
                put(base / part / class_name / f"{part}{index}.jpg", number)
    return base


def table(root: Path, classes: Sequence[str] = ("cat", "dog", "eel"), each: int = 4) -> Path:
    """User images and their CSV."""
    rows = ["path,label"]
    for index in range(each):
        for number, class_name in enumerate(classes):
            path = f"photos/{class_name}-{index}.jpg"
            put(root / path, number)
            rows.append(f"{path},{class_name}")
    lines(root / "images.csv", rows)
    return root / "images.csv"


# what each config below conf/dataset reads from paths.data
TREES: dict[str, Callable[[Path], Path]] = {
    "cub": cub,
    "nabirds": nabirds,
    "inat17": lambda root: inaturalist(root, "2017"),
    "inat18": lambda root: inaturalist(root, "2018"),
    "inat19": lambda root: inaturalist(root, "2019"),
    "inat21": lambda root: inaturalist(root, "2021"),
    "inat21_mini": lambda root: inaturalist(root, "2021_mini"),
    "tiny_imagenet": tiny_imagenet,
    "cars": cars,
    "aircraft": aircraft,
    "sop": online_products,
    "imagenet_lt": imagenet_lt,
    "places_lt": places_lt,
    "inat18_lists": inat18_lists,
    "folder": folder,
    "folder_lt": folder,
    "table": table,
    "table_lt": table,
    "camera_traps": lambda root: camera_trap_files.write(root / "camera_traps"),
}


def draw_all(root: Path) -> Path:
    """All miniature data sets below ``root``."""
    for draw in TREES.values():
        draw(root)
    return root
