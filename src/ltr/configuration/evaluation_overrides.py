"""Overrides of ``ltr-eval`` for the data set and the evaluation, and the layout of foreign weights.

Without ``dataset=CONFIG`` a run is evaluated on its training data set, see `ltr.configuration.reuse`. With it the
config is composed as by ``ltr-train``, and the settings of the training are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ltr.configuration.configs import config_names, read_config
from ltr.configuration.overrides import explain, load_config
from ltr.configuration.parsing import Parsed, parse
from ltr.configuration.reuse import with_overrides
from ltr.configuration.structure import OF_EVALUATION
from ltr.errors import ConfigError, nearest, refuse

FIGURES = ("none", "two", "all")
# values of the run that overrides may replace: the scorers of its method, and what changes speed alone
_KEPT = {"evaluation": ("scorers", "batch_size"), "trainer": OF_EVALUATION}
_OF_DATA = ("dataset", "evaluation")
_OF_NETWORK = ("backbone", "head", "loss")
_SIZE = "dataset.image_size"
# the codes whose names of tensors are known: those of ltr.models.published_names, which is heavy to import
PUBLISHED_CODES = ("m2m", "sla", "arpl", "herbs", "pim", "ldam", "akamaster")


@dataclass(frozen=True)
class ForeignWeights:
    """Reading a weights file of other code: ``weights.entry``, ``weights.map`` and ``weights.transposed``.

    Attributes:
        entry: dotted key of the entry with the tensors; None: ``state_dict``, ``model``, or the whole file.
        names: prefixes of names in the file -> prefixes in the network; None ignores such tensors.
        transposed: tensors of the file to transpose.
        layout: key of `ltr.models.published_names`, the code whose names the file uses; None: detect it, or use
            ``names``.
        padding: value of ``backbone.shortcut_padding`` in the command; None: the layout decides.
    """

    entry: str | None = None
    names: Mapping[str, str | None] = field(default_factory=dict)
    transposed: tuple[str, ...] = ()
    layout: str | None = None
    padding: str | None = None


@dataclass(frozen=True)
class EvaluationRequest:
    """The overrides of a command.

    Attributes:
        texts: all overrides except ``figures`` and ``weights.*``.
        parsed: the overrides of ``texts`` that can be parsed.
        config: CONFIG of ``dataset=CONFIG``; None: the training data set of each run.
        figures: ``none``, ``two`` or ``all``.
        weights: options for reading foreign weights.
        mistakes: messages about mistakes so far.
        image_size: value of ``dataset.image_size`` in pixels.
    """

    texts: tuple[str, ...]
    parsed: tuple[Parsed, ...]
    config: str | None
    figures: str
    weights: ForeignWeights
    foreign_keys: tuple[str, ...]
    mistakes: tuple[str, ...] = ()
    image_size: int | None = None

    @property
    def evaluation_keys(self) -> tuple[str, ...]:
        """Keys of ``evaluation`` that the command sets."""
        groups = (one.key.partition(".") for one in self.parsed)
        return tuple(key for group, _, key in groups if group == "evaluation" and key)

    @property
    def of_foreign(self) -> bool:
        """True if the command names the network of foreign weights."""
        return bool(self.foreign_keys)


def read_request(overrides: Sequence[str], mistakes: Sequence[str] = ()) -> EvaluationRequest:
    """Parse and group the overrides of ``ltr-eval``.

    Args:
        mistakes: mistakes from other checks, for the same message.
    """
    parsed, unread = parse(overrides)
    mistakes = [*mistakes, *unread]
    read_here = [one for one in parsed if one.key == "figures" or one.key.partition(".")[0] == "weights"]
    figures, weights = "none", {}
    for one in read_here:
        value = one.values[0]
        if one.key == "figures":
            if value not in FIGURES:
                allowed = f"allowed is one of: {', '.join(FIGURES)}{nearest(str(value), FIGURES)}"
                mistakes.append(f"{one.text}: {allowed}")
            figures = str(value)
        else:
            mistakes += _weights_mistakes(one)
            weights[one.key.removeprefix("weights.")] = value
    rest = tuple(one for one in parsed if one not in read_here)
    configs = [one.values[0] for one in rest if one.key == "dataset" and not isinstance(one.values[0], dict)]
    sizes = [one.values[0] for one in rest if one.key == _SIZE and isinstance(one.values[0], int)]
    backbone = [one.text for one in rest if one.key == "backbone"]
    return EvaluationRequest(
        texts=tuple(one.text for one in rest),
        parsed=rest,
        config=str(configs[-1]) if configs else None,
        figures=figures,
        weights=ForeignWeights() if mistakes else _foreign_weights(weights, rest),
        foreign_keys=tuple(backbone + [one.text for one in read_here if one.key != "figures"]),
        mistakes=tuple(mistakes),
        image_size=sizes[-1] if sizes else None,
    )


def _weights_mistakes(one: Parsed) -> list[str]:
    """Return the mistakes of an override of ``weights``."""
    value = one.values[0]
    texts = isinstance(value, list) and all(isinstance(name, str) for name in value)
    names = isinstance(value, dict) and all(to is None or isinstance(to, str) for to in value.values())
    if one.key == "weights.map" and isinstance(value, str):
        if value in PUBLISHED_CODES:
            return []
        known = f"{', '.join(PUBLISHED_CODES)}{nearest(value, PUBLISHED_CODES)}"
        return [f"{one.text}: no published code has this name; allowed: {known}"]
    needed = {
        "weights.entry": (isinstance(value, str), "the name of an entry of the file"),
        "weights.map": (
            names,
            f"'{{NAME_IN_FILE: NAME_IN_NETWORK, ...}}', null to leave out, or one of {', '.join(PUBLISHED_CODES)}",
        ),
        "weights.transposed": (texts, "a list of names in the file"),
    }
    if one.key not in needed:
        return [f"{one.text}: there is no key '{one.key}'; there are {', '.join(needed)}{nearest(one.key, needed)}"]
    fits, what = needed[one.key]
    return [] if fits else [f"{one.text}: allowed is {what}"]


def _foreign_weights(node: Mapping[str, Any], rest: Sequence[Parsed]) -> ForeignWeights:
    named = node.get("map") or {}
    layout = named if isinstance(named, str) else None
    names = {} if layout else {str(name): to for name, to in named.items()}
    padding = [str(one.values[0]) for one in rest if one.key == "backbone.shortcut_padding"]
    transposed = tuple(node.get("transposed") or ())
    return ForeignWeights(node.get("entry"), names, transposed, layout, padding[-1] if padding else None)


def for_run(config: Mapping[str, Any], request: EvaluationRequest, config_dir: str | None = None) -> dict[str, Any]:
    """Return the configuration that a run is evaluated by: its own, with another data set or other values.

    Args:
        config: the run's, plain.
        config_dir: the user's own folder of configs.

    Raises:
        ConfigError: names everything that is wrong with the overrides.
    """
    texts = [one.text for one in request.parsed if one.key not in _OF_NETWORK] if request.of_foreign else request.texts
    if request.config is None:
        return with_overrides(config, texts, request.mistakes, config_dir)
    node = _composed(request, _OF_DATA, config_dir)
    overridden = {one.key for one in request.parsed}
    result = {**config, "dataset": node["dataset"], "paths": node["paths"]}
    for group, kept in _KEPT.items():
        stored = config.get(group) or {}
        of_run = {key: stored[key] for key in kept if key in stored and f"{group}.{key}" not in overridden}
        of_training = {key: value for key, value in stored.items() if group == "trainer" and key not in kept}
        result[group] = {**node[group], **of_training, **of_run}
    trained_on = config.get("dataset")
    if isinstance(trained_on, Mapping):
        result["trained_on"] = {key: value for key, value in trained_on.items() if _describes_data(key, value)}
    return result


def _describes_data(key: str, value: Any) -> bool:
    return key not in ("root", "roots", "download", "folder") and not isinstance(value, Mapping)


def for_foreign(request: EvaluationRequest, config_dir: str | None = None, method: str | None = None) -> dict[str, Any]:
    """Return the configuration that foreign weights are evaluated by: data set, network and evaluation.

    Args:
        method: the config of the method whose network the whole file is, unless the command names another; None: the
            file is of a backbone and a classifier.

    Raises:
        ConfigError: no data set or no network is named, or overrides that are wrong.
    """
    chosen = {one.key for one in request.parsed}
    lacking = [f"{group}=CONFIG" for group in ("dataset", "backbone") if group not in chosen]
    if lacking:
        raise ConfigError(
            f"foreign weights do not describe their data and network. Add {' and '.join(lacking)} (and head=, loss= "
            "unless they are linear and cross_entropy)"
        )
    of_method = () if method is None else ("method",)
    chosen_method = [] if method is None or "method" in chosen else [f"method={method}"]
    config = _composed(request, (*_OF_DATA, *_OF_NETWORK, *of_method), config_dir, chosen_method)
    kept = {group: config[group] for group in ("dataset", "evaluation", "paths", *_OF_NETWORK)}
    trainer = {key: config["trainer"][key] for key in _KEPT["trainer"]}
    own_method = {"name": "foreign"} if method is None else config["method"]
    return {"name": "foreign", "method": own_method, **kept, "trainer": trainer}


def _composed(
    request: EvaluationRequest, groups: Sequence[str], config_dir: str | None, more: Sequence[str] = ()
) -> dict[str, Any]:
    """Compose the overrides of these groups as ``ltr-train`` would; all mistakes in one message."""
    mistakes = list(request.mistakes)
    fitting = list(more)
    array_size = _SIZE if _of_arrays(request.config) else None  # a size for arrays applies only to evaluation
    for one in request.parsed:
        group = one.key.partition(".")[0]
        if one.key == array_size:
            if not (isinstance(one.values[0], int) and one.values[0] > 0):
                mistakes.append(f"{one.text}: allowed is int [1, inf)")
        elif group in groups or one.key == "paths.data" or one.key in [f"trainer.{key}" for key in _KEPT["trainer"]]:
            fitting.append(one.text)
        elif group not in _OF_NETWORK or not request.of_foreign:
            mistakes.append(f"{one.text}: evaluation does not depend on '{one.key}'")
    if mistakes:
        mistakes += explain(fitting, config_dir, "train")
    refuse(mistakes, "the command cannot be carried out")
    return load_config(fitting, config_dir)


def _of_arrays(config: str | None) -> bool:
    return config in config_names("dataset") and "image_size" not in read_config(f"dataset/{config}")
