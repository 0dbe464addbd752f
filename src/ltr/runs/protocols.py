"""The protocols that a split is evaluated by, built as the evaluation config says."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ltr.data.splits import Split
from ltr.errors import ConfigError
from ltr.evaluation.detectors import Detector, is_detector
from ltr.methods.core.stage import Method

# name -> (module of ltr.evaluation, class): imported when a split asks for it
PROTOCOLS = {
    "closed_set": ("closed_set", "ClosedSet"),
    "background": ("background", "Background"),
    "open_set": ("open_set", "OpenSet"),
    "retrieval": ("retrieval", "Retrieval"),
    "few_shot": ("few_shot", "FewShot"),
}
BACKGROUND_SCORERS = ("probability", "logit")


def protocols_of(
    split: Split, config: Mapping[str, Any], link: str, device: torch.device, keep_predictions: bool = True
) -> list[Any]:
    """Fresh objects of the split's protocols, one for each row of results; the first is the headline.

    Args:
        config: the evaluation config.
        link: softmax or sigmoid, as the network's loss declares.
        keep_predictions: whether a row per image is wanted; it is kept of the first object alone.

    Raises:
        ConfigError: a protocol that there is none of, or values of the config that contradict each other.
    """
    found: list[Any] = []
    for name in split.protocols:
        for make in _makers(name, split, config, link, device):
            found.append(make(keep_predictions and not found))
    return found


def selecting_protocol(split: Split, config: Mapping[str, Any], link: str, device: torch.device) -> Any:
    """The object that evaluates while training: the headline's, without a row per image."""
    return protocols_of(split, config, link, device, keep_predictions=False)[0]


def headline_metric(split: Split) -> str:
    """The metric that selects and that a sweep optimises; larger is better."""
    return protocol_class(split.protocols[0], split).headline


def evaluated_parts(split: Split, part: str, scorers: Sequence[str] = ()) -> tuple[str, ...]:
    """The parts of the split that are looked at when ``part`` is evaluated: unknown images belong to the test.

    Args:
        scorers: of the evaluation config: some are fitted to the training images, which come last.
    """
    more = [name for protocol in split.protocols for name in protocol_class(protocol, split).parts]
    fitted = "open_set" in split.protocols and any(
        Detector(name).needs_training for name in scorers if is_detector(name)
    )
    return (part, *(dict.fromkeys(more) if part == "test" else ()), *(["train"] if fitted else []))


def protocol_class(name: str, split: Split) -> Any:
    """The class of a protocol.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"the split '{split.name}' is evaluated by '{name}'; there are {', '.join(PROTOCOLS)}")
    module, attribute = PROTOCOLS[name]
    return getattr(importlib.import_module(f"ltr.evaluation.{module}"), attribute)


def check_method(method: Method, name: str, split: Split, config: Mapping[str, Any]) -> None:
    """Refuse a method whose predictions lack what the split's protocols evaluate.

    Args:
        name: of the method, for the message.
        config: the evaluation config.

    Raises:
        ConfigError: the combination cannot be evaluated, or unknown images are missing where they are evaluated.
    """
    for protocol in split.protocols:
        needs = set(protocol_class(protocol, split).needs)
        if protocol == "open_set":
            needs |= needed_by(config["scorers"])
        lacking = [need for need in sorted(needs) if need not in method.provides]
        if lacking == ["knownness"]:
            raise ConfigError(
                f"evaluation.scorers={list(config['scorers'])}: method={name} gives no distance to score by. Leave "
                "'distance' out, or use a method with reciprocal points or prototypes (rpl, arpl, gcpl)"
            )
        if lacking:
            raise ConfigError(
                f"the split '{split.name}' is evaluated by {protocol}, which needs {' and '.join(lacking)}; "
                f"method={name} "
                f"gives {', '.join(method.provides)} only. Choose another method or another dataset config"
            )
        if protocol == "open_set" and not len(split.unknown):
            raise ConfigError(
                f"the split '{split.name}' is evaluated by open_set and has no unknown images to be told apart. "
                "Set dataset.unknown or dataset.classes so that some classes are unknown"
            )


def needed_by(scorers: Sequence[str]) -> set[str]:
    """What these scorers look at beside logits: ``knownness``, ``features``."""
    features = any(Detector(name).of_features for name in scorers if is_detector(name))
    return {*(["knownness"] if "distance" in scorers else []), *(["features"] if features else [])}


def _makers(
    name: str, split: Split, config: Mapping[str, Any], link: str, device: torch.device
) -> list[Callable[[bool], Any]]:
    """How the objects of one protocol are made; each is told whether it keeps a row per image."""
    cls = protocol_class(name, split)
    for key in ("scorers", "recall_at"):
        if not config[key]:
            raise ConfigError(f"evaluation.{key}=[]: at least one is needed")
    groups = {"many_above": config["many_above"], "few_below": config["few_below"]}
    common = {"link": link, "device": device}

    def maker(*arguments: Any, **options: Any) -> Callable[[bool], Any]:
        return lambda keep: cls(*arguments, keep_predictions=keep, **options)

    if name == "closed_set":
        options = {"top_k": config["top_k"], "calibration_bins": config["calibration_bins"]}
        return [maker(split.class_counts, **groups, **options, **common)]
    if name == "background":
        return [maker(split.class_counts, scorer=scorer, **groups, **common) for scorer in BACKGROUND_SCORERS]
    if name == "open_set":
        return [maker(split.class_counts, scorer=scorer, **groups, **common) for scorer in config["scorers"]]
    if name == "retrieval":
        return [maker(recall_at=tuple(config["recall_at"]), device=device)]
    few_shot = {key: config[key] for key in ("way", "shot", "queries", "episodes")}
    return [maker(**few_shot, device=device)]
