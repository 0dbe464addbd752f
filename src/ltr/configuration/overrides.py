"""Explanation of all mistakes in a command line's overrides; Hydra stops at the first one.

`explain` runs only after Hydra has refused the command, so that correct commands are not slowed down.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Glob
from omegaconf import DictConfig, OmegaConf

from ltr.configuration import removed
from ltr.configuration.allowed import find_problem
from ltr.configuration.check import check_config, find_mistakes
from ltr.configuration.configs import conf_directory, config_names, leaves, node_at
from ltr.configuration.forbidden import forbidden
from ltr.configuration.former_keys import rename_overrides
from ltr.configuration.nested import NestedLoader, holds_keys, is_name
from ltr.configuration.parsing import Parsed, in_short, parse
from ltr.configuration.quoting import quoting_hint
from ltr.configuration.rules import read_rules
from ltr.configuration.suggestions import keys_of_other_configs, suggestion
from ltr.configuration.sweep_checks import interval_in_grid, is_interval
from ltr.configuration.swept_configs import jobs_of
from ltr.configuration.unknown_configs import unknown_config
from ltr.errors import nearest_name, refuse

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra

_PLUGINS = {"joblib": "sweep", "optuna": "sweep", "submitit_local": "slurm", "submitit_slurm": "slurm"}


def explain(overrides: list[str], config_dir: str | None, config_name: str, sweep: bool = False) -> list[str]:
    """Return a message for each override that cannot be applied, and for each value that is not allowed.

    Args:
        overrides: the command line without flags, e.g. ``["method=crt", "loss.betta=1"]``.
        config_dir: the user's own folder of configs (``--config-dir``), or None.
        config_name: the primary config.
        sweep: the command is a sweep (``-m``).

    Returns:
        Messages; empty without mistakes.
    """
    refused = forbidden(overrides, config_dir)
    parsed, mistakes = parse(text for text in overrides if text not in refused)
    targets = [line for text, line in refused.items() if "_target_" in text]
    mistakes = [*(line for line in refused.values() if line not in targets), *mistakes]
    already = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with warnings.catch_warnings(), initialize_config_dir(version_base="1.3", config_dir=str(conf_directory())):
            warnings.simplefilter("ignore")
            hydra = _prepared_hydra(config_dir, is_quiet=True)
            loader = hydra.config_loader
            assert isinstance(loader, NestedLoader)
            mistakes += _Explanation(loader, config_name, sweep).mistakes(parsed)
    finally:
        GlobalHydra.instance().clear()
        if already is not None:
            GlobalHydra.instance().initialize(already)
    return list(dict.fromkeys([*mistakes, *targets]))


def compose_config(overrides: list[str], config_dir: str | None = None) -> DictConfig:
    """Compose the primary config with overrides, from Python.

    Args:
        config_dir: the user's folder of configs (``--config-dir``).

    Raises:
        ConfigError: lists all mistakes in the overrides.
    """
    GlobalHydra.instance().clear()
    if forbidden(overrides, config_dir):
        refuse(explain(overrides, config_dir, "train"), "the overrides cannot be applied")
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_directory())):
            _prepared_hydra(config_dir)
            return compose("train", overrides=overrides)
    except Exception as error:  # Hydra and OmegaConf raise many types of exceptions
        mistakes = explain(overrides, config_dir, "train") or [in_short(error)]
        refuse(mistakes, "the overrides cannot be applied")
        raise


def load_config(overrides: Sequence[str], config_dir: str | None = None) -> dict[str, Any]:
    """Compose the primary config with overrides, check it and return it as plain data.

    Args:
        config_dir: the user's folder of configs (``--config-dir``).

    Raises:
        ConfigError: lists all mistakes in the overrides, or in the configuration.
    """
    texts = list(overrides)
    return check_config(compose_config(texts, config_dir), refused_overrides(texts), texts)


def _prepared_hydra(config_dir: str | None, is_quiet: bool = False) -> Hydra:
    """Return the initialised Hydra with nested choices and the user's folder of configs."""
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    path = hydra.config_loader.get_search_path()
    if config_dir:
        path.prepend("command-line", f"file://{Path(config_dir).resolve()}", SearchPathQuery(provider="main"))
    hydra.config_loader = NestedLoader(path, is_quiet)
    return hydra


