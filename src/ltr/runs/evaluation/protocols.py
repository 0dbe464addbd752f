"""Construction of a split's evaluation protocols from the evaluation config."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from ltr.configuration.listed_configs import config_of, listed_names
from ltr.configuration.targets import instantiate, locate
from ltr.data.source import Source
from ltr.data.split import Split
from ltr.errors import ConfigError, nearest
from ltr.evaluation.label_shift import LabelShift, label_shift_rows
from ltr.evaluation.protocol import Protocol
from ltr.evaluation.scorers import build_scorer
from ltr.methods.core.stage import Method
from ltr.results import is_name
from ltr.runs.evaluation.deployment_prior import deployment_prior

CPU = torch.device("cpu")
_USUAL_SCORERS = ("msp", "max_logit")  # as in conf/evaluation/default.yaml
# options by which the headline metrics of ltr's own protocols do not depend
_OF_OTHER_METRICS = ("many_above", "few_below", "top_k", "calibration_bins", "recall_at", "scorers")
_LISTS = ("scorers", "recall_at")  # lists of the evaluation config that need at least one entry


def protocols_of(
    split: Split, evaluation: Mapping[str, Any], link: str, device: torch.device, keep_predictions: bool = True
) -> list[Any]:
    """Build new objects of the split's protocols, one for each row of results; the first is the headline.

    Args:
        evaluation: the evaluation config; with ``prior`` also ``prior_of_scores``, see
            `ltr.runs.evaluation.deployment_prior.evaluation_of`.
        link: ``softmax`` or ``sigmoid``, as declared by the network's loss.
        keep_predictions: True keeps a row per image, in the first object only.

    Raises:
        ConfigError: a protocol is unknown, or values of the config contradict each other.
    """
    for key in _LISTS:
        if not evaluation[key]:
            raise ConfigError(f"evaluation.{key}=[]: the list is empty. Give at least one entry")
    arguments = {
        **{key: value for key, value in evaluation.items() if key not in ("scorers", "usual_scorers")},
        "class_counts": split.class_counts,
        "class_names": split.class_names,
        "link": link,
        "device": device,
    }
    protocols: list[Any] = []
    for config, cls in protocols_with_configs(split, evaluation):
        names = inspect.signature(cls).parameters
        for scorer in _scorers_of(cls, evaluation) if "scorer" in names else [None]:
            values = {**arguments, "keep_predictions": keep_predictions and not protocols, "scorer": scorer}
            supplied = {name: value for name, value in values.items() if name in names and name not in config}
            protocols.append(instantiate(config, **supplied))
    if keep_predictions and evaluation.get("prior") is not None:
        protocols += _label_shift(split, evaluation, link, device)
    _check_rows(protocols)
    return protocols


def selecting_protocol(split: Split, evaluation: Mapping[str, Any], link: str, device: torch.device) -> Any:
    """Build the protocol of the evaluation during training: the headline protocol, without a row per image."""
    return protocols_of(split, evaluation, link, device, keep_predictions=False)[0]


def selecting_options(split: Split, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the evaluation config that enter the value of `headline_metric`, except at their default.

    Args:
        evaluation: the evaluation config.
    """
    config = _config_of(split.protocols[0], split)
    cls = protocol_class(config)
    is_from_ltr = cls.__module__.partition(".")[0] == "ltr"
    options: dict[str, Any] = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        option = "scorers" if name == "scorer" else name
        if option not in evaluation or name in config or (is_from_ltr and option in _OF_OTHER_METRICS):
            continue
        default = list(_USUAL_SCORERS) if option == "scorers" else parameter.default
        if _comparable(evaluation[option]) != _comparable(default):
            options[option] = evaluation[option]
    return options


