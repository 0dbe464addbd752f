"""Time of a training step in bf16 against fp32, alternating in one process.

python scripts/bench_step.py --rounds 7
"""

from __future__ import annotations

import argparse
import statistics
import time

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
    arguments = parser.parse_args()
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


if __name__ == "__main__":
    main()
