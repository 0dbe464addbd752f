"""Time all figures of a run with synthetic results, for several numbers of classes.

    python scripts/bench_figures.py [--classes 10 200 8142]

Budgets: under 5 s for 200 classes, under 20 s for 8,142. Both the clock's seconds and the processor's are printed; the
budget is on the latter, which a busy machine does not change (drawing uses one thread).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

BUDGETS = {200: 5.0, 8142: 20.0}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", nargs="+", type=int, default=[10, 200, 8142])
    parser.add_argument("--images", type=int, default=3, help="test images of each class (iNaturalist 2018 has 3)")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "report"))
    from made_up_runs import curve_rows, per_class_table, write_arrays_of, write_predictions, write_run

    began = time.perf_counter()
    from ltr.report.figures import draw

    too_slow = False
    for classes in arguments.classes:
        with tempfile.TemporaryDirectory() as folder:
            images = max(arguments.images, 20_000 // classes)
            table = per_class_table(classes, n_max=1000, factor=500, images=images)
            run_dir = write_run(Path(folder), table, curve_rows({"representation": 90, "classifier": 10}))
            write_predictions(run_dir, table, images)
            write_arrays_of(run_dir, table)
            # the first one imports matplotlib and finds its fonts, which every command does once
            wall, spent = began if classes == arguments.classes[0] else time.perf_counter(), time.process_time()
            paths = draw(run_dir, "all")
            seconds, cpu = time.perf_counter() - wall, time.process_time() - spent
            size = sum(path.stat().st_size for path in paths)
        print(
            f"{classes:>6,} classes: {len(paths)} figures in {seconds:.1f} s ({cpu:.1f} s of the processor), "
            f"{size / 1e3:,.0f} kB"
        )
        too_slow |= cpu > BUDGETS.get(classes, float("inf"))
    return int(too_slow)


if __name__ == "__main__":
    sys.exit(main())
