"""Step time and memory of tuning a part of a backbone, as shares of training all of it.

Each tuning runs in a process of its own, in turn, over several rounds; the medians are compared. Images and weights are
random: neither matters for the cost. On CPUs, time is that of the process. Memory is what a step adds to the process
over the network before its first step.

    python scripts/bench_tune.py --backbone tf_efficientnet_lite0 --size 128 --rounds 3
    python scripts/bench_tune.py --backbone vit_tiny_patch16_224 --size 224 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

TUNINGS = ("all", "last_block", "norm", "bias", "lora", "adapter", "vpt", "none")
OF_TRANSFORMERS = ("adapter", "vpt")
CLASSES = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="timm model")
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8, help="steps per round, after two warm-up steps")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--tune", choices=TUNINGS, help="run one tuning and print its figures as JSON")
    arguments = parser.parse_args()
    if arguments.tune:
        print("FIGURES " + json.dumps(one_tuning(arguments)))
        return
    tunings = [name for name in TUNINGS if name not in OF_TRANSFORMERS or arguments.backbone.startswith("vit")]
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in tunings}
    for _ in range(arguments.rounds):
        for name, samples in rounds.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--tune", name]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stdout + done.stderr)
            samples.append(json.loads(done.stdout.rsplit("FIGURES ", 1)[1]))
    report(rounds)


def report(rounds: dict[str, list[dict[str, float]]]) -> None:
    """Print each tuning's medians, and their shares of those of ``all``."""
    medians = {
        name: {key: statistics.median(sample[key] for sample in samples) for key in samples[0]}
        for name, samples in rounds.items()
    }
    whole = medians["all"]
    print(f"{'tune':<12}{'trained':>12}{'ms a step':>12}{'time':>8}{'MB added':>12}{'memory':>8}")
    for name, median in medians.items():
        print(
            f"{name:<12}{median['trained']:>12,.0f}{1000 * median['seconds']:>12.0f}"
            f"{median['seconds'] / whole['seconds']:>8.2f}{median['mb']:>12.0f}{median['mb'] / whole['mb']:>8.2f}"
        )


def one_tuning(arguments: argparse.Namespace) -> dict[str, float]:
    """Return the seconds of a step (median), the memory it adds in MB, and the number of trained parameters."""
    import torch

    import ltr
    from ltr.data.batch import Batch

    torch.set_num_threads(arguments.threads)
    network = ltr.build(
        "erm",
        num_classes=CLASSES,
        backbone=arguments.backbone,
        image_size=arguments.size,
        tune=arguments.tune,
        optimizer="adamw",
    )
    network = network.to(arguments.device).train()
    optimizer, _ = network.optimisation(100)
    images = torch.randint(0, 256, (arguments.batch, 3, arguments.size, arguments.size), dtype=torch.uint8)
    images = images.to(arguments.device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(arguments.batch, device=arguments.device) % CLASSES
    batch = Batch(images, labels, torch.arange(arguments.batch, device=arguments.device))
    on_gpu = arguments.device == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time  # which other load on the machine does not change

    def step() -> float:
        began = clock()
        optimizer.zero_grad()
        network.training_step(batch, 0)["loss"].backward()
        optimizer.step()
        if on_gpu:
            torch.cuda.synchronize()
        return clock() - began

    before = torch.cuda.memory_allocated() / 2**20 if on_gpu else resident_mb()
    seconds = [step() for _ in range(arguments.steps + 2)][2:]
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_mb()
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    return {"seconds": statistics.median(seconds), "mb": peak - before, "trained": trained}


def resident_mb() -> float:
    """Return the memory that this process has now, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return peak_mb()


def peak_mb() -> float:
    """Return the most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
