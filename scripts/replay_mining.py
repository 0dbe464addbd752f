"""Replay rounds of mining on labelled data: how many labels each strategy needs to find the images of rare classes.

    python scripts/replay_mining.py --dataset digits_bg --rare 3 --rounds 8 --batch 30 --out outputs/replay

Every image that the split has for training is the pool. Each strategy begins with the same labels, one image of each
rare class and a random sample. In each round it trains a linear classifier on features of all labels so far, rare
classes against the background, and selects the next batch; "labelling" looks the classes up. Written to ``--out``:
``replay.csv`` (a row for each strategy, seed and round), ``summary.csv`` (means over seeds) and ``replay.png``.
Reported: positives (images of rare classes) per 100 labels, the labels needed until ``--found`` images of every rare
class are known, and the mean average precision of the rare classes on the test images.

Features: pixels; or an .npy file float [N, D] with a row for each image of the data set (``--features FILE``), which
``--weights FILE`` (of torchvision's squeezenet1_0) computes first if it is not there; or the folder of a stage
``features`` that a run with ``features=stored`` left (``--features outputs/stages/KEY``; ``ltr-stages list`` has keys).
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltr.apply.acquisition import STRATEGIES, PoolScores, select
from ltr.evaluation.ranking import ranked_positives
from ltr.files import write_csv
from ltr.randomness import generator


@dataclass(frozen=True)
class Data:
    """Features and labels; label 0 is the background, 1..K are the rare classes."""

    pool: np.ndarray
    pool_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray

    @property
    def num_classes(self) -> int:
        return int(self.pool_labels.max()) + 1


@dataclass(frozen=True)
class Round:
    """State of a strategy after a round: labels so far, images of rare classes among them, and mAP."""

    strategy: str
    seed: int
    round: int
    labels: int
    positives: int
    fewest: int  # images of the rare class with the fewest
    mean_average_precision: float


def read(
    dataset: str, overrides: list[str], features: Path | None, weights: Path | None, rare: int, share: float, seed: int
) -> Data:
    """Read a background split and its features; rare classes keep only a share of their images in the pool."""
    from ltr.configuration.overrides import load_config
    from ltr.data.packed_images.reading import read_source
    from ltr.data.splitting.exclusion import read_split

    named = [f"dataset={dataset}", f"dataset.n_foreground={rare}", *overrides]
    config = load_config(named)
    source = read_source({**config["dataset"], "image_size": None})
    split = read_split(config["dataset"], source)
    if features is not None and weights is not None and not features.is_file():
        features.parent.mkdir(parents=True, exist_ok=True)
        np.save(features, extract(np.asarray(source.images), weights, side=64))
    if features is None:
        values = np.asarray(source.images, dtype=np.float32).reshape(len(source), -1) / 255
    elif features.is_dir():
        needed = np.concatenate([split.train, split.test])
        stored = read_stored(features, source, needed)
        values = np.zeros((len(source), stored.shape[1]), dtype=np.float32)
        values[needed] = stored
    else:
        values = np.load(features).astype(np.float32)
    if len(values) != len(source):
        raise SystemExit(f"{features} has {len(values):,} rows, and {source.name} {len(source):,} images")
    labels = split.label_map[source.labels]
    keep = generator(seed, "rarity").uniform(size=len(source)) < share
    pool = split.train[(labels[split.train] == 0) | keep[split.train]]
    mean, std = values[pool].mean(axis=0), values[pool].std(axis=0) + 1e-6
    values = (values - mean) / std
    return Data(values[pool], labels[pool], values[split.test], labels[split.test])


def read_stored(folder: Path, source: Any, needed: np.ndarray) -> np.ndarray:
    """Return the features float32 [n, D] that a stage ``features`` holds of the images ``needed`` of a source."""
    from ltr.data.loaders.feature_table import FeatureTable

    try:
        record = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
        fingerprint, width = record["spec"]["source"], int(record["width"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{folder} is no stage of stored features ({error}). ltr-stages list shows them") from error
    if fingerprint != source.fingerprint:
        raise SystemExit(f"{folder} holds features of other data than {source.name}, with the same --override")
    table = FeatureTable(folder, len(source), width, print)
    missing = table.missing(needed)
    if len(missing):
        raise SystemExit(
            f"{folder} lacks {len(missing):,} images of the split. Run ltr-train with features=stored on it"
        )
    return table.take(needed)


def extract(images: np.ndarray, weights: Path, side: int, batch: int = 250) -> np.ndarray:
    """Return squeezenet1_0's features float16 [N, 512] of uint8 images [N, H, W, 3], resized to ``side`` pixels."""
    import torch
    from torch.nn.functional import interpolate
    from torchvision.models import squeezenet1_0

    network = squeezenet1_0()
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    tables = []
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            pixels = torch.from_numpy(np.array(images[start : start + batch])).permute(0, 3, 1, 2).float() / 255
            large = interpolate(pixels, size=(side, side), mode="bilinear", antialias=True)
            tables.append(network.features((large - mean) / std).mean(dim=(2, 3)).half().numpy())
    return np.concatenate(tables)


def classify(data: Data, known: np.ndarray, *rows: np.ndarray) -> list[np.ndarray]:
    """Train multinomial logistic regression on the known images; return probabilities [n, C] of each table of rows."""
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence
        model = LogisticRegression(C=0.1, max_iter=200, class_weight="balanced")
        model.fit(data.pool[known], data.pool_labels[known])
    tables = []
    for values in rows:
        table = np.zeros((len(values), data.num_classes), dtype=np.float32)
        table[:, model.classes_] = model.predict_proba(values)
        tables.append(table)
    return tables


