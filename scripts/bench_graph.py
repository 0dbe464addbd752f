"""compile=graph on a GPU: the whole run of ERM on CIFAR-10-LT against usual steps, a bare loop and the usual pipeline.

    python scripts/bench_graph.py --data /path/to/cifar            # 200 epochs, less than 10 minutes on a fast GPU
    python scripts/bench_graph.py --data /path/to/cifar --short    # 20 epochs

First a training of some epochs with compile=graph is compared with the same one without: a difference between the
weights is printed. Then `ltr-train` runs from the command to its result, with and without compile=graph. A bare loop
and the usual pipeline (PIL, workers, fp32, see `bench_train.py`) train some epochs, and are counted as if they went on
at this rate. Without a GPU there is nothing to measure.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from process_pool import train_command

IMAGES = 12406  # of CIFAR-10-LT, imbalance factor 100
STEPS = 97
SIDES = {"bare loop": "bare", "usual pipeline": "usual"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar-10-batches-py")
    parser.add_argument("--short", action="store_true", help="20 epochs instead of 200")
    arguments = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        sys.exit("bench_graph: no CUDA device is visible, and compile=graph trains as usual without one")
    epochs = 20 if arguments.short else 200
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, ERM on CIFAR-10-LT, ResNet-32, {epochs} epochs")
    with tempfile.TemporaryDirectory() as folder:
        print(same_weights(arguments.data, Path(folder)))
        seconds = {
            f"ltr-train compile={mode}": whole_run(arguments.data, Path(folder) / mode, epochs, f"compile={mode}")
            for mode in ("graph", "false")
        }
    seconds |= {name: epochs * IMAGES / rate(arguments.data, side) for name, side in SIDES.items()}
    best = seconds["ltr-train compile=graph"]
    for name, value in seconds.items():
        print(f"{name:<24} {value:8.1f} s   {1000 * value / (epochs * STEPS):6.2f} ms a step   {value / best:6.2f}")


def command(data: Path, outputs: Path, epochs: int, *overrides: str) -> list[str]:
    """Return the command of a training."""
    return [
        *train_command(["dataset=cifar10_lt", "method=erm", f"paths.data={data}"]),
        *(f"paths.outputs={outputs}", f"trainer.max_epochs={epochs}", "callbacks.progress=none", "figures=none"),
        *overrides,
    ]


def whole_run(data: Path, outputs: Path, epochs: int, *overrides: str) -> float:
    """Return the wall seconds of a run, from the command to its result."""
    started = time.perf_counter()
    done = subprocess.run(command(data, outputs, epochs, *overrides), capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    if "steps run one by one" in done.stdout:
        sys.exit(f"compile=graph recorded nothing:\n{done.stdout}")
    return seconds


def same_weights(data: Path, folder: Path) -> str:
    """Return how the weights after two epochs with compile=graph differ from those of usual steps."""
    import torch

    weights = {}
    for mode in ("graph", "false"):
        outputs = folder / f"check-{mode}"
        whole_run(data, outputs, 2, f"compile={mode}", "trainer.deterministic=true")
        path = next(outputs.glob("stages/*/weights.ckpt"))
        weights[mode] = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    pairs = [(weights["graph"][name].double(), one.double()) for name, one in weights["false"].items()]
    largest = max(float((a - b).abs().max()) for a, b in pairs)
    return f"weights after two epochs, graph against usual steps: largest difference {largest:.3g}"


def rate(data: Path, side: str) -> float:
    """Return the images per second of a side of `bench_train.py` in training."""
    script = Path(__file__).with_name("bench_train.py")
    options = ("--data", str(data), "--batches", str(STEPS), "--side", side)
    done = subprocess.run([sys.executable, str(script), *options], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return float(json.loads(done.stdout.rsplit("FIGURES ", 1)[1])["train"])


if __name__ == "__main__":
    main()
