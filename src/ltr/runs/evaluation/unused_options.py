"""Options of the evaluation config without effect on a split: refused by ``ltr-eval``, reported by a training."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any

from ltr.configuration.configs import read_config
from ltr.configuration.listed_configs import config_of, listed_names
from ltr.data.split import Split
from ltr.errors import ConfigError
from ltr.evaluation.protocol import Protocol
from ltr.runs.evaluation.protocols import protocol_class, protocols_with_configs

_OF_LABEL_SHIFT = {"many_above", "few_below"}  # options that the rows of ``evaluation.prior`` read


def refuse_unused_options(split: Split, evaluation: Mapping[str, Any], keys: Collection[str], part: str) -> None:
    """Raise ConfigError if options have no effect.

    Args:
        split: the evaluated split.
        evaluation: the evaluation config.
        keys: keys of ``evaluation`` that the user has set.
        part: evaluated part of the split.
    """
    messages = list(_unused(split, evaluation, keys, part))
    if messages:
        raise ConfigError("\n  ".join(messages))


def warn_of_unused_options(config: Mapping[str, Any], split: Split) -> None:
    """Warn of evaluation options of a training that differ from their defaults and have no effect.

    It is a warning, because a shared recipe may set them.
    """
    evaluation, defaults = config["evaluation"], read_config("evaluation/default")
    defaults["scorers"] = config["method"].get("scorers") or evaluation["usual_scorers"]
    keys = [key for key, default in defaults.items() if key in evaluation and evaluation[key] != default]
    messages = list(_unused(split, evaluation, keys, "test"))
    is_monitored = len(split.val) or evaluation["monitor_split"] or config["trainer"]["selection"] == "best_test"
    if "every_n_epochs" in keys and not is_monitored:
        messages.append(
            f"evaluation.every_n_epochs={evaluation['every_n_epochs']} has no effect: the split '{split.name}' has no "
            "validation images. Leave it out, or hold some out with dataset.val=train_fraction"
        )
    for message in messages:
        warnings.warn(message, stacklevel=2)


def _unused(split: Split, evaluation: Mapping[str, Any], keys: Collection[str], part: str) -> Iterator[str]:
    """Yield a message for each of ``keys`` that has no effect."""
    used: set[str] = set()
    names = []
    for config, cls in protocols_with_configs(split, evaluation):
        names.append(cls.name)
        used |= _options(cls) - config.keys()
    if evaluation.get("prior") is not None and part == "test":
        used |= _OF_LABEL_SHIFT
    for key in keys:
        what = f"evaluation.{key}={evaluation[key]} has no effect: "
        read_key = "scorers" if key == "usual_scorers" else key
        readers = _readers().get(read_key)
        if readers and read_key not in used:
            has = "has" if len(readers) == 1 else "have"
            yield (
                f"{what}the split '{split.name}' is evaluated by {' and '.join(names)}, and only "
                f"{' and '.join(readers)} {has} this option. Leave it out, or choose a dataset config "
                f"that {' or '.join(readers)} evaluates"
            )
        elif key == "usual_scorers" and evaluation["scorers"] != evaluation[key]:
            yield f"{what}evaluation.scorers or the method names {evaluation['scorers']}. Set evaluation.scorers"
        elif key == "prior" and evaluation[key] is not None and part != "test":
            yield f"{what}a deployment prior applies to test images, and '{part}' is evaluated. Leave it or --split out"
        elif key == "prior_of_scores" and evaluation[key] is not None and evaluation.get("prior") is None:
            yield f"{what}evaluation.prior is null. Set evaluation.prior=uniform, train, estimate or a CSV file"


@cache
def _readers() -> dict[str, list[str]]:
    """Return the shipped protocols that read an option, by option."""
    readers: dict[str, list[str]] = {}
    for name in listed_names("protocol"):
        for key in sorted(_options(protocol_class(config_of("protocol", name)))):
            readers.setdefault(key, []).append(name)
    return readers


def _options(cls: type[Protocol]) -> set[str]:
    """Return the keys of ``evaluation`` that a protocol reads."""
    names = inspect.signature(cls).parameters.keys() & read_config("evaluation/default").keys()
    has_scorers = "scorer" in inspect.signature(cls).parameters and not cls.own_scorers
    return set(names) | ({"scorers"} if has_scorers else set())
