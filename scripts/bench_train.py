"""Training and evaluation speed of ltr against a bare PyTorch loop and against the usual pipeline, in one run.

Three sides, each in a process of its own, in turn, several rounds; the medians of the rounds are compared.

- ltr:   the whole `ltr-train` (its epochs' cost is the difference between a long and a short run, so that logging,
         checkpoints and everything else at an epoch's end are counted).
- bare:  a plain loop: the same network, precision, memory format and augmentation, fed from one tensor in memory.
- usual: DataLoader workers, PIL transforms, fp32, NCHW, a LightningModule that logs at every step.

    python scripts/bench_train.py --data /path/to/cifar        # CIFAR-10-LT
    python scripts/bench_train.py --data /path/to/cifar --only evaluate --batches 8    # a minute
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
BATCH = 128
WHAT = ("train", "evaluate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar-10-batches-py")
    parser.add_argument("--batches", type=int, default=40, help="batches per epoch (97 is all of CIFAR-10-LT)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 2, help="worker processes of the usual pipeline"
    )
    parser.add_argument("--only", choices=WHAT, help="measure this alone (default: both)")
    parser.add_argument("--side", choices=("ltr", "bare", "usual"), help="run one side and print its figures as JSON")
    arguments = parser.parse_args()
    if arguments.side:
        side = {"ltr": ltr_side, "bare": bare_side, "usual": usual_side}[arguments.side]
        figures = side(arguments)
        figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("FIGURES " + json.dumps(figures))
        return
    rounds: dict[str, list[dict[str, float]]] = {"ltr": [], "bare": [], "usual": []}
    for _ in range(arguments.rounds):
        for side_name, samples in rounds.items():
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--side", side_name],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                sys.exit(done.stdout + done.stderr)
            samples.append(json.loads(done.stdout.rsplit("FIGURES ", 1)[1]))
    report(rounds, [arguments.only] if arguments.only else WHAT)


def report(rounds: dict[str, list[dict[str, float]]], measured: Sequence[str]) -> None:
    """Print medians, and ltr's ratios to the other sides."""
    import torch

    middle = {
        side: {key: statistics.median(samples[key] for samples in founds) for key in founds[0]}
        for side, founds in rounds.items()
    }
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"ResNet-32, batch {BATCH}, {device}, torch {torch.__version__}, median of {len(rounds['ltr'])} rounds")
    for side, figures in middle.items():
        shown = {key: value for key, value in figures.items() if key in (*measured, "peak_mb")}
        print(f"  {side:<6} " + "  ".join(f"{key} {value:8.1f}" for key, value in shown.items()))
    ltr, bare, usual = middle["ltr"], middle["bare"], middle["usual"]
    for what in measured:
        print(f"{what + ':':<10} ltr / bare {ltr[what] / bare[what]:.2f}   ltr / usual {ltr[what] / usual[what]:.2f}")
    print(f"memory:    ltr / bare {ltr['peak_mb'] / bare['peak_mb']:.2f} (the whole process)")


