"""Measure stored features: extraction against the backbone's bare inference, and a stored epoch against an image epoch.

    python scripts/bench_features.py --backbone tf_efficientnet_lite0 --size 96 --images 640

Images are random arrays in memory, and JPEG files (``--file-side``) of smooth random colours that are decoded in the
process. Weights are random, times are those of the process on one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ltr.data.images.crop import FileCrop
from ltr.data.loaders.device import DeviceLoader, ResidentImages
from ltr.data.loaders.feature_table import FeatureTable, fill
from ltr.data.loaders.features import FeatureLoader
from ltr.data.loaders.files import FileLoader
from ltr.data.source import ImageFiles
from ltr.models.timm_backbone import TimmBackbone
from ltr.runs.processes.device import autocast

BATCH, CLASSES, ROUNDS, CPU = 64, 100, 3, torch.device("cpu")


def seconds(work: Callable[[], object]) -> float:
    """Return the processor time of a call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def write_files(folder: Path, number: int, side: int) -> ImageFiles:
    """Write JPEG files of ``side`` x 3/4 ``side`` pixels whose content costs about as much as a photo's to decode."""
    random = np.random.default_rng(1)
    names = [f"{index}.jpg" for index in range(number)]
    for name in names:
        small = Image.fromarray(random.integers(0, 256, (side // 16, side // 12, 3), dtype=np.uint8))
        small.resize((side, side * 3 // 4), Image.Resampling.BICUBIC).save(folder / name, quality=90)
    return ImageFiles.from_paths(folder, names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="timm model")
    parser.add_argument("--size", type=int, default=96, help="side of the images in pixels")
    parser.add_argument("--images", type=int, default=640, help="number of images, a multiple of 64")
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--file-side", type=int, default=500, help="longer side of the image files, 4:3 (default: 500)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    backbone = TimmBackbone(3, name=arguments.backbone).eval().requires_grad_(False)
    backbone.to(memory_format=torch.channels_last)
    shape = (arguments.images, arguments.size, arguments.size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images, labels = ResidentImages(pixels), torch.arange(arguments.images) % CLASSES
    order = np.arange(arguments.images)
    head = torch.nn.Linear(backbone.num_features, CLASSES)
    optimizer = torch.optim.AdamW(head.parameters())

    def bare() -> None:
        batch = images.take(torch.arange(BATCH)).float()
        for _ in range(arguments.images // BATCH):
            backbone(batch)

    def batches(indices: np.ndarray):
        for batch in DeviceLoader(images, labels, order=lambda epoch: indices, batch_size=BATCH):
            yield backbone(batch.images.float().mul_(1 / 255)).float().numpy()

    def train(features: Callable[[torch.Tensor], torch.Tensor], loader: object) -> None:
        for batch in loader:  # type: ignore[attr-defined]
            loss = torch.nn.functional.cross_entropy(head(features(batch.images)), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def of_images(batch: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return backbone(batch.float().mul_(1 / 255)).float()

    def extracted(folder: Path, read: Callable[[np.ndarray], Iterator[np.ndarray]]) -> float:
        table = FeatureTable(folder, arguments.images, backbone.num_features)
        return seconds(lambda: fill(table, order, read, BATCH))

    ways: dict[str, list[float]] = {name: [] for name in ("bare", "arrays", "decoding", "files")}
    with tempfile.TemporaryDirectory() as temporary, autocast(CPU, arguments.precision):
        folder = Path(temporary)
        files = write_files(folder, arguments.images, arguments.file_side)
        crop = FileCrop(arguments.size)

        def of_files(indices: np.ndarray) -> FileLoader:
            return FileLoader(
                files,
                labels,
                crop=crop,
                device=CPU,
                order=lambda epoch: indices,
                length=len(indices),
                batch_size=BATCH,
            )

        def file_batches(indices: np.ndarray):
            for batch in of_files(indices):
                yield backbone(batch.images.float().mul_(1 / 255)).float().numpy()

        with torch.inference_mode():
            bare()
            for number in range(ROUNDS):  # in turn, so that a busy machine slows all of them down
                ways["bare"].append(seconds(bare))
                ways["arrays"].append(extracted(folder / f"arrays {number}", batches))
                ways["decoding"].append(seconds(lambda: [len(batch.images) for batch in of_files(order)]))
                ways["files"].append(extracted(folder / f"files {number}", file_batches))
            table = FeatureTable(folder / "arrays 0", arguments.images, backbone.num_features)
        by_images = DeviceLoader(images, labels, order=lambda epoch: order, batch_size=BATCH)
        stored = FeatureLoader([table], labels, device=CPU, order=lambda epoch: order, batch_size=BATCH)
        image_epoch = seconds(lambda: train(of_images, by_images))
        stored_epoch = min(seconds(lambda: train(lambda batch: batch, stored)) for _ in range(3))
    inference, extraction, decoding, from_files = (min(times) for times in ways.values())
    print(f"bare inference     {arguments.images / inference:8,.0f} images/s")
    print(f"extraction         {arguments.images / extraction:8,.0f} images/s, {inference / extraction:.1%} of it")
    print(f"decoding           {arguments.images / decoding:8,.0f} images/s")
    whole = inference + decoding
    print(f"extraction, files  {arguments.images / from_files:8,.0f} images/s, {inference / from_files:.1%} of bare")
    print(f"                   inference, {whole / from_files:.1%} of bare inference after decoding")
    print(f"image epoch        {image_epoch:8.3f} s")
    print(f"stored epoch       {stored_epoch:8.3f} s, {image_epoch / stored_epoch:,.0f} times faster")


if __name__ == "__main__":
    main()
