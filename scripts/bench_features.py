"""Measure stored features: extraction against the backbone's bare inference, and a stored epoch against an image epoch.

    python scripts/bench_features.py --backbone tf_efficientnet_lite0 --size 96 --images 640

Images are random arrays in memory, weights are random, times are those of the process on one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ltr.data.loaders.device import DeviceLoader, ResidentImages
from ltr.data.loaders.feature_table import FeatureTable, fill
from ltr.data.loaders.features import FeatureLoader
from ltr.models.timm_backbone import TimmBackbone
from ltr.runs.processes.device import autocast

BATCH, CLASSES, CPU = 64, 100, torch.device("cpu")


def seconds(work: Callable[[], object]) -> float:
    """Return the processor time of a call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="timm model")
    parser.add_argument("--size", type=int, default=96, help="side of the images in pixels")
    parser.add_argument("--images", type=int, default=640, help="number of images, a multiple of 64")
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
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

    with tempfile.TemporaryDirectory() as folder, autocast(CPU, arguments.precision):
        table = FeatureTable(Path(folder), arguments.images, backbone.num_features)
        with torch.inference_mode():
            bare()
            inference = seconds(bare)
            extraction = seconds(lambda: fill(table, order, batches, BATCH))
        by_images = DeviceLoader(images, labels, order=lambda epoch: order, batch_size=BATCH)
        stored = FeatureLoader([table], labels, device=CPU, order=lambda epoch: order, batch_size=BATCH)
        image_epoch = seconds(lambda: train(of_images, by_images))
        stored_epoch = min(seconds(lambda: train(lambda batch: batch, stored)) for _ in range(3))
    print(f"bare inference     {arguments.images / inference:8,.0f} images/s")
    print(f"extraction         {arguments.images / extraction:8,.0f} images/s, {inference / extraction:.1%} of it")
    print(f"image epoch        {image_epoch:8.3f} s")
    print(f"stored epoch       {stored_epoch:8.3f} s, {image_epoch / stored_epoch:,.0f} times faster")


if __name__ == "__main__":
    main()