def _comparable(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def headline_metric(split: Split) -> str:
    """Return the name of the metric that selects weights and that a sweep maximises."""
    return protocol_class(_config_of(split.protocols[0], split)).headline


def declared_metrics(split: Split, evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the metric declarations of protocols from outside ltr, in the form of ``result.json``."""
    declared = [
        replace(metric, protocol=cls.name)
        for _, cls in protocols_with_configs(split, evaluation)
        for metric in cls.metrics
    ]
    return [metric.to_dict() for metric in declared]


def evaluated_parts(split: Split, part: str, evaluation: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the parts of the split to read for an evaluation of ``part``: the test part includes unknown images.

    The training images come last, if a scorer is fitted to them.
    """
    classes = [cls for _, cls in protocols_with_configs(split, evaluation)]
    further_parts = [name for cls in classes for name in cls.parts]
    uses_scorers = any("scorer" in inspect.signature(cls).parameters and not cls.own_scorers for cls in classes)
    is_fitted = uses_scorers and any(build_scorer(entry).needs_training for entry in evaluation["scorers"])
    return (part, *(dict.fromkeys(further_parts) if part == "test" else ()), *(["train"] if is_fitted else []))


def check_method(method: Method, name: str, split: Split, source: Source, evaluation: Mapping[str, Any]) -> None:
    """Refuse a method whose predictions lack what the split's protocols need, and images that they cannot evaluate.

    Args:
        name: name of the method, for the message.

    Raises:
        ConfigError: the combination cannot be evaluated, a scorer is unknown, or unknown images are missing where they
            are needed.
        DataError: the split has too few images for a protocol.
    """
    for entry in evaluation["scorers"]:  # a wrong name is refused even if no protocol uses scorers
        build_scorer(entry)
    for protocol in protocols_of(split, evaluation, "softmax", CPU, keep_predictions=False):
        lacking = [need for need in sorted(set(protocol.needs)) if need not in method.provides]
        if lacking == ["knownness"]:
            raise ConfigError(
                f"evaluation.scorers={_names(evaluation)}: method={name} has no distance to score by. Leave "
                f"'{protocol.scorer}' out, or use a method with reciprocal points or prototypes (rpl, arpl, gcpl)"
            )
        if lacking:
            raise ConfigError(
                f"the split '{split.name}' is evaluated by {protocol.name}, which needs {' and '.join(lacking)}; "
                f"method={name} gives {', '.join(method.provides)} only. Choose another method or another dataset "
                "config"
            )
        check_parts(protocol, split)
        for part in ("val", "test"):
            check_labels(protocol, split, source, part)


def check_labels(protocol: Protocol, split: Split, source: Source, part: str) -> None:
    """Raise LtrError if a protocol cannot evaluate the images of a part, unless there are none."""
    images = getattr(split, part)
    if len(images):
        protocol.check_labels(split.label_map[source.labels[images]])


def check_parts(protocol: Protocol, split: Split) -> None:
    """Raise ConfigError if a part that a protocol needs, such as the unknown images, is empty."""
    if "unknown" in protocol.parts and not len(split.unknown):
        raise ConfigError(
            f"the split '{split.name}' is evaluated by {protocol.name} and has no images of unknown classes. Set "
            "dataset.unknown or dataset.classes so that some classes are unknown"
        )


def protocols_with_configs(
    split: Split, evaluation: Mapping[str, Any]
) -> Iterator[tuple[Mapping[str, Any], type[Protocol]]]:
    """Yield config and class of the split's protocols and of the evaluation config's extra protocols."""
    extra = [entry for entry in evaluation.get("extra_protocols") or () if entry not in split.protocols]
    for entry in (*split.protocols, *extra):
        config = _config_of(entry, split)
        yield config, protocol_class(config)


def _config_of(entry: str | Mapping[str, Any], split: Split) -> Mapping[str, Any]:
    if isinstance(entry, str) and entry not in listed_names("protocol"):
        names = listed_names("protocol")
        raise ConfigError(
            f"the split '{split.name}' is evaluated by '{entry}'; there are {', '.join(names)}"
            f"{nearest(entry, names) or '.'} To use a custom protocol, give "
            "evaluation.extra_protocols a mapping with its _target_"
        )
    return config_of("protocol", entry)


def protocol_class(config: Mapping[str, Any]) -> type[Protocol]:
    """Return the class of a protocol's config.

    Raises:
        ConfigError: its target is not a protocol.
    """
    cls = locate(config["_target_"], "evaluation.extra_protocols")
    if not (inspect.isclass(cls) and issubclass(cls, Protocol)):
        raise ConfigError(
            f"evaluation.extra_protocols: {config['_target_']} is not a protocol. Derive the class from "
            "ltr.evaluation.protocol.Protocol or ltr.evaluation.protocol.PerImageProtocol"
        )
    lacking = [key for key in ("name", "headline") if not hasattr(cls, key)]
    if lacking or not is_name(cls.name):
        raise ConfigError(
            f"evaluation.extra_protocols: {config['_target_']} needs class attributes name and headline, texts such as "
            f"name = 'hierarchy'{': it lacks ' + ' and '.join(lacking) if lacking else ', and its name names files'}. "
            "Set them in the class"
        )
    return cls


def _scorers_of(cls: type[Protocol], evaluation: Mapping[str, Any]) -> list[Any]:
    if cls.own_scorers:
        return list(cls.own_scorers)
    return [build_scorer(entry) for entry in evaluation["scorers"]]


def _label_shift(split: Split, evaluation: Mapping[str, Any], link: str, device: torch.device) -> list[LabelShift]:
    """Return the protocol objects under the deployment prior."""
    if "closed_set" not in split.protocols:
        raise ConfigError(
            f"evaluation.prior={evaluation['prior']}: the split '{split.name}' is evaluated by "
            f"{', '.join(map(str, split.protocols))}; a class prior is for closed_set only. Leave evaluation.prior out"
        )
    prior, score_prior = (
        deployment_prior(str(evaluation[key]), split.class_counts, split.class_names)
        for key in ("prior", "prior_of_scores")
    )
    assert score_prior is not None  # the config allows only train and uniform
    bounds = {key: evaluation[key] for key in ("many_above", "few_below")}
    return label_shift_rows(split.class_counts, prior, score_prior, link=link, device=device, **bounds)


def _check_rows(protocols: list[Any]) -> None:
    """Raise ConfigError if two rows of results would have the same name."""
    rows = [(protocol.name, protocol.scorer) for protocol in protocols]
    for name, scorer in rows:
        if scorer is not None and rows.count((name, scorer)) > 1:
            raise ConfigError(
                f"evaluation.scorers: two scorers have the name '{scorer}', which names their rows of results. Give "
                "one another name in its config, as in {_target_: ..., name: other}"
            )


def _names(evaluation: Mapping[str, Any]) -> list[str]:
    return [build_scorer(entry).name for entry in evaluation["scorers"]]
