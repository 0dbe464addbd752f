"""Cost of self-supervised label augmentation: ratios against plain training in ltr, in one run.

    python scripts/bench_sla.py                      # ResNet-32, CIFAR's shapes, random pixels
    python scripts/bench_sla.py --batch 32 --rounds 9

- step:          a training step of batch B under rotation (M = 4) against an ERM step of batch 4 B. At most 1.05.
- distillation:  the same with self-distillation.
- inference:     aggregated inference of B images against 4 forward passes of B images. At most 1.05.
- checkpointing: the step with method.checkpointing=true against the one without, and on a GPU their peak memory.

Steps are timed in turn, several rounds; a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from ltr.configuration.overrides import load_config
from ltr.configuration.targets import instantiate
from ltr.data.batch import Batch
from ltr.methods.core.settings import DatasetInfo
from ltr.runs.plan import main_settings
from ltr.runs.processes.device import autocast, resolve_device, resolve_precision

COUNTS = (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)  # CIFAR-10-LT, imbalance factor 100
DATASET_INFO = DatasetInfo(
    image_shape=(3, 32, 32), mean=(0.49, 0.48, 0.45), std=(0.2, 0.2, 0.2),
    class_names=tuple(f"class {c}" for c in range(len(COUNTS))), class_counts=COUNTS,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128, help="batch size before expansion")
    parser.add_argument("--steps", type=int, default=3, help="steps per timing")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--threads", type=int, help="number of CPU threads")
    parser.add_argument(
        "--clock", default="wall", choices=("wall", "process"), help="process: processor time, for a busy machine"
    )
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = resolve_device("auto")
    precision = resolve_precision(arguments.precision, device)
    title = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"ResNet-32, B = {arguments.batch}, M = 4, {precision}, {title}, torch {torch.__version__}")
    few, many = (images_of(count, device) for count in (arguments.batch, 4 * arguments.batch))
    erm = network("method=erm", precision=precision, device=device)
    sla = network("method=sla", precision=precision, device=device)
    distilled = network("method=sla", "method.self_distillation=true", precision=precision, device=device)
    checkpointed = network("method=sla", "method.checkpointing=true", precision=precision, device=device)
    steps = {
        "erm 4 B": stepper(erm, many, device, precision),
        "step": stepper(sla, few, device, precision),
        "distillation": stepper(distilled, few, device, precision),
    }
    report(measure(steps, arguments), "erm 4 B")
    passes = {
        "4 passes": evaluated(erm, lambda: [erm.predict(few.images) for _ in range(4)], device, precision),
        "inference": evaluated(sla, lambda: sla.predict_headline(few.images), device, precision),
    }
    report(measure(passes, arguments), "4 passes")
    both = {
        "plain step": stepper(sla, few, device, precision),
        "checkpointing": stepper(checkpointed, few, device, precision),
    }
    report(measure(both, arguments), "plain step")
    if device.type == "cuda":
        for name, step in both.items():
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            step()
            print(f"  {name:<14} peak {(torch.cuda.max_memory_allocated() - before) / 2**20:8.0f} MB in a step")


def images_of(count: int, device: torch.device) -> Batch:
    """Return random images and labels on the device."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=random)
    labels = torch.randint(0, len(COUNTS), (count,), generator=random)
    return Batch(
        images.to(device).contiguous(memory_format=torch.channels_last), labels.to(device),
        torch.arange(count, device=device),
    )  # fmt: skip


def network(*overrides: str, precision: str, device: torch.device) -> Any:
    """Return the network of a method's only stage at the start of training."""
    config = load_config(["dataset=cifar10_lt", *overrides])
    method = instantiate(config["method"])
    (stage,) = method.stages(main_settings(config, precision, method), DATASET_INFO)
    return stage.network(DATASET_INFO, 0).to(device)


def stepper(module: Any, batch: Batch, device: torch.device, precision: str) -> Callable[[], None]:
    """Run forward, backward and the optimiser's step."""
    optimizer, _ = module.optimisation(100)

    def step() -> None:
        module.train()
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, precision):
            loss = module.training_step(batch, 0)["loss"]
        loss.backward()
        optimizer.step()

    return step


def evaluated(module: Any, forward: Callable[[], Any], device: torch.device, precision: str) -> Callable[[], None]:
    """Time passes in evaluation."""

    def run() -> None:
        module.eval()
        with torch.inference_mode(), autocast(device, precision):
            forward()

    return run


def measure(sides: dict[str, Callable[[], None]], arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Return the seconds of each side's ``--steps`` steps in each round; the sides alternate."""
    clock = time.perf_counter if arguments.clock == "wall" else time.process_time
    samples: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(arguments.rounds + 1):
        for name, step in sides.items():
            started = clock()
            for _ in range(arguments.steps):
                step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:  # the first round warms up
                samples[name].append((clock() - started) / arguments.steps)
    return samples


def report(samples: dict[str, list[float]], reference: str) -> None:
    """Print medians in milliseconds, and each side's ratio to the reference, round by round."""
    for name, seconds in samples.items():
        ratios = [value / base for value, base in zip(seconds, samples[reference])]
        spread = f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        shown = spread if name != reference else ""
        print(f"  {name:<14} {1000 * statistics.median(seconds):9.1f} ms  {shown}", flush=True)


if __name__ == "__main__":
    main()