def refused_overrides(overrides: Iterable[str]) -> list[str]:
    """Return a message for each override that Hydra accepts and ltr does not: forbidden ones, unknown recipes.

    The group ``recipe`` is optional, so Hydra accepts any name for it.
    """
    texts = list(overrides)
    mistakes = list(forbidden(texts).values())
    parsed, _ = parse(text for text in texts if text.startswith("recipe"))
    for one in parsed:
        if one.key == "recipe" and not one.adds:
            hydra = GlobalHydra.instance().hydra
            configs = hydra.config_loader.get_group_options("recipe") if hydra else config_names("recipe")
            mistakes += [
                f"{one.text}: " + (removed.advice("recipe", value) or unknown_config("recipe", value, configs))
                for value in one.values
                if str(value) not in configs
            ]
    return mistakes


class _Explanation:
    """Explanation of mistakes: applies the valid overrides step by step and explains the others."""

    def __init__(self, loader: NestedLoader, config_name: str, sweep: bool) -> None:
        self.loader = loader
        self.config_name = config_name
        self.sweep = sweep
        self.optional = loader.optional_groups(config_name)
        self.groups = {*loader.list_groups(""), "recipe/shared"} - {""}
        self.applied: list[str] = []  # overrides that compose
        self.composed: DictConfig | None = None  # the configuration with them
        self.nodes: dict[str, str] = {}  # its nested choices
        self.lacking: dict[str, str] = {}  # keys that it lacks, and the sentence about each

    def mistakes(self, parsed: list[Parsed]) -> list[str]:
        mistakes = []
        if not self.sweep:
            mistakes += [
                f"{one.text}: several values are a sweep, which needs the flag -m; a list is written {one.key}=[...]"
                f"{quoting_hint(one.text)}"
                for one in parsed
                if one.is_sweep and not one.override.is_hydra_override() and not is_interval(one)
            ]
            mistakes += [interval_in_grid(one) for one in parsed if is_interval(one)]
        configs = [self._expanded(one) for one in parsed if self._chooses_config(one)]
        unknown = {one.text: self._unknown_configs(one) for one in configs}
        mistakes += [line for lines in unknown.values() for line in lines]
        guesses = {one.key: self._guess(one) for one in configs if unknown[one.text]}
        fitting = [one for one in configs if not unknown[one.text]]
        mistakes += self._apply([one.text for one in fitting if not one.is_sweep])
        if any(guesses.values()):
            self._apply([f"{group}={config}" for group, config in guesses.items() if config])
        of_hydra = [one for one in parsed if one.override.is_hydra_override()]
        plugins = [one.text for one in of_hydra if "/" in one.key and not self._hydra(one, [])]
        mistakes += [line for one in of_hydra for line in self._hydra(one, plugins)]
        if self.composed is None:
            return mistakes
        rest = [one for one in parsed if not self._chooses_config(one) and not one.override.is_hydra_override()]
        unknown_groups = {group for group, config in guesses.items() if not config}
        chosen = jobs_of([one for one in fitting if one.is_sweep and not one.override.is_delete()])
        return mistakes + self._in_jobs(chosen, rest, unknown_groups)

    def _in_jobs(self, chosen: list[list[str]], rest: list[Parsed], unknown_groups: set[str]) -> list[str]:
        """Return the mistakes of values, given the configs of a sweep's jobs; name the jobs if not all have them."""
        jobs_of_mistake: dict[str, list[str]] = {}
        lacking: list[dict[str, str]] = []
        for configs in chosen:
            job = _Explanation(self.loader, self.config_name, self.sweep)
            job.applied, job.composed, job.nodes = list(self.applied), self.composed, self.nodes
            wrong = job._apply(configs)
            for line in wrong or job._values(rest, unknown_groups):
                jobs_of_mistake.setdefault(line, []).append(", ".join(configs))
            lacking.append(job.lacking)
        in_all = set.intersection(*map(set, lacking)) if lacking else set()
        set_elsewhere = {line for job in lacking for key, line in job.items() if key not in in_all}
        return [
            line if len(jobs) == len(chosen) else f"with {'; '.join(jobs)}: {line}"
            for line, jobs in jobs_of_mistake.items()
            if line not in set_elsewhere  # another job has the key, see `swept_keys`
        ]

    def _chooses_config(self, one: Parsed) -> bool:
        return one.key in self.groups and not any(isinstance(value, dict) for value in one.values)

    def _expanded(self, one: Parsed) -> Parsed:
        """Return an override with a pattern ``glob(c*)`` replaced by the matching configs."""
        pattern = one.values[0]
        if not isinstance(pattern, Glob):
            return one
        configs = pattern.filter(self.loader.get_group_options(one.key, ObjectType.CONFIG))
        return replace(one, values=configs or [str(pattern)])

    def _hydra(self, one: Parsed, plugins: list[str]) -> list[str]:
        """Return the mistakes of a setting of Hydra, given the launcher and sweeper that are chosen."""
        error = self._composes([*plugins, one.text], hydra=True)
        if error is None:
            return []
        if isinstance(error, (AttributeError, AssertionError)):  # inside OmegaConf, as for hydra.sweeper.params
            return [f"{one.text}: Hydra takes this from a config file only. Put it into one of your own (--config-dir)"]
        if "Could not override" in str(error):
            # the groups are part of each key, so that only much alike keys are meant
            close = nearest_name(one.key, self._hydra_keys(plugins), cutoff=0.85)
            hint = "" if close is None else f". Did you mean '{close}'?"
            return [
                f"{one.text}: Hydra, its launcher and its sweeper have no key '{one.key}'. `ltr-train --help "
                f"launcher/local` lists those of the launcher on this machine{hint}"
            ]
        extra = _PLUGINS.get(str(one.values[0]))
        hint = f". It needs pip install 'ltr[{extra}]'" if extra else ""
        return [f"{one.text}: {in_short(error)}{hint}"]

    def _hydra_keys(self, plugins: list[str]) -> list[str]:
        """Return the keys of Hydra's settings with the launcher and sweeper that are chosen."""
        composed = compose(config_name=self.config_name, overrides=[*self.applied, *plugins], return_hydra_config=True)
        node = OmegaConf.to_container(composed.hydra, resolve=False)  # its values need a job
        return [key for key, _ in leaves(node, "hydra") if not key.endswith("._target_")]

    def _unknown_configs(self, one: Parsed) -> list[str]:
        if one.override.is_delete():
            return []
        options = self.loader.get_group_options(one.key, ObjectType.CONFIG)
        none = ["null"] if one.key in self.optional else []
        names = [v for value in one.values for v in (value if isinstance(value, list) else [value])]
        return [
            f"{one.text}: " + (removed.advice(one.key, value) or unknown_config(one.key, value, [*options, *none]))
            for value in names
            if str(value) not in options and not (value is None and none)
        ]

    def _guess(self, one: Parsed) -> str | None:
        """Return the config that was probably meant, so that its keys can be checked."""
        options = self.loader.get_group_options(one.key, ObjectType.CONFIG)
        return nearest_name(str(one.values[0]), options)

    def _apply(self, texts: list[str]) -> list[str]:
        """Add overrides to the composition: all at once, or one by one if that fails."""
        if self._composes(texts) is None:
            return []
        errors = {text: self._composes([text]) for text in texts}
        if self.composed is None and not self.applied and (error := self._composes([])):
            return [in_short(error)]  # the primary config itself
        return [f"{text}: {in_short(error)}" for text, error in errors.items() if error]

    def _composes(self, more: list[str], hydra: bool = False) -> Exception | None:
        """Keep further overrides if they compose with the previous ones; otherwise return the reason."""
        try:
            composed = compose(
                config_name=self.config_name, overrides=[*self.applied, *more], return_hydra_config=hydra
            )
        except Exception as error:  # Hydra and OmegaConf raise many types of exceptions
            return error
        if not hydra:
            self.applied += more
            self.composed = composed
            self.nodes = dict(self.loader.nodes)
        return None

    def _nested_choices(self, parsed: list[Parsed]) -> tuple[list[Parsed], list[str]]:
        """Apply the nested choices; return the other overrides, and the mistakes in the choices."""
        mistakes: list[str] = []
        while chosen := [one for one in parsed if self._chooses_nested(one)]:
            wrong = self._apply([one.text for one in chosen])
            mistakes += wrong
            unclear = {one.key for one in chosen if any(line.startswith(f"{one.text}: ") for line in wrong)}
            # the keys below an invalid choice are unknown
            parsed = [one for one in parsed if one not in chosen and not _lies_below(one.key, unclear)]
        swept = [one for one in parsed if one.key in self.nodes and one.is_sweep]
        for one in swept:
            reasons = {value: self.loader.unknown(one.key, value) for value in one.values if value is not None}
            mistakes += [f"{one.key}={value}: {reason}" for value, reason in reasons.items() if reason]
        below = {one.key for one in swept}
        return [one for one in parsed if one not in swept and not _lies_below(one.key, below)], mistakes

    def _chooses_nested(self, one: Parsed) -> bool:
        if one.key not in self.nodes or one.override.package is not None or one.override.is_delete():
            return False
        return not one.is_sweep and is_name(one.values[0])

    def _values(self, parsed: list[Parsed], unknown_groups: set[str]) -> list[str]:
        parsed, mistakes = self._nested_choices(parsed)
        rename_overrides((one.override for one in parsed), self.loader.former)
        composed = self.composed
        assert composed is not None
        config: Any = OmegaConf.to_container(composed, resolve=False)
        known = [key for key, _ in leaves(config)]
        nodes = {key.rsplit(".", depth)[0] for key in known for depth in range(1, key.count(".") + 1)}
        fitting: list[Parsed] = []
        for one in parsed:
            exists = one.key in known or one.key in nodes
            below = [key for value in one.values if isinstance(value, dict) for key, _ in leaves(value, one.key)]
            if exists and one.override.is_add():
                mistakes.append(f"{one.text}: '{one.key}' exists already; write it without '+'")
            elif exists and one.is_sweep:
                mistakes += self._sweep_values(one, config)
            elif exists and not one.adds and not set(below) <= set(known):
                unknown = [key for key in below if key not in known]
                mistakes.append(f"{one.text}: there is no key '{unknown[0]}'{suggestion(unknown[0], known, {})}")
            elif exists or one.adds:
                fitting.append(one)
            elif one.key.partition(".")[0] not in unknown_groups:  # or it may be a key of the config that was meant
                elsewhere = keys_of_other_configs(one.key, composed, self.nodes)
                self.lacking[one.key] = (
                    f"{one.text}: there is no key '{one.key}'{suggestion(one.key, known, elsewhere)}"
                )
                mistakes.append(self.lacking[one.key])
        if fitting:
            mistakes += self._apply([one.text for one in fitting])
        assert self.composed is not None
        texts = [*self.applied, *(one.text for one in fitting)]
        _, wrong = find_mistakes(self.composed, texts)
        return [*mistakes, *wrong, *refused_overrides(one.text for one in fitting)]

    def _sweep_values(self, one: Parsed, config: Mapping[str, Any]) -> list[str]:
        if isinstance(node := node_at(config, one.key), Mapping):
            return [f"{one.key}={value}: {holds_keys(one.key, node)}" for value in one.values if is_name(value)]
        path, _, last = one.key.rpartition(".")
        rules = read_rules(path, node_at(config, path), config)
        reasons = [(value, find_problem(value, rules[last])) for value in one.values] if last in rules else []
        return [f"{one.key}={value}: {reason}" for value, reason in reasons if reason]


def _lies_below(key: str, nodes: Iterable[str]) -> bool:
    return any(key.startswith(f"{node}.") for node in nodes)
