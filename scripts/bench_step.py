"""Time of a training step: in bf16 against fp32; with --host, of `ltr-train` on the digits against a bare loop.

    python scripts/bench_step.py --rounds 7
    OMP_NUM_THREADS=1 python scripts/bench_step.py --host

The sides alternate in one process. With --host, processor time counts: a step of `ltr-train` is the difference of a
long and a short run, with everything that happens at the ends of epochs; once with a network that computes nothing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from ltr.configuration.configs import read_config, without_private
from ltr.configuration.targets import instantiate
from ltr.runs.processes.device import autocast, device_name, has_bf16_units, keep_freed_memory

BATCH, CLASSES = 128, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--backbone", default="resnet32", help="config of the group backbone")
    parser.add_argument("--size", type=int, default=32, help="side of the images in pixels")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5, help="steps per precision and round")
    parser.add_argument("--host", action="store_true", help="ltr-train on the digits against a bare loop")
    arguments = parser.parse_args()
    if arguments.host:
        host(arguments.rounds)
        return
    device = torch.device(arguments.device)
    keep_freed_memory()
    backbone = instantiate(without_private(read_config(f"backbone/{arguments.backbone}")), 3)
    network = torch.nn.Sequential(backbone, torch.nn.Linear(backbone.num_features, CLASSES))
    network.to(device)
    backbone.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    images = torch.randn(BATCH, 3, arguments.size, arguments.size, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (BATCH,), device=device)

    def seconds(precision: str) -> float:
        started = time.perf_counter()
        for _ in range(arguments.steps):
            with autocast(device, precision):
                logits = network(images)
            functional.cross_entropy(logits.float(), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / arguments.steps

    samples: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for precision in samples:
        seconds(precision)  # the first steps choose kernels
    for _ in range(arguments.rounds):
        for precision, times in samples.items():
            times.append(seconds(precision))
    for precision, times in samples.items():
        rates = sorted(BATCH / one for one in times)
        print(f"{precision}: {statistics.median(rates):.0f} images/s ({rates[0]:.0f} to {rates[-1]:.0f})")
    ratios = sorted(a / b for a, b in zip(samples["fp32"], samples["bf16"]))
    print(
        f"bf16 / fp32: {statistics.median(ratios):.2f} times ({ratios[0]:.2f} to {ratios[-1]:.2f}), "
        f"{arguments.rounds} rounds, {device_name(device)}; trainer.precision=auto is "
        f"{'bf16' if has_bf16_units(device) else 'fp32'} here"
    )


SHORT, LONG, STEPS_PER_EPOCH = 5, 65, 8


def host(rounds: int) -> None:
    """Print the processor time of a step of the bare loop, of `ltr-train`, and of `ltr-train` without a network."""
    from ltr.methods.core.network import ImageClassifier

    step = ImageClassifier.training_step

    def empty_step(network: ImageClassifier, batch: Any, index: int) -> dict[str, torch.Tensor]:
        loss = network.head.weight.flatten()[0] * 0
        return {"loss": loss, "correct": loss.detach()}

    def without_network() -> float:
        setattr(ImageClassifier, "training_step", empty_step)  # noqa: B010
        try:
            return ltr_step()
        finally:
            setattr(ImageClassifier, "training_step", step)  # noqa: B010

    sides: dict[str, Callable[[], float]] = {
        "bare loop": bare_step,
        "ltr-train": ltr_step,
        "ltr-train without a network": without_network,
    }
    for side in sides.values():
        side()
    samples: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            samples[name].append(1000 * side())
    for name, times in samples.items():
        print(f"{name:<28} {statistics.median(times):.2f} ms a step ({min(times):.2f} to {max(times):.2f})")
    ratios = sorted(whole / bare for whole, bare in zip(samples["ltr-train"], samples["bare loop"]))
    print(
        f"ltr-train / bare loop: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), "
        f"{rounds} rounds, {torch.get_num_threads()} threads"
    )


def ltr_step() -> float:
    """Return the processor seconds of a step of `ltr-train` on the digits."""
    import ltr

    seconds = []
    for epochs in (SHORT, LONG):
        with tempfile.TemporaryDirectory() as folder:
            started = time.process_time()
            ltr.train([f"paths.outputs={folder}", f"trainer.max_epochs={epochs}", "figures=none"], quiet=True)
            seconds.append(time.process_time() - started)
    return (seconds[1] - seconds[0]) / ((LONG - SHORT) * STEPS_PER_EPOCH)


def bare_step() -> float:
    """Return the processor seconds of a step of a bare loop: the same network, precision and augmentation."""
    from ltr.api import config as resolved
    from ltr.data.source import ImageFiles
    from ltr.data.sources.digits import digits

    chosen = resolved([])
    device = torch.device("cpu")
    source = digits()
    assert not isinstance(source.images, ImageFiles)
    pixels = torch.tensor(source.images[:500]).permute(0, 3, 1, 2)
    labels = torch.tensor(source.labels[:500])
    backbone = instantiate(without_private(chosen["backbone"]), 1)
    network = torch.nn.Sequential(backbone, torch.nn.Linear(backbone.num_features, 10))
    backbone.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, fused=True)
    pad = chosen["augment"]["pad"]
    precision = "bf16" if has_bf16_units(device) else "fp32"
    size, batch = pixels.shape[-1], chosen["batch_size"]

    def epoch() -> None:
        order = torch.randperm(len(pixels))
        for rows in order.split(batch):
            images = functional.pad(pixels[rows], (pad,) * 4) if pad else pixels[rows]
            windows = images.unfold(2, size, 1).unfold(3, size, 1)
            shift = torch.randint(0, 2 * pad + 1, (2, len(rows)))
            cut = windows[torch.arange(len(rows)), :, shift[0], shift[1]]
            with autocast(device, precision):
                logits = network((cut.float() / 255 - 0.3) / 0.35)
            loss = functional.cross_entropy(logits.float(), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    network.train()
    epoch()
    started = time.process_time()
    for _ in range(LONG - SHORT):
        epoch()
    return (time.process_time() - started) / ((LONG - SHORT) * STEPS_PER_EPOCH)


if __name__ == "__main__":
    main()