def first_labels(data: Data, number: int, seed: int) -> np.ndarray:
    """Return one image of each rare class and a random sample, ``number`` in all."""
    random = generator(seed, "first labels")
    rare = [random.choice(np.flatnonzero(data.pool_labels == label)) for label in range(1, data.num_classes)]
    order = random.permutation(len(data.pool))
    return np.array([*rare, *order[~np.isin(order, rare)][: max(number - len(rare), 1)]])


def replay(data: Data, strategy: str, *, rounds: int, batch: int, seed: int, distance: float) -> Iterator[Round]:
    """Yield the state of a strategy after each round."""
    known = first_labels(data, batch, seed)
    for number in range(rounds + 1):
        is_known = np.zeros(len(data.pool), dtype=bool)
        is_known[known] = True
        rest = np.flatnonzero(~is_known)
        pool_scores, test_scores = classify(data, known, data.pool[rest], data.test)
        precisions = [
            ranked_positives(test_scores[:, label], data.test_labels == label).average_precision()
            for label in range(1, data.num_classes)
        ]
        counts = np.bincount(data.pool_labels[known], minlength=data.num_classes)[1:]
        yield Round(
            strategy, seed, number, len(known), int(counts.sum()), int(counts.min()), float(np.mean(precisions))
        )
        if number == rounds:
            return
        scores = PoolScores(pool_scores, 0, data.pool[rest], data.pool[known])
        classes = data.num_classes - 1
        budgets = {label: batch // classes + (label <= batch % classes) for label in range(1, classes + 1)}
        selection = select(strategy, scores, budgets, seed=seed * 1000 + number, min_distance=distance)
        known = np.concatenate([known, rest[selection.images]])


def summarise(rows: list[Round], count: int) -> list[dict[str, Any]]:
    """Return means over seeds of each strategy's last round, and the labels needed to find enough of every class."""
    lines = []
    for strategy in dict.fromkeys(row.strategy for row in rows):
        rows_of_strategy = [row for row in rows if row.strategy == strategy]
        last = [row for row in rows_of_strategy if row.round == max(one.round for one in rows_of_strategy)]
        first = {row.seed: row for row in rows_of_strategy if row.round == 0}
        needed = []
        for seed in first:
            enough = [row.labels for row in rows_of_strategy if row.seed == seed and row.fewest >= count]
            needed.append(min(enough) if enough else np.nan)
        mined = [
            100 * (row.positives - first[row.seed].positives) / (row.labels - first[row.seed].labels) for row in last
        ]
        lines.append(
            {
                "strategy": strategy,
                "seeds": len(first),
                "labels": last[0].labels,
                "positives per 100 labels": round(float(np.mean(mined)), 1),
                f"labels until {count} of each class": "not reached"
                if np.isnan(needed).any()
                else round(float(np.mean(needed))),
                "mAP": round(100 * float(np.mean([row.mean_average_precision for row in last])), 1),
            }
        )
    return lines


def draw(rows: list[Round], path: Path) -> None:
    """Draw positives and mAP over the number of labels, means over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    styles = ["-", "--", "-.", ":"]
    for number, strategy in enumerate(dict.fromkeys(row.strategy for row in rows)):
        rows_of_strategy = [row for row in rows if row.strategy == strategy]
        labels = sorted({row.labels for row in rows_of_strategy})
        for axis, field in zip(axes, ("positives", "mean_average_precision")):
            means = [np.mean([getattr(row, field) for row in rows_of_strategy if row.labels == one]) for one in labels]
            axis.plot(labels, means, styles[number % 4], marker="osv^Dx*"[number % 7], markersize=4, label=strategy)
    axes[0].set(xlabel="labels", ylabel="images of rare classes found")
    axes[1].set(xlabel="labels", ylabel="mAP of the rare classes on test images")
    axes[1].legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits_bg", help="data set with a background split (default: digits_bg)")
    parser.add_argument(
        "--override", action="append", default=[], metavar="KEY=VALUE", help="override of the dataset config"
    )
    parser.add_argument(
        "--features", type=Path, metavar="FILE", help=".npy file with a row per image, or a stage of stored features"
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="weights of torchvision's squeezenet1_0")
    parser.add_argument("--rare", type=int, default=3, help="number of rare classes (default: 3)")
    parser.add_argument("--share", type=float, default=0.1, help="share of their images in the pool (default: 0.1)")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch", type=int, default=30, help="labels per round (default: 30)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--found", type=int, default=5, help="images per rare class to find (default: 5)")
    parser.add_argument("--min-distance", type=float, default=0.0)
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--out", type=Path, default=Path("outputs/replay"))
    arguments = parser.parse_args()
    rows: list[Round] = []
    for seed in range(arguments.seeds):
        data = read(
            arguments.dataset,
            arguments.override,
            arguments.features,
            arguments.weights,
            arguments.rare,
            arguments.share,
            seed,
        )
        if not seed:
            counts = np.bincount(data.pool_labels)
            print(f"{len(data.pool):,} images in the pool, {counts[1:].sum():,} of {len(counts) - 1} rare classes")
        for strategy in arguments.strategies:
            rows += replay(
                data,
                strategy,
                rounds=arguments.rounds,
                batch=arguments.batch,
                seed=seed,
                distance=arguments.min_distance,
            )
    lines = summarise(rows, arguments.found)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_csv(arguments.out / "replay.csv", map(asdict, rows))
    write_csv(arguments.out / "summary.csv", lines)
    draw(rows, arguments.out / "replay.png")
    for line in lines:
        print(", ".join(f"{key}: {value}" for key, value in line.items()))


if __name__ == "__main__":
    main()
