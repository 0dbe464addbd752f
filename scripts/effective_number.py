"""Simulation of the theory of class-balanced weights: random samples against the effective number of samples.

    python scripts/effective_number.py --figure docs/figures/effective_number.png

A class has N distinct prototypes and n images are drawn from them at random; how many prototypes are covered? Cui et
al. (CVPR 2019, proposition 1) say E_n = (1 - beta^n) / (1 - beta) with beta = (N - 1) / N in the mean. Printed is that,
the mean of the draws, its standard error, and how many standard errors lie between the two; then the limits beta = 0
(one, whatever n) and beta -> 1 (n). The figure shows the weight of a class against its images for several beta.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ltr.losses.weights import effective_number
from ltr.randomness import generator
from ltr.report.style import figure_file

PROTOTYPES = (10, 100, 1_000, 10_000)
IMAGES = (1, 10, 100, 1_000, 5_000)
BETAS = (0.9, 0.99, 0.999, 0.9999)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2_000, help="samples per kind (default: 2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path, help="write the figure of weights to this file")
    arguments = parser.parse_args()
    print(f"{'N':>7} {'n':>6} {'E_n':>10} {'drawn':>10} {'s.e.':>7} {'off by':>7}")
    worst = 0.0
    for prototypes in PROTOTYPES:
        for images in IMAGES:
            expected = float(effective_number(np.array([images]), (prototypes - 1) / prototypes)[0])
            drawn = covered(prototypes, images, arguments.repeats, arguments.seed)
            error = drawn.std(ddof=1) / np.sqrt(len(drawn))
            off = abs(drawn.mean() - expected) / error if error else float(abs(drawn.mean() - expected) > 1e-6)
            worst = max(worst, off)
            print(f"{prototypes:>7,} {images:>6,} {expected:>10.3f} {drawn.mean():>10.3f} {error:>7.3f} {off:>5.1f} se")
    print(f"largest difference: {worst:.1f} standard errors, over {len(PROTOTYPES) * len(IMAGES)} comparisons")
    counts = np.array(IMAGES)
    print(f"beta = 0: {effective_number(counts, 0.0).tolist()}")
    nearly_one = [round(value, 3) for value in effective_number(counts, 1 - 1e-12).tolist()]
    print(f"beta = 1 - 1e-12: {nearly_one} for n = {IMAGES}")
    if arguments.figure:
        draw(arguments.figure)


def covered(prototypes: int, images: int, repeats: int, seed: int) -> np.ndarray:
    """Return the numbers of distinct ``prototypes`` in ``images`` uniform samples, int64 [repeats]."""
    random = generator(seed, "effective number", prototypes, images)
    distinct = np.empty(repeats, dtype=np.int64)
    for repeat in range(repeats):
        distinct[repeat] = len(np.unique(random.integers(0, prototypes, images)))
    return distinct


def draw(path: Path) -> None:
    """Draw weights 1 / E_n over n, each curve relative to a class with one image."""
    counts = np.unique(np.logspace(0, np.log10(5_000), 60).astype(np.int64))
    with figure_file(path, 7.4, 5.0) as figure:
        axes = figure.subplots()
        shades = np.linspace(0.75, 0.0, len(BETAS))
        for beta, shade in zip(BETAS, shades):
            colour = (0.0, 0.27 + 0.5 * shade, 0.53 + 0.4 * shade)
            axes.loglog(counts, 1 / effective_number(counts, beta), color=colour, label=f"beta = {beta:g}")
        axes.loglog(counts, 1 / counts, color="#777777", linestyle=":", label="1 / n (beta → 1)")
        axes.set_xlabel("training images of the class")
        axes.set_ylabel("weight, relative to one image")
        axes.legend()


if __name__ == "__main__":
    main()
