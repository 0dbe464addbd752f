"""Images per second of ltr-predict against evaluation on the same files, alternating in one process.

    python scripts/bench_predict.py [--images 600] [--side 64] [--workers 0] [--rounds 5]

A ResNet-18 is given a folder of made-up JPEGs. Evaluation reads them with `FileLoader` and counts with `ClosedSet`, as
ltr-eval does; prediction writes a CSV. The ratio of the medians is to be 0.95 or more.
On a busy machine the seconds of CPU say more (with --workers 0: those of decoding processes are not in them).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ltr.apply.model import Model, load_model
from ltr.apply.pool import image_pool
from ltr.apply.predict import predict_files
from ltr.cli import train_main
from ltr.data.loaders.files import FileLoader
from ltr.data.source import ImageFiles
from ltr.evaluation.closed_set import ClosedSet
from ltr.runs.evaluation.network import evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--side", type=int, default=64, help="side of the network's input in pixels")
    parser.add_argument("--workers", type=int, default=0, help="decoding processes, for both sides")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        draw(folder / "images", arguments.images)
        checkpoint = trained(folder, arguments.side)
        model = load_model(checkpoint, workers=arguments.workers)
        files = image_pool(folder / "images")
        times: dict[str, list[float]] = {"evaluation": [], "ltr-predict": []}
        spent: dict[str, list[float]] = {"evaluation": [], "ltr-predict": []}
        for turn in range(arguments.rounds + 1):
            for name, task in (("evaluation", evaluation), ("ltr-predict", prediction)):
                start, cpu = time.perf_counter(), time.process_time()
                task(model, files, folder)
                if turn:  # the first round fills the file cache
                    times[name].append(time.perf_counter() - start)
                    spent[name].append(time.process_time() - cpu)
    rates = {name: arguments.images / float(np.median(samples)) for name, samples in times.items()}
    print(
        f"{arguments.images:,} JPEGs of 320 x 240, ResNet-18 at {arguments.side} px, {model.device}, "
        f"{model.precision}, {arguments.workers} workers, {arguments.threads} threads"
    )
    for name, rate in rates.items():
        print(f"  {name:<12} {rate:9,.1f} images/s, {np.median(spent[name]):7.2f} s of CPU")
    pairs = [one / two for one, two in zip(times["evaluation"], times["ltr-predict"])]
    print(
        f"  ratio of the medians {rates['ltr-predict'] / rates['evaluation']:.3f}, round by round {np.round(pairs, 3)}"
    )


def draw(folder: Path, images: int) -> None:
    """Write two classes of structured JPEGs."""
    random = np.random.default_rng(0)
    for number in range(images):
        path = folder / f"class{number % 2}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = random.integers(0, 256, (15, 20, 3), dtype=np.uint8)
        Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC).save(path, quality=90)


def trained(folder: Path, side: int) -> Path:
    """Train weights for one step; speed does not depend on accuracy."""
    overrides = [
        "dataset=folder", f"dataset.root={folder / 'images'}", f"dataset.image_size={side}",
        "backbone.name=resnet18", "backbone.weights=null", "trainer.max_epochs=1", "trainer.limit_train_batches=1",
        "batch_size=8", "scheduler=constant", "figures=none", "callbacks.progress=none",
        f"paths.outputs={folder / 'outputs'}", "evaluation.batch_size=125",
    ]  # fmt: skip
    if train_main(overrides):
        raise SystemExit("the network could not be made")
    return next((folder / "outputs").glob("*/*/*/checkpoints/final.ckpt"))


def evaluation(model: Model, files: ImageFiles, folder: Path) -> None:
    labels = torch.zeros(len(files), dtype=torch.int64, device=model.device)
    loader = FileLoader(
        files,
        labels,
        crop=model.crop,
        device=model.device,
        order=lambda epoch: np.arange(len(files)),
        batch_size=model.batch_size,
        num_workers=model.workers,
    )
    counts = np.asarray(model.class_counts)
    evaluate(
        model.network,
        {"test": loader},
        lambda link, keep: [ClosedSet(counts, link=link, keep_predictions=keep, device=model.device)],
        model.device,
        model.precision,
    )


def prediction(model: Model, files: ImageFiles, folder: Path) -> None:
    predict_files(model, files, folder / "predictions.csv")


if __name__ == "__main__":
    main()
