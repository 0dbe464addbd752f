"""Cost of HERBS's selector and combiner at the paper's sizes, against the same network without them.

    python scripts/bench_herbs.py                                          # CPU: Swin-L, 384 pixels, two images
    python scripts/bench_herbs.py --device cuda --batch 8 --precision bf16 --rounds 20

- time:   share of a training step that selector, combiner and the dropped locations' loss take, as the difference to a
          step of backbone, both paths and all classifiers alone. At most 8 %.
- pieces: the same three timed alone, forward and backward, on maps of these sizes, as a share of the step.
- memory: the step's peak against that of the network without them. At most 1.15.

Steps of both kinds are taken in turn; a line is the median of the rounds' ratios, with the least and the largest. On a
CPU the time is the process's own, on one thread, so that other work on the machine matters little, and the peak is the
largest resident size of a process of its own, less what it held before it built the network.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable

import torch

from ltr.configuration.overrides import load_config
from ltr.data.batch import Batch
from ltr.methods.core.settings import DatasetInfo
from ltr.methods.herbs.losses import dropped_loss
from ltr.methods.herbs.method import HERBS
from ltr.methods.herbs.network import HerbsNetwork
from ltr.methods.herbs.selection import gather
from ltr.runs.plan import main_settings
from ltr.runs.processes.device import autocast
from timing import seconds

CLASSES = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--backbone", default="swin_large_patch4_window12_384", help="timm model")
    parser.add_argument("--size", type=int, default=384, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("time", "pieces", "memory"), nargs="*")
    parser.add_argument("--peak", choices=("with", "without"), help=argparse.SUPPRESS)  # a process that is measured
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    if arguments.peak:
        print(peak(arguments, device, arguments.peak == "with"))
        return
    chosen = arguments.only or ("time", "pieces", "memory")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, one thread"
    print(
        f"{arguments.backbone}, {arguments.size} px, batch {arguments.batch}, {arguments.precision}, {name}", flush=True
    )
    if "time" in chosen or "pieces" in chosen:
        times(arguments, device, chosen)
    if "memory" in chosen:
        memory(arguments, device)


def network_of(arguments: argparse.Namespace, device: torch.device, suppression: bool) -> HerbsNetwork:
    """Return HERBS by its config, with or without suppression, ready to train."""
    swin = "swin" in arguments.backbone or "vit" in arguments.backbone
    size = [f"backbone.img_size={arguments.size}"] if swin else []
    overrides = ["method=herbs", "backbone=timm", f"backbone.name={arguments.backbone}", *size, "scheduler=constant"]
    config = load_config([*overrides, f"method.suppression={str(suppression).lower()}"])
    method = {key: value for key, value in config["method"].items() if key not in ("_target_", "name", "_allowed_")}
    dataset_info = DatasetInfo(
        image_shape=(3, arguments.size, arguments.size),
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        class_names=tuple(str(c) for c in range(CLASSES)),
        class_counts=(30,) * CLASSES,
    )
    made = HERBS(**{key: value for key, value in method.items() if key != "extras"})
    (stage,) = made.stages(main_settings(config, arguments.precision, made), dataset_info)
    network = stage.network(dataset_info, 0).to(device)
    network.start_epoch(0)
    return network.train()


def batch_of(arguments: argparse.Namespace, device: torch.device) -> Batch:
    source = torch.Generator().manual_seed(0)
    shape = (arguments.batch, 3, arguments.size, arguments.size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=source).to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (arguments.batch,), generator=source)
    return Batch(images.to(device), labels.to(device), labels.to(device))


def stepper(network: HerbsNetwork, batch: Batch, precision: str) -> Callable[[], None]:
    """Run a whole optimiser step."""
    optimizer, _ = network.optimisation(100)

    def step() -> None:
        optimizer.zero_grad()
        with autocast(network.device, precision):
            loss = network.training_step(batch, 0)["loss"]
        loss.backward()
        optimizer.step()

    return step


def times(arguments: argparse.Namespace, device: torch.device, chosen: tuple[str, ...]) -> None:
    batch = batch_of(arguments, device)
    network = network_of(arguments, device, True)
    works = {"with": stepper(network, batch, arguments.precision)}
    if "time" in chosen:
        works["without"] = stepper(network_of(arguments, device, False), batch, arguments.precision)
    works["pieces"] = pieces(network, arguments)
    samples: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(arguments.rounds + 1):
        for name, work in works.items():
            taken = seconds(work, device)
            if turn:  # the first round warms up
                samples[name].append(taken)
    assert network.pyramid is not None
    print(f"step {statistics.median(samples['with']):.2f} s; selected {network.counts} of {network.pyramid.sizes}")
    if "time" in chosen:
        shares = [1 - without / whole for whole, without in zip(samples["with"], samples["without"])]
        print(f"time     {line(shares, 100, '%')}   (at most 8)")
    print(f"pieces   {line([piece / whole for whole, piece in zip(samples['with'], samples['pieces'])], 100, '%')}")


def pieces(network: HerbsNetwork, arguments: argparse.Namespace) -> Callable[[], None]:
    """Time selector, combiner and the dropped loss, forward and backward, on random levels."""
    assert network.pyramid is not None
    assert network.combiner is not None
    source = torch.Generator().manual_seed(0)
    images, combiner = arguments.batch, network.combiner

    def random(height: int, width: int, channels: int) -> torch.Tensor:
        made = torch.randn(images, height, width, channels, generator=source).to(network.device)
        return made.requires_grad_()

    levels = [random(*size, width) for size, width in zip(network.pyramid.sizes, network.pyramid.widths)]
    logits = [random(*size, CLASSES) for size in network.pyramid.sizes]

    def work() -> None:
        with autocast(network.device, arguments.precision):
            selections = network._select(logits, None)
            selected = [gather(level.flatten(1, 2), one.indices) for level, one in zip(levels, selections)]
            features = combiner(torch.cat(selected, 1))
            dropped = dropped_loss([z.flatten(1, 2) for z in logits], [one.dropped for one in selections])
        (features.float().sum() + dropped).backward()
        for tensor in (*levels, *logits):
            tensor.grad = None

    return work


def memory(arguments: argparse.Namespace, device: torch.device) -> None:
    samples = {}
    for kind in ("with", "without"):
        if device.type == "cuda":
            samples[kind] = peak(arguments, device, kind == "with")
        else:
            command = [sys.executable, __file__, "--peak", kind]
            for key in ("device", "precision", "backbone", "size", "batch"):
                command += [f"--{key}", str(getattr(arguments, key))]
            samples[kind] = float(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
            )
    ratio = samples["with"] / max(samples["without"], 1)  # a tiny network needs no more than starting up did
    print(f"memory   {ratio:.3f}   {samples['with']:.0f} MB against {samples['without']:.0f} MB   (at most 1.15)")


def peak(arguments: argparse.Namespace, device: torch.device, suppression: bool) -> float:
    """Return the peak memory of two steps in MB."""
    before = resident()
    step = stepper(network_of(arguments, device, suppression), batch_of(arguments, device), arguments.precision)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    step()
    step()
    if device.type == "cuda":
        samples = torch.cuda.max_memory_allocated() / 2**20
        del step
        torch.cuda.empty_cache()
        return samples
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before


def resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def line(values: list[float], factor: float, unit: str) -> str:
    shown = [factor * value for value in (statistics.median(values), min(values), max(values))]
    return f"{shown[0]:.2f} {unit} ({shown[1]:.2f} to {shown[2]:.2f})"


if __name__ == "__main__":
    main()