def pixels(arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return images and labels of training, then of the test."""
    from ltr.data.sources.cifar import cifar10
    from ltr.data.splitting.closed_set import long_tail

    source = cifar10(root=str(arguments.data))
    split = long_tail(source, imbalance_factor=100)
    assert isinstance(source.images, np.ndarray)
    images, labels = source.images, source.labels
    return images[split.train], labels[split.train], images[split.test], labels[split.test]


def network() -> Any:
    """Return the same ResNet-32 for all sides."""
    from torch import nn

    from ltr.models.cifar_resnet import CifarResNet
    from ltr.models.heads import LinearHead

    backbone = CifarResNet(3, depth=32)
    return nn.Sequential(backbone, LinearHead(backbone.num_features, 10))


def ltr_side(arguments: argparse.Namespace) -> dict[str, float]:
    """Return images/s of whole training epochs, from the difference of a four-epoch and a one-epoch run."""
    import ltr

    with tempfile.TemporaryDirectory() as folder:
        common = [
            "dataset=cifar10_lt", f"paths.data={arguments.data}", f"paths.outputs={folder}", "scheduler=constant",
            f"trainer.limit_train_batches={arguments.batches}", "callbacks.progress=none", "figures=none",
        ]  # fmt: skip
        seconds = {}
        for epochs in (1,) if arguments.only == "evaluate" else (1, 4):
            started = time.perf_counter()
            outcome = ltr.train([*common, f"trainer.max_epochs={epochs}"], quiet=True)
            seconds[epochs] = time.perf_counter() - started
        model = ltr.load(outcome.directory)
    figures = {"evaluate": evaluation_rate(arguments, model)} if arguments.only != "train" else {}
    if 4 in seconds:
        figures["train"] = 3 * arguments.batches * BATCH / (seconds[4] - seconds[1])
    return figures


def evaluation_rate(arguments: argparse.Namespace, model: Any) -> float:
    """Return images/s of ltr's evaluation with its protocol, from loader to metrics."""
    from ltr.configuration.targets import instantiate
    from ltr.data.module import DataModule
    from ltr.data.sources.cifar import cifar10
    from ltr.data.splitting.closed_set import long_tail
    from ltr.evaluation.closed_set import ClosedSet
    from ltr.runs.evaluation.network import evaluate

    source = cifar10(root=str(arguments.data))
    split = long_tail(source, imbalance_factor=100)
    data = DataModule(
        source, split, sampler=instantiate({"_target_": "ltr.data.sampling.samplers.Instance"}), augment=None,
        batch_size=BATCH, eval_batch_size=250, seed=0, role="bench", epochs=1, device=model.device,
    )  # fmt: skip

    def protocols(link: str, keep: bool) -> list[ClosedSet]:
        return [ClosedSet(split.class_counts, device=model.device, keep_predictions=keep)]

    best = float("inf")
    for _ in range(2):
        started = time.perf_counter()
        loader = data.evaluation_loader("test")
        evaluate(model.network, {"test": loader}, protocols, model.device, model.precision)
        best = min(best, time.perf_counter() - started)
    return len(split.test) / best


def bare_side(arguments: argparse.Namespace) -> dict[str, float]:
    """Train by a plain loop on tensors in memory."""
    import torch
    from torch.nn.functional import cross_entropy, pad

    from ltr.runs.processes.device import has_bf16_units

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bf16 = has_bf16_units(device)
    images, labels, test_images, test_labels = (torch.from_numpy(array).to(device) for array in pixels(arguments))
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) * 255 for v in (MEAN, STD))
    torch.manual_seed(0)
    model = network().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4, fused=True)

    def prepare(batch: torch.Tensor) -> torch.Tensor:
        return (batch.permute(0, 3, 1, 2).float() - mean) / std

    def augmented(batch: torch.Tensor) -> torch.Tensor:
        size = len(batch)
        windows = pad(batch, (0, 0, 4, 4, 4, 4)).unfold(1, 32, 1).unfold(2, 32, 1)  # [B, 9, 9, C, 32, 32]
        shift = torch.randint(0, 9, (2, size), device=device)
        cut = windows[torch.arange(size, device=device), shift[0], shift[1]].permute(0, 2, 3, 1)
        flip = torch.rand(size, device=device) < 0.5
        return torch.where(flip.view(-1, 1, 1, 1), cut.flip(2), cut)

    def epoch() -> None:
        order = torch.randperm(len(images), device=device)
        for step in range(arguments.batches):
            chosen = order[step * BATCH % len(order) :][:BATCH]
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = cross_entropy(model(prepare(augmented(images[chosen]))), labels[chosen])
            loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    epoch()
    started = time.perf_counter()
    for _ in range(3):
        epoch()
    train = 3 * arguments.batches * BATCH / (time.perf_counter() - started)
    if arguments.only == "train":
        return {"train": train}
    model.eval()
    best = float("inf")
    for _ in range(2):
        started = time.perf_counter()
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            correct = sum(
                (model(prepare(x)).argmax(1) == y).sum() for x, y in zip(test_images.split(250), test_labels.split(250))
            )
        float(correct)
        best = min(best, time.perf_counter() - started)
    return {"train": train, "evaluate": len(test_images) / best}


def usual_side(arguments: argparse.Namespace) -> dict[str, float]:
    """Train as most code for these papers does: PIL transforms in workers, fp32, a log call per step."""
    import logging
    import warnings

    import pytorch_lightning as pl
    import torch
    from PIL import Image
    from torch.nn.functional import cross_entropy
    from torch.utils.data import DataLoader, Dataset
    from torchmetrics.classification import MulticlassAccuracy
    from torchvision import transforms

    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    images, labels, test_images, test_labels = pixels(arguments)
    tail = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    augment = transforms.Compose([transforms.RandomCrop(32, 4), transforms.RandomHorizontalFlip(), *tail])

    class Images(Dataset):
        def __init__(self, pixels: np.ndarray, labels: np.ndarray, transform: Any) -> None:
            self.pixels, self.labels, self.transform = pixels, labels, transform

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            return self.transform(Image.fromarray(self.pixels[index])), int(self.labels[index])

    class Usual(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = network()
            self.accuracy = MulticlassAccuracy(10, average="micro")
            self.times: list[float] = []

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            loss = cross_entropy(self.model(batch[0]), batch[1])
            self.log("train/loss", loss)
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            self.accuracy.update(self.model(batch[0]), batch[1])

        def on_train_epoch_start(self) -> None:
            self.times.append(time.perf_counter())

        def on_train_end(self) -> None:
            self.times.append(time.perf_counter())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4)

    train_loader = DataLoader(
        Images(images, labels, augment), BATCH, shuffle=True, num_workers=arguments.workers, persistent_workers=True
    )
    test_loader = DataLoader(
        Images(test_images, test_labels, transforms.Compose(tail)), BATCH, num_workers=arguments.workers,
        persistent_workers=True,
    )  # fmt: skip
    module = Usual()
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=3, limit_train_batches=arguments.batches, limit_val_batches=0, default_root_dir=folder,
            enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False, devices=1,
        )  # fmt: skip
        trainer.fit(module, train_loader)
        train = 2 * arguments.batches * BATCH / (module.times[3] - module.times[1])
        if arguments.only == "train":
            return {"train": train}
        evaluate = pl.Trainer(
            default_root_dir=folder, enable_model_summary=False, enable_progress_bar=False, logger=False, devices=1
        )
        best = float("inf")
        for _ in range(2):
            started = time.perf_counter()
            evaluate.validate(module, test_loader, verbose=False)
            best = min(best, time.perf_counter() - started)
    return {"train": train, "evaluate": len(test_images) / best}


if __name__ == "__main__":
    main()
