"""Time of `ltr-report` for many finished runs: reading, comparing and writing, in one process.

    python scripts/bench_report.py [--runs 10000] [--folder FOLDER]

Made-up runs (20 data sets x 10 methods x settings x 5 seeds, result.json of the size that a real run writes) are
written once; then the command runs in processes of its own. The budget for 10,000 runs is 10 s.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPORT = "import sys; from ltr.cli import report_runs; sys.argv[0] = 'ltr-report'; report_runs()"
SEEDS, METHODS, DATASETS = 5, 10, 20
METRICS = (
    "accuracy", "top5", "many", "medium", "few", "balanced_accuracy", "geometric_mean", "macro_f1", "nll", "ece",
    "ece_few",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="folder of the synthetic runs (default: a temporary folder)")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        outputs = folder / "outputs"
        if not outputs.is_dir():
            write(outputs, arguments.runs)
        for form in ("table", "csv", "html"):
            times = []
            for _ in range(arguments.rounds):
                start = time.perf_counter()
                command = [sys.executable, "-c", REPORT, str(outputs), "--format", form, "--out", str(folder / form)]
                subprocess.run(command, check=True, capture_output=True)
                times.append(time.perf_counter() - start)
            size = (folder / form).stat().st_size / 1e6
            print(f"{arguments.runs:,} runs, {form:<6} median {np.median(times):6.2f} s   {size:6.1f} MB", flush=True)


def write(outputs: Path, runs: int) -> None:
    """Write synthetic run directories."""
    random = np.random.default_rng(0)
    for number in range(runs):
        rest, seed = divmod(number, SEEDS)
        rest, method = divmod(rest, METHODS)
        setting, dataset = divmod(rest, DATASETS)
        config = {f"trainer.key_{key}": key for key in range(90)} | {
            "dataset.name": f"data{dataset}",
            "method.name": f"method{method}",
            "name": f"method{method}",
            "loss._target_": "ltr.losses.classification.ClassBalanced",
            "loss.beta": round(0.01 * setting, 4),
            "trainer.max_epochs": 200,
        }
        group = hashlib.sha256(json.dumps(config).encode()).hexdigest()
        run = hashlib.sha256(f"{group}{seed}".encode()).hexdigest()
        rows = [
            {
                "protocol": "closed_set", "split": split, "checkpoint": "final", "selection": "last",
                "variant": "default", "scorer": None, "headline": split == "test",
                "metrics": {name: float(value) for name, value in zip(METRICS, random.random(len(METRICS)))},
            }
            for split in ("val", "test")
        ]  # fmt: skip
        result = {
            "schema_version": 1,
            "config": {**config, "seed": seed},
            "run_hash": run,
            "group_hash": group,
            "data": {"split": f"split{dataset}", "split_digest": f"{dataset:064d}", "classes": 100,
                     "train_images": 10847, "test_images": 10000},
            "metric": "balanced_accuracy",
            "stages": [{"name": "main", "key": group, "status": "trained", "seconds": 1000.0}],
            "rows": rows,
        }  # fmt: skip
        folder = outputs / f"data{dataset}" / f"method{method}" / f"method{method}-s{seed}-{run[:8]}"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(result, indent=2))
        for name in ("config.yaml", "metrics.csv", "provenance.json"):
            (folder / name).touch()


if __name__ == "__main__":
    main()
