"""Start-up time of `ltr-train` against an empty Hydra app with the same configs.

    python scripts/bench_startup.py

Both sides are processes of their own, run in turn on the same machine; the median of 7 counts. Budgets: `--help` at
most 0.2 s above the empty app's, `--cfg job` at most 0.7 s.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ltr.configuration.configs import conf_directory

REPEATS = 7
OURS = "from ltr.cli import train; train()"
EMPTY = f"""
import hydra

@hydra.main(version_base="1.3", config_path={str(conf_directory())!r}, config_name="train")
def app(config):
    pass

app()
"""


def seconds(script: Path, arguments: list[str], folder: Path) -> float:
    """Return the wall seconds of one process from start to end."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=folder,
        env={**os.environ, "HYDRA_FULL_ERROR": "0"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scripts = {"ltr-train": OURS, "empty app": EMPTY}
        for title, code in scripts.items():
            (folder / f"{title.replace(' ', '_')}.py").write_text(code)
        for arguments in (["--help"], ["--cfg", "job"]):
            times: dict[str, list[float]] = {title: [] for title in scripts}
            for repeat in range(REPEATS + 1):
                for title in scripts:
                    taken = seconds(folder / f"{title.replace(' ', '_')}.py", arguments, folder)
                    if repeat:  # the first round fills the file cache
                        times[title].append(taken)
            ours, empty = (statistics.median(times[title]) for title in scripts)
            print(
                f"{' '.join(arguments):<10} ltr-train {ours:.3f} s   empty Hydra app {empty:.3f} s   "
                f"difference {ours - empty:+.3f} s   (median of {REPEATS})"
            )


if __name__ == "__main__":
    main()
