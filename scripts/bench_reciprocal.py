"""Cost of a training step with class points: ratios to a step of ERM on the same backbone, in one run.

    python scripts/bench_reciprocal.py                      # classifier32, 32 pixels, batch 64, and digits_net
    python scripts/bench_reciprocal.py --classes 1000       # with many classes
    python scripts/bench_reciprocal.py --device cuda

A step is forward, loss, backward and the optimiser's update, as the trainer does them; the steps of the methods take
turns, so that what else the machine does hits all of them alike, and the ratio is that of the medians of the rounds. On
a CPU it is CPU time, on a GPU wall time. RPL: at most 1.05.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ltr.configuration.configs import read_config, without_private
from ltr.configuration.targets import instantiate
from ltr.data.batch import Batch
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.runs.processes.device import autocast, has_bf16_units, keep_freed_memory
from timing import seconds

METHODS = ("erm", "rpl", "rpl_pp", "arpl", "gcpl", "arpl_cs")
SHAPES = {"classifier32": (3, 32, 32), "digits_net": (1, 8, 8)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=tuple(SHAPES), nargs="*", default=list(SHAPES))
    parser.add_argument("--methods", choices=METHODS, nargs="*", default=list(METHODS[:-1]))
    parser.add_argument("--classes", type=int, default=6)
    parser.add_argument("--points", type=int, default=1, help="points per class M")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=4, help="steps per round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), help="precision (default: bf16 if the device supports it)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    if device.type == "cpu":
        keep_freed_memory()
    precision = arguments.precision or ("bf16" if has_bf16_units(device) else "fp32")
    where = f"CPU, {arguments.threads} threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
    print(f"batch {arguments.batch}, {arguments.classes} classes, M = {arguments.points}, {precision}, {where}")
    for backbone in arguments.backbone:
        report(backbone, arguments, device, precision)


def report(backbone: str, arguments: argparse.Namespace, device: torch.device, precision: str) -> None:
    """Print medians of the rounds, and their ratios to ERM's."""
    steps = {
        name: step_of(name, backbone, arguments, device, precision)
        for name in dict.fromkeys(["erm", *arguments.methods])
    }
    samples: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(arguments.rounds + 1):
        for name, step in steps.items():
            taken = seconds(step, device, arguments.steps)
            if turn:  # the first round warms up
                samples[name].append(taken / arguments.steps)
    erm = samples["erm"]
    for name, times in samples.items():
        ratio = statistics.median(times) / statistics.median(erm)
        paired = statistics.median(value / reference for value, reference in zip(times, erm))
        print(
            f"  {backbone:<13} {name:<8} {1000 * statistics.median(times):8.2f} ms   ratio to erm {ratio:.3f}"
            f"   (round by round {paired:.3f})"
        )


def step_of(
    name: str, backbone: str, arguments: argparse.Namespace, device: torch.device, precision: str
) -> Callable[[], None]:
    """Return one training step of a method on random images."""
    shape, classes = SHAPES[backbone], arguments.classes
    dataset_info = DatasetInfo(
        image_shape=shape,
        mean=(0.5,) * shape[0],
        std=(0.25,) * shape[0],
        class_names=tuple(str(label) for label in range(classes)),
        class_counts=(100,) * classes,
    )
    config = without_private(method_config(name))
    if "num_points" in config:
        config["num_points"] = arguments.points
    stage = instantiate(config).stages(settings(backbone, arguments.batch, precision), dataset_info)[0]
    network = stage.network(dataset_info, 0).to(device).train()
    network.start_epoch(0)
    optimizer, _ = network.optimisation(100)
    drawn = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (arguments.batch, *shape), dtype=torch.uint8, generator=drawn)
    labels = torch.randint(0, classes, (arguments.batch,), generator=drawn)
    batch = Batch(
        images.to(device, memory_format=torch.channels_last),
        labels.to(device),
        torch.arange(len(labels), device=device),
    )
    if not network.automatic_optimization:
        lend_a_trainer(network, optimizer)

    def step() -> None:
        if not network.automatic_optimization:
            with autocast(device, precision):
                network.training_step(batch, 1)
            return
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, precision):
            loss = network.training_step(batch, 1)["loss"]
        loss.backward()
        optimizer.step()

    return step


def method_config(name: str) -> dict[str, Any]:
    """Return a method's config merged with its base config."""
    config = {key: value for key, value in read_config(f"method/{name}").items() if key != "defaults"}
    below = {"rpl_pp": "rpl", "arpl_cs": "arpl"}.get(name)
    return {**method_config(below), **config} if below else config


def settings(backbone: str, batch: int, precision: str) -> Settings:
    """Return the shipped configs with SGD at a constant rate."""
    configs: Mapping[str, Any] = {
        "sampler": "sampler/instance",
        "loss": "loss/cross_entropy",
        "augment": "augment/none",
        "head": "head/linear",
        "backbone": f"backbone/{backbone}",
        "optimizer": "optimizer/sgd",
        "scheduler": "scheduler/constant",
    }
    read = {group: without_private(read_config(config)) for group, config in configs.items()}
    return Settings(**read, epochs=10, batch_size=batch, precision=precision, selection="last")


def lend_a_trainer(network: Any, main: torch.optim.Optimizer) -> None:
    """Attach the trainer interface that a network with several optimisers uses."""
    gan_optimizers = [
        torch.optim.Adam(part.parameters(), lr=2e-4) for part in (network.generator, network.discriminator)
    ]
    network.optimizers = lambda use_pl_optimizer=True: [main, *gan_optimizers]
    network.lr_schedulers = lambda: torch.optim.lr_scheduler.LambdaLR(main, lambda step: 1.0)
    network.manual_backward = lambda loss: loss.backward()


if __name__ == "__main__":
    main()
