"""Cost of M2m's generated images: ratios of alternating measurements in one run.

    python scripts/bench_m2m.py
    python scripts/bench_m2m.py --device cuda --precision bf16 --rounds 50

- step:     a training step with generation against the sum of its parts, timed apart: the same step without, and T
            times a forward and an input-gradient backward of as many images through both networks, in float32. At most
            1.15.
- gradient: the gradient of the pixels alone against that of pixels and weights, both networks. Below 1.
- erm:      for the record, a step with generation against a step without.

ResNet-32 on random 32x32 images with the class counts of CIFAR-10-LT (imbalance factor 100) and class-balanced batches.
A line is the median of the rounds' ratios, with the least and the largest. On a CPU the process's own CPU time is
measured, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from ltr.configuration.overrides import load_config
from ltr.configuration.targets import instantiate
from ltr.data.batch import Batch
from ltr.methods.core import generation
from ltr.methods.core.settings import DatasetInfo
from ltr.methods.core.stage import StageOutput
from ltr.methods.m2m.network import M2mClassifier
from ltr.runs.plan import main_settings
from ltr.runs.processes.device import autocast
from timing import seconds

COUNTS = tuple(int(5000 * 100 ** (-i / 9)) for i in range(10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="precision of the training step")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="number of CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    # untrained networks saturate, and gradients below 1e-38, which a CPU is slow with, are no part of the question
    torch.set_flush_denormal(True)
    device = torch.device(arguments.device)
    network = m2m_network(device)
    batch = balanced_batch(arguments.batch, device)
    slots = slots_of(network, batch)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {arguments.threads} thread(s)"
    print(
        f"batch {arguments.batch}, {slots} images made, T = {network.options['steps']}, {name}, {arguments.precision}"
    )
    optimizer, _ = network.optimisation(100)

    def step(generating: bool) -> Callable[[], None]:
        def once() -> None:
            network.generating = generating
            optimizer.zero_grad()
            with autocast(device, arguments.precision):
                loss = network.training_step(batch, 0)["loss"]
            loss.backward()
            optimizer.step()

        return once

    images = network.to_unit(batch.images)[:slots].contiguous(memory_format=torch.channels_last)
    pixels, everything = (gradients(network, images, batch.labels[:slots], weights) for weights in (False, True))
    t = network.options["steps"]
    kinds = {"whole": (step(True), 1), "plain": (step(False), 1), "pixels": (pixels, t), "everything": (everything, t)}
    samples: dict[str, list[float]] = {"step": [], "gradient": [], "erm": []}
    for turn in range(arguments.rounds + 1):
        taken = {name: seconds(once, device, times) for name, (once, times) in kinds.items()}
        if turn:  # the first round warms up
            samples["step"].append(taken["whole"] / (taken["plain"] + taken["pixels"]))
            samples["gradient"].append(taken["pixels"] / taken["everything"])
            samples["erm"].append(taken["whole"] / taken["plain"])
    for name, ratios in samples.items():
        print(f"{name:<9} {statistics.median(ratios):6.3f}   ({min(ratios):.3f} to {max(ratios):.3f})")


def m2m_network(device: torch.device) -> M2mClassifier:
    """Return f of the config in its deferred part, with an untrained g; the cost does not depend on the weights."""
    config = load_config(["experiment=cifar10_lt_m2m"])
    method = instantiate(config["method"])
    dataset_info = DatasetInfo((3, 32, 32), (0.5,) * 3, (0.25,) * 3, tuple(map(str, range(10))), COUNTS)
    first, second = method.stages(main_settings(config, "fp32", method), dataset_info)
    g = first.network(dataset_info, 0)
    parents = {"generator": StageOutput("generator", "", lambda: g)}
    f = second.network(dataset_info, 0, parents)
    f.to(device).train()
    f.start_epoch(second.settings.epochs - 1)
    return f


def balanced_batch(size: int, device: torch.device) -> Batch:
    """Return random pixels with equally frequent classes."""
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (size, 32, 32, 3), dtype=torch.uint8, generator=random).to(device)
    labels = torch.randperm(size, generator=random).to(device) % 10
    return Batch(pixels.permute(0, 3, 1, 2), labels, torch.arange(size, device=device))


def slots_of(network: M2mClassifier, batch: Batch) -> int:
    """Return the number of images that a step of this batch generates."""
    shares = network.training_step(batch, 0)["logs"]
    names = ("accepted", "rejected_by_confidence", "rejected_by_chance")
    return round(sum(shares[name].item() for name in names) * len(batch.labels))


def gradients(network: M2mClassifier, images: Tensor, labels: Tensor, weights: bool) -> Callable[[], None]:
    """Run one forward and backward pass through both networks, for pixels alone or also for weights."""
    g, f = network.generator, network
    objective = generation.towards_and_away(g, f.forward, labels, labels, 0.5)
    modules = (f.backbone, f.head)

    def alone() -> None:
        with generation.frozen(*modules):
            pixels = images.detach().requires_grad_(True)
            torch.autograd.grad(objective(pixels).sum(), pixels)

    def together() -> None:
        modes = [(part, part.training) for part in network.modules()]
        network.eval()
        g.requires_grad_(True)
        pixels = images.detach().requires_grad_(True)
        all_weights = [*g.parameters(), *f.backbone.parameters(), *f.head.parameters()]
        torch.autograd.grad(objective(pixels).sum(), [pixels, *all_weights])
        g.requires_grad_(False)
        for part, training in modes:
            part.training = training

    return together if weights else alone


if __name__ == "__main__":
    main()
