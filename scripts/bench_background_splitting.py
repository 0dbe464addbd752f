"""Cost of background splitting: ratios in one run, on random images of 32 x 32 pixels.

- step:   a training step of background splitting (1,000 pseudo-classes) against one of ERM on the same backbone, step
          by step in turn; the median of the pairs' ratios. At most 1.05.
- labels: the stage `pseudo_labels` against a bare loop of the same teacher over the same batches, in turn; at least
          0.90 of its images per second.

    python scripts/bench_background_splitting.py
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from ltr.configuration.overrides import load_config
from ltr.configuration.targets import instantiate
from ltr.data.module import DataModule
from ltr.data.source import Source
from ltr.data.splitting.exclusion import read_split
from ltr.methods.core.stage import Computation, StageOutput
from ltr.methods.erm import ERM
from ltr.models.weights import seeded_construction
from ltr.runs.plan import describe_dataset, main_settings
from timing import seconds

PSEUDO_CLASSES = 1000
IMAGES = 2000
BATCH = 250  # of pseudo-labelling: evaluation.batch_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet32", help="config of the step's backbone")
    parser.add_argument("--batch", type=int, default=128, help="batch size of a step")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--teacher-size", type=int, default=64, help="side of the teacher's images, in pixels")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of pseudo-labelling")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=("step", "labels"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {arguments.threads} threads"
    print(f"{name}, fp32")
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "teacher.pth"
        with seeded_construction(0):
            torch.save(torchvision.models.squeezenet1_0(num_classes=PSEUDO_CLASSES).state_dict(), weights)
        setting = Setting(weights, arguments.backbone, arguments.batch, arguments.teacher_size, device)
        if arguments.only != "labels":
            print(step(setting, arguments.steps), flush=True)
        if arguments.only != "step":
            print(labels(setting, arguments.rounds), flush=True)


class Setting:
    """Stages of a run on random images in the shape of CIFAR-100 with background."""

    def __init__(self, weights: Path, backbone: str, batch: int, teacher_size: int, device: torch.device) -> None:
        self.device = device
        overrides = [
            "dataset=cifar100_bg", "method=background_splitting", f"backbone={backbone}", f"batch_size={batch}",
            f"method.aux.teacher.weights={weights}", f"method.aux.teacher.image_size={teacher_size}",
        ]  # fmt: skip
        self.config = load_config(overrides)
        self.source = random_source()
        self.split = read_split(self.config["dataset"], self.source)
        self.dataset_info = describe_dataset(self.config, self.source, self.split)
        method = instantiate(self.config["method"])
        self.settings = main_settings(self.config, "fp32", method)
        self.stages = {stage.name: stage for stage in method.stages(self.settings, self.dataset_info)}
        self.data = DataModule(
            self.source,
            self.split,
            sampler=instantiate(self.config["sampler"]),
            augment=None,
            batch_size=batch,
            eval_batch_size=BATCH,
            seed=0,
            role="representation",
            epochs=1,
            device=device,
        )

    def computation(self, name: str, parents: dict[str, StageOutput]) -> Computation:
        """Return the input of the computed stage ``name``."""
        return Computation(
            parents=parents,
            settings=self.stages[name].settings,
            dataset_info=self.dataset_info,
            source=self.source,
            split=self.split,
            loader=self.data.evaluation_loader,
            device=self.device,
            autocast=contextlib.nullcontext,
            seed=0,
            role=name,
        )


def random_source() -> Source:
    """Return random images of 100 classes."""
    random = np.random.default_rng(0)
    classes = np.arange(IMAGES + 200) % 100
    return Source(
        "cifar100",
        random.integers(0, 256, (len(classes), 32, 32, 3), dtype=np.uint8),
        classes,
        tuple(f"class {number}" for number in range(100)),
        {"train": range(IMAGES), "test": range(IMAGES, len(classes))},
    )


def step(setting: Setting, steps: int) -> str:
    """Return the ratio of the two steps: forward, backward and the optimiser."""
    random = np.random.default_rng(1)
    pseudo = {
        "labels": random.integers(0, PSEUDO_CLASSES, len(setting.source)).astype(np.int32),
        "classes": np.arange(PSEUDO_CLASSES, dtype=np.int32),
    }
    parents = {"pseudo_labels": StageOutput("pseudo_labels", "", lambda: None, arrays=pseudo)}
    stage = setting.stages["representation"]
    (erm,) = ERM().stages(setting.settings, setting.dataset_info)
    networks = {
        "erm": erm.network(setting.dataset_info, 0),
        "splitting": stage.network(setting.dataset_info, 0, parents),
    }
    batch = next(iter(setting.data.train_dataloader()))
    runs = {}
    for name, network in networks.items():
        network.to(setting.device).train()
        network.start_epoch(0)
        runs[name] = one_step(network, network.optimisation(100)[0], batch)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(steps + 5):
        for name in sorted(runs, reverse=bool(turn % 2)):  # neither is always the first
            taken = seconds(runs[name], setting.device, wall=True)
            if turn >= 5:
                times[name].append(taken)
    ratio = statistics.median(b / a for a, b in zip(times["erm"], times["splitting"]))
    medians = {name: 1000 * statistics.median(samples) for name, samples in times.items()}
    return f"step    erm {medians['erm']:8.2f} ms   splitting {medians['splitting']:8.2f} ms   ratio {ratio:.3f}"


def one_step(network: Any, optimizer: torch.optim.Optimizer, batch: Any) -> Callable[[], None]:
    """Return an optimiser step as a function without arguments."""

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        network.training_step(batch, 0)["loss"].backward()
        optimizer.step()

    return run


def labels(setting: Setting, rounds: int) -> str:
    """Return images per second of the stage, and of a loop that only runs the network."""
    stage = setting.stages["pseudo_labels"]
    teacher = instantiate(stage.settings.backbone).to(setting.device)
    assert isinstance(setting.source.images, np.ndarray)
    pixels = torch.tensor(setting.source.images[:IMAGES]).to(setting.device).permute(0, 3, 1, 2)
    computation = setting.computation("pseudo_labels", {})

    def bare() -> None:
        with torch.inference_mode():
            samples = [
                teacher.net(teacher.preprocess(pixels[i : i + BATCH].float() / 255)) for i in range(0, IMAGES, BATCH)
            ]
            torch.cat([logits.argmax(1) for logits in samples]).cpu()

    def compute_stage() -> None:
        stage.target(computation, **stage.options)

    build = seconds(lambda: instantiate(stage.settings.backbone).to(setting.device), setting.device, wall=True)
    ratios, speeds = [], []
    for turn in range(rounds + 1):
        bare_seconds = seconds(bare, setting.device, wall=True)
        stage_seconds = seconds(compute_stage, setting.device, wall=True) - build
        if turn:
            ratios.append(bare_seconds / stage_seconds)
            speeds.append(IMAGES / stage_seconds)
    return (
        f"labels  {statistics.median(speeds):8.0f} images/s   {statistics.median(ratios):.3f} of a bare loop "
        f"(building the teacher, {build:.2f} s once, not counted)"
    )


if __name__ == "__main__":
    main()
