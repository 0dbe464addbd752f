"""Gain of compile=true: processor time of a training step, eager and compiled, and the steps that repay compiling.

    OMP_NUM_THREADS=1 python scripts/bench_compile.py
    OMP_NUM_THREADS=1 python scripts/bench_compile.py --only resnet32 digits --rounds 5

Each case runs in a separate process with an empty compiler cache. Eager and compiled steps alternate, and processor
time counts, so that other work on the machine matters little. The time of compiling is that of the first steps of a
compiled network, processes of the compiler included, less that of as many compiled steps.
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
from typing import Any

# case: overrides, images in a step, shape of an image, classes
CASES: dict[str, tuple[list[str], int, tuple[int, int, int], int]] = {
    "digits": (["dataset=digits_lt"], 64, (1, 8, 8), 10),
    "resnet32": (["dataset=cifar10_lt"], 128, (3, 32, 32), 10),
    "classifier32": (["dataset=cifar10_lt", "backbone=classifier32"], 128, (3, 32, 32), 10),
    "resnet10t": (["dataset=cub", "backbone=timm", "backbone.name=resnet10t"], 16, (3, 96, 96), 200),
    "resnet32 ldam": (["dataset=cifar10_lt", "loss=ldam"], 128, (3, 32, 32), 10),
    "resnet32 sla": (["dataset=cifar10_lt", "method=sla"], 32, (3, 32, 32), 10),
    "digits rkd": (["dataset=digits_lt", "method=rkd"], 64, (1, 8, 8), 10),
}
WARM = 3  # steps before the measured ones


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--case", choices=CASES, help="run one case in this process and print its figures as JSON")
    arguments = parser.parse_args()
    if arguments.case:
        print("FIGURES " + json.dumps(case(arguments.case, arguments.rounds, arguments.precision)), flush=True)
        return
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as cache:
            # one compiler at a time, a child that ends: the time of other workers would not be known
            alone = {"TORCHINDUCTOR_CACHE_DIR": cache, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
            done = subprocess.run(
                [sys.executable, __file__, "--case", name, f"--rounds={arguments.rounds}",
                 f"--precision={arguments.precision}"],
                env={**os.environ, **alone}, capture_output=True, text=True, check=False,
            )  # fmt: skip
        if done.returncode:
            print(f"{name}: {done.stderr.strip().splitlines()[-1:]}", flush=True)
            continue
        print(sentence(name, json.loads(done.stdout.rsplit("FIGURES ", 1)[1])), flush=True)


def sentence(name: str, figures: dict[str, Any]) -> str:
    """Return the line of a case."""
    eager, compiled = (statistics.median(figures[side]) for side in ("eager", "compiled"))
    ratios = sorted(a / b for a, b in zip(figures["eager"], figures["compiled"]))
    repaid = f"{figures['compiling'] / (eager - compiled):,.0f} steps" if compiled < eager else "never"
    return (
        f"{name:<14} {figures['precision']}, {figures['threads']} threads: {1000 * eager:.1f} ms a step, compiled "
        f"{1000 * compiled:.1f} ms: {statistics.median(ratios):.2f} times ({ratios[0]:.2f} to {ratios[-1]:.2f}); "
        f"compiling {figures['compiling']:.0f} s, repaid after {repaid}"
    )


def case(name: str, rounds: int, precision: str) -> dict[str, Any]:
    """Return the processor seconds of steps, eager and compiled, and of compiling."""
    import torch

    from ltr.configuration.overrides import load_config
    from ltr.configuration.targets import instantiate
    from ltr.data.batch import Batch
    from ltr.methods.core.settings import DatasetInfo
    from ltr.methods.core.stage import StageOutput
    from ltr.runs.plan import main_settings
    from ltr.runs.processes.device import autocast, keep_freed_memory, resolve_device, resolve_precision

    overrides, size, shape, classes = CASES[name]
    device = resolve_device("auto")
    precision = resolve_precision(precision, device)
    if device.type == "cpu":
        keep_freed_memory()
    dataset_info = DatasetInfo(
        image_shape=shape, mean=(0.5,) * shape[0], std=(0.2,) * shape[0],
        class_names=tuple(f"class {c}" for c in range(classes)), class_counts=(30,) * classes,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (size, *shape), dtype=torch.uint8, generator=generator)
    images = images.to(device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, classes, (size,), generator=generator).to(device)
    batch = Batch(images, labels, torch.arange(size, device=device))

    def side(is_compiled: bool) -> Any:
        config = load_config(overrides)
        method = instantiate(config["method"])
        outputs: dict[str, StageOutput] = {}
        for stage in method.stages(main_settings(config, precision, method), dataset_info):
            network = stage.network(dataset_info, 0, outputs) if outputs else stage.network(dataset_info, 0)
            outputs[stage.name] = StageOutput(stage.name, "key", lambda network=network: network)  # type: ignore[misc]
        network = network.to(device)
        network.backbone.to(memory_format=torch.channels_last)
        network.train()
        network.start_epoch(0)
        if is_compiled:
            network.backbone.compile()
        optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.01, 0.9, fused=True)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with autocast(device, precision):
                loss = network.training_step(batch, 0)["loss"]
            loss.backward()
            optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize()

        return step

    def seconds(step: Any, steps: int) -> float:
        started = processor_time()
        for _ in range(steps):
            step()
        return processor_time() - started

    eager, compiled = side(False), side(True)
    seconds(eager, WARM)
    compiling = seconds(compiled, WARM)
    one = seconds(eager, WARM) / WARM
    steps = max(2, min(100, round(3 / one)))
    samples: dict[str, list[float]] = {"eager": [], "compiled": []}
    for _ in range(rounds):
        samples["eager"].append(seconds(eager, steps) / steps)
        samples["compiled"].append(seconds(compiled, steps) / steps)
    compiling = max(0.0, compiling - WARM * statistics.median(samples["compiled"]))
    return {"precision": precision, "threads": torch.get_num_threads(), "compiling": compiling, **samples}


def processor_time() -> float:
    """Return the processor seconds of this process and of its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
