"""Processor time of a training step of BCL and ProCo against ERM's, on CIFAR-100-LT with ResNet-32.

    OMP_NUM_THREADS=1 LTR_DATA=FOLDER python scripts/bench_contrastive.py --rounds 5

A step takes a batch from the loader, with all its views, and ends with the optimiser. The sides alternate in one
process; a ratio is the median of those of the rounds. The last column is the loader's part of a step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch

from ltr.configuration.overrides import load_config
from ltr.configuration.targets import instantiate
from ltr.data.batch import Batch
from ltr.data.module import DataModule
from ltr.data.packed_images.reading import read_source
from ltr.data.splitting.exclusion import read_split
from ltr.runs.plan import describe_dataset, main_settings
from ltr.runs.processes.device import autocast, keep_freed_memory

SIDES = {
    "erm": ("dataset=cifar100_lt",),
    "erm, AutoAugment and cutout": ("dataset=cifar100_lt", "augment=cifar_autoaugment"),
    "bcl": ("experiment=cifar100_lt_bcl",),
    "proco": ("experiment=cifar100_lt_proco",),
}


class Side:
    """Network, optimiser and batches of a command.

    Args:
        overrides: the command.
        batch_size: images of a batch.
        precision: ``fp32`` or ``bf16``.
    """

    def __init__(self, overrides: tuple[str, ...], batch_size: int, precision: str) -> None:
        config = load_config([*overrides, f"batch_size={batch_size}"])
        source = read_source(config["dataset"])
        split = read_split(config["dataset"], source)
        dataset_info = describe_dataset(config, source, split)
        method = instantiate(config["method"])
        stage = method.stages(main_settings(config, precision, method), dataset_info)[0]
        shape, settings = dataset_info.image_shape, stage.settings
        data = DataModule(
            source,
            split,
            sampler=instantiate(settings.sampler),
            augment=instantiate(settings.augment, shape),
            views=[instantiate(view, shape) for view in settings.views],
            batch_size=batch_size,
            eval_batch_size=batch_size,
            seed=0,
            role=stage.role,
            epochs=1,
        )
        self.precision = precision
        self.loader = data.train_dataloader()
        self.batches: Iterator[Batch] = iter(self.loader)
        self.network: Any = stage.network(dataset_info, 0).train()
        self.optimizer, _ = self.network.optimisation(data.steps_per_epoch)

    def step(self) -> tuple[float, float]:
        """Take a step and return its processor seconds, and those of the loader."""
        started = time.process_time()
        batch = next(self.batches)
        loaded = time.process_time()
        self.optimizer.zero_grad()
        with autocast(torch.device("cpu"), self.precision):
            loss = self.network.training_step(batch, 1)["loss"]
        loss.backward()
        self.optimizer.step()
        return time.process_time() - started, loaded - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    arguments = parser.parse_args()
    keep_freed_memory()
    sides = {name: Side(overrides, arguments.batch_size, arguments.precision) for name, overrides in SIDES.items()}
    for side in sides.values():
        side.step()
    rounds = [{name: side.step() for name, side in sides.items()} for _ in range(arguments.rounds)]
    print(f"ResNet-32, batches of {arguments.batch_size}, {arguments.precision}, {torch.get_num_threads()} thread")
    for name in sides:
        seconds = statistics.median(one[name][0] for one in rounds)
        ratio = statistics.median(one[name][0] / one["erm"][0] for one in rounds)
        share = statistics.median(one[name][1] / one[name][0] for one in rounds)
        print(f"{name:30s} {1000 * seconds:7.0f} ms  {ratio:5.2f} x ERM  loader {100 * share:4.1f} %")


if __name__ == "__main__":
    main()
