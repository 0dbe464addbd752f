"""Class priors for ``evaluation.prior``: the prior in deployment, and the prior implied by a network's scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltr.data.tables import read_columns
from ltr.errors import ConfigError, DataError
from ltr.escaping import csv_text
from ltr.evaluation.priors import normalise_prior
from ltr.identity import name_of
from ltr.names import canonical

TRAIN, UNIFORM, ESTIMATE = "train", "uniform", "estimate"
# prior of the scores of each loss after training with instance sampling
_PLAIN = ("loss/cross_entropy",)
_ADJUSTED = ("loss/balanced_softmax", "loss/logit_adjusted")


def evaluation_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the evaluation config; if ``prior`` is set, with ``prior_of_scores`` filled in.

    Raises:
        ConfigError: loss, sampler and method do not determine the prior of the scores.
    """
    evaluation: Mapping[str, Any] = config["evaluation"]
    if evaluation.get("prior") is None or evaluation.get("prior_of_scores") is not None:
        return evaluation
    inferred = prior_of_scores(config)
    if inferred is None:
        raise ConfigError(
            f"evaluation.prior={evaluation['prior']}: method={config['method']['name']} with this loss and sampler "
            "does not determine the class prior of its scores. Set evaluation.prior_of_scores=train (cross-entropy "
            "with instance sampling) or uniform (trained on or adjusted to balanced classes)"
        )
    return {**evaluation, "prior_of_scores": inferred}


def prior_of_scores(config: Mapping[str, Any]) -> str | None:
    """Return the class prior of a network's softmax scores: ``train``, ``uniform``, or None if it is undetermined.

    It is determined for erm and crt, and for posthoc_la at tau 1, with cross-entropy, balanced softmax or the
    logit-adjusted loss at tau 1, and instance or class-balanced sampling, without deferral.
    """
    method, name = config["method"], config["method"]["name"]
    if name == "crt":
        parts = method["classifier"]
        return _of_training(parts["loss"], parts["sampler"])
    trained = _of_training(config["loss"], config["sampler"])
    if name == "erm" and not method.get("extras"):
        return trained
    if name == "posthoc_la" and not method.get("representation"):
        return UNIFORM if trained == TRAIN and method["tau"] == 1 else None
    return None


def deployment_prior(value: str, class_counts: np.ndarray, class_names: Sequence[str]) -> np.ndarray | None:
    """Return the prior of a value of ``evaluation.prior`` or ``prior_of_scores``, float64 [C]; None to estimate it.

    Args:
        value: ``uniform`` or ``train``; for ``prior`` also ``estimate``, or a CSV file with the columns ``class`` (a
            class name of the split) and ``weight``.
        class_counts: int64 [C], training images of each class.

    Raises:
        DataError: the file does not exist, or does not hold one weight for each class.
        ConfigError: the weights are not a prior.
    """
    if value == ESTIMATE:
        return None
    if value == UNIFORM:
        return np.full(len(class_counts), 1 / len(class_counts))
    if value == TRAIN:
        return normalise_prior(class_counts)
    return normalise_prior(_weights(Path(value), class_names))


def _of_training(loss: Mapping[str, Any], sampler: Mapping[str, Any]) -> str | None:
    kind, sampling = (name_of(str(config.get("_target_", ""))) for config in (loss, sampler))
    if loss.get("defer_from") is not None or sampler.get("defer_from") is not None:
        return None
    if sampling == "sampler/instance" and kind in _PLAIN:
        return TRAIN
    if sampling == "sampler/instance" and kind in _ADJUSTED and loss.get("tau", 1.0) == 1:
        return UNIFORM
    if sampling == "sampler/class_balanced" and kind in _PLAIN:
        return UNIFORM
    return None


def _weights(path: Path, class_names: Sequence[str]) -> np.ndarray:
    form = "a CSV file with the columns class,weight and a line for each class of the split"
    if not path.is_file():
        raise DataError(f"evaluation.prior={path}: there is no such file. Give uniform, train, estimate, or {form}")
    try:
        texts = read_columns(path, ("class", "weight")).texts
        names = [canonical(csv_text(name)) for name in texts["class"]]
        pairs = [(name, float(weight)) for name, weight in zip(names, texts["weight"], strict=True)]
    except (DataError, ValueError) as error:
        raise DataError(f"evaluation.prior={path}: it cannot be read ({error}). Give {form}") from error
    weights, known = dict(pairs), set(class_names)
    missing = [name for name in class_names if name not in weights]
    unknown = [name for name in weights if name not in known]
    if missing or unknown or len(weights) != len(pairs):
        wrong = f"the class {unknown[0]!r}" if unknown else "a class twice"
        what = f"no weight for {missing[0]!r}" if missing else wrong
        raise DataError(
            f"evaluation.prior={path}: it has {what}; the split's {len(class_names)} classes are "
            f"{', '.join(class_names[:3])}, ... Give {form}"
        )
    return np.array([weights[name] for name in class_names])
