"""Keys of configs that a command has replaced.

A file that chooses a config may set keys of it, and a recipe or an experiment may set keys of the configs that its data
set and method choose. These keys are meant for those configs: where a command chooses another one, keys that this one
lacks are left out, and so is the ``name`` of a library's network, optimiser or schedule, and all that a recipe sets for
an optimiser.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hydra._internal.config_repository import IConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.default_element import GroupDefault, ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf, open_dict

from ltr.configuration.allowed import as_text
from ltr.configuration.config_files import entries_of
from ltr.configuration.configs import PRIVATE_KEYS

# a recipe is chosen by its data set, or by an experiment
_WRITTEN_FOR = {"recipe": ("recipe", "experiment"), "experiment": ("experiment",)}
_OF_ONE_CLASS = ("trainer", "evaluation", "checkpoint", "paths")  # groups whose configs have the same keys
_APART = ("paths", "logger", "launcher", "callbacks")  # groups of which recipes and experiments set no keys
_RATES = ("lr", "head_lr", "last_block_lr", "extra_lr")


@dataclass(frozen=True)
class Choices:
    """Chosen configs of a composition.

    Attributes:
        configs: node -> config, such as ``{"method.classifier.optimizer": "optimizer/sgd"}``.
        files: every file of the composition, bases included, and its node.
    """

    configs: Mapping[str, str]
    files: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, defaults: Iterable[ResultDefault]) -> Choices:
        """Return the choices of Hydra's list of defaults, without those of Hydra."""
        listed = [one for one in defaults if not str(one.config_path).startswith("hydra/")]
        files: dict[str, tuple[str, ...]] = {}
        for one in listed:
            path = str(one.config_path)
            files[path] = (*files.get(path, ()), one.package or "")
        configs: dict[str, str] = {}
        for one in listed:
            path, node = str(one.config_path), one.package or ""
            if one.override_key is not None:
                key = str(one.override_key)
                configs[key.partition("@")[2] or key.replace("/", ".")] = path
            elif "/" in path and not ("/" in str(one.parent) and node in files.get(str(one.parent), ())):
                configs[node or path.partition("/")[0]] = path  # it has a defaults list; a base has its config's node
        return cls(configs, files)

    def at(self, node: str) -> list[str]:
        """Return the files of the config that is chosen at a node; empty if there is none."""
        return [path for path, nodes in self.files.items() if node in nodes]

    def instead_of(self, meant: Choices) -> dict[str, str | None]:
        """Return the nodes for which another config is meant, and the config that is chosen; None: none is chosen."""
        nodes = sorted(meant.configs, key=len)  # a node before those within it
        return {node: self.configs.get(node) for node in nodes if self.configs.get(node) != meant.configs[node]}


class ReplacedKeys:
    """Remover of keys that the files of one composition set for configs which a command has replaced.

    Args:
        defaults: Hydra's list of defaults.
        overrides: overrides of the command.
        config_name: the primary config.
        repo: reader of the files.

    Attributes:
        chosen: choices of the composition.
        notices: what the command's user should know about values that were left out or kept.
    """

    def __init__(
        self,
        defaults: Iterable[ResultDefault],
        overrides: Sequence[Override],
        config_name: str | None,
        repo: IConfigRepository,
    ) -> None:
        self.chosen = Choices.of(defaults)
        self.notices: list[str] = []
        self._overrides = overrides
        self._name = config_name
        self._repo = repo
        self._meant_by: dict[str, Choices | None] = {}  # kind of a file -> the choices that it is written for

    def without(self, default: ResultDefault, loaded: ConfigResult) -> ConfigResult:
        """Return a file without the keys that it sets for configs which a command has replaced."""
        path = str(default.config_path)
        assert isinstance(loaded.config, DictConfig)
        config = _without_references(loaded.config, self.chosen)
        config = _without_replaced_keys(config, self._in_file(default), self.chosen, self._repo)
        meant = self._meant_in(path) if _sets_keys_of_configs(config) else None
        if meant is not None:
            command_keys = [str(one.key_or_group) for one in self._overrides]
            config, notices = _without_replaced_optimizers(config, path, self.chosen, meant, command_keys)
            self.notices += notices
            config = _without_replaced_keys(config, self.chosen.instead_of(meant), self.chosen, self._repo)
        if config is loaded.config:
            return loaded
        changed = copy.copy(loaded)
        changed.config = config
        return changed

    def _in_file(self, default: ResultDefault) -> dict[str, str | None]:
        """Return the nodes for which a file chooses a config that is replaced, and what is chosen instead."""
        written = self._repo.load_config(str(default.config_path))
        replaced: dict[str, str | None] = {}
        for entry in (written.defaults_list if written is not None else None) or []:
            if not isinstance(entry, GroupDefault) or entry.value is None:
                continue
            if entry.override:
                node = joined("", entry.package or str(entry.group).lstrip("/").replace("/", "."))
            elif entry.package:
                node = joined(default.package, entry.package)
            else:
                continue
            files = self.chosen.at(node)
            if files and f"{str(entry.group).lstrip('/')}/{entry.value}" not in files:
                replaced[node] = self.chosen.configs.get(node)
        return replaced

    def _meant_in(self, path: str) -> Choices | None:
        """Return the choices that a recipe or experiment is written for; None for others, or if none is replaced."""
        meant = [self._meant(kind) for kind in _WRITTEN_FOR.get(path.partition("/")[0], ())]
        return next((one for one in meant if one is not None and path in one.files), None)

    def _meant(self, kind: str) -> Choices | None:
        """Return the choices that recipes are written for, those of data set and method, or that an experiment is.

        None: the command chooses no other configs, or the file needs its choices.
        """
        if kind not in self._meant_by:
            chosen = self.chosen.configs
            groups = ("experiment",) if kind == "experiment" else ("dataset", "method")
            texts = [f"{group}={chosen[group].partition('/')[2]}" for group in groups if group in chosen]
            apart = (*groups, *_APART)
            replaces = any(_chooses(one, self._repo) and one.key_or_group not in apart for one in self._overrides)
            choices = None
            if replaces or (kind == "recipe" and "experiment" in chosen):
                parsed = OverridesParser.create().parse_overrides(overrides=texts)
                # an experiment may need a choice of the command, such as the method whose nested config it chooses
                with contextlib.suppress(HydraException, ValueError):
                    listed = create_defaults_list(self._repo, self._name, parsed, True, skip_missing=False)
                    choices = Choices.of(listed.defaults)
            self._meant_by[kind] = choices
        return self._meant_by[kind]


def _sets_keys_of_configs(config: DictConfig) -> bool:
    """Return whether a file's content sets keys of a config that another one of its group can lack."""
    return any("." in path and path.partition(".")[0] not in _OF_ONE_CLASS for path, _ in entries_of(config))


def _without_replaced_keys(
    config: DictConfig, replaced: Mapping[str, str | None], chosen: Choices, repo: IConfigRepository
) -> DictConfig:
    """Return a file's content without keys that are meant for replaced configs; the same object if it has none.

    Args:
        config: content of the file, relative to the top level.
        replaced: node -> the config that a command has chosen there; None: it has chosen none.
        chosen: choices of the composition.
        repo: reader of the files.
    """
    for node, path in replaced.items():
        set_here = OmegaConf.select(config, node)
        if not OmegaConf.is_dict(set_here):
            continue
        if path is None:
            config = _without(config, node, set(set_here))
            continue
        files = [one.config for one in map(repo.load_config, chosen.at(node)) if one is not None]
        kept = {key for file in files for key in file} - {"name"} | set(PRIVATE_KEYS)
        inner = f"{node}."  # nodes of choices within the chosen config
        kept |= {one.removeprefix(inner).partition(".")[0] for one in chosen.configs if one.startswith(inner)}
        config = _without(config, node, set(set_here) - kept)
    return config


def _without_references(config: DictConfig, chosen: Choices) -> DictConfig:
    """Return a file's content without references such as ``${backbone}`` at nodes where a config is chosen.

    OmegaConf would merge the chosen config into what the reference stands for.
    """
    for node in chosen.configs:
        above, _, last = node.rpartition(".")
        outer = OmegaConf.select(config, above) if above else config
        if OmegaConf.is_dict(outer) and OmegaConf.is_interpolation(outer, last):
            config = _without(config, above, {last})
    return config


def _without_replaced_optimizers(
    config: DictConfig, path: str, chosen: Choices, meant: Choices, command_keys: Collection[str]
) -> tuple[DictConfig, list[str]]:
    """Return a file's content without a recipe's values of replaced optimisers, and a notice of each optimiser.

    A learning rate that suits SGD is far too large for AdamW. A recipe's values follow from its data set and are left
    out; an experiment may be written for the optimiser that a command adds, so that its values stay.

    Args:
        config: content of the file, relative to the top level.
        path: the file.
        chosen: choices of the composition.
        meant: the choices that the file is written for.
        command_keys: keys that the command sets; one that gives a learning rate needs no notice.
    """
    notices = []
    for node, instead in chosen.instead_of(meant).items():
        before, set_here = meant.configs[node], OmegaConf.select(config, node)
        if instead is None or not before.startswith("optimizer/") or not OmegaConf.is_dict(set_here):
            continue
        values = entries_of(set_here)
        is_kept = path.startswith("experiment/")
        verb = "kept" if is_kept else "left out"
        listed = " and ".join(f"{key}={as_text(value)}" for key, value in values if not is_kept or key in _RATES)
        if listed and f"{node}.lr" not in command_keys:
            notices.append(
                f"note: {node}={_name(instead)}: {path} sets {listed} for {_name(before)}, {verb} here. Give "
                f"{node}.lr=VALUE if another learning rate suits this data set"
            )
        config = config if is_kept else _without(config, node, set(set_here))
    return config, notices


def _name(config: str) -> str:
    return config.partition("/")[2]


def _without(config: DictConfig, node: str, keys: set[str]) -> DictConfig:
    """Return a config without some keys of a node, and without the node if it is empty then."""
    if not keys:
        return config
    config = copy.deepcopy(config)
    set_here = OmegaConf.select(config, node)
    with open_dict(set_here):
        for key in keys:
            del set_here[key]
    above, _, last = node.rpartition(".")
    if last and not set_here:
        outer = OmegaConf.select(config, above) if above else config
        with open_dict(outer):
            del outer[last]
    return config


def _chooses(override: Override, repo: IConfigRepository) -> bool:
    """Return whether an override chooses a config, or none, of a group."""
    key = str(override.key_or_group)
    return not key.startswith("hydra") and (override.package is not None or repo.group_exists(key))


def joined(package: str | None, relative: str) -> str:
    relative = relative.removeprefix("_global_.") if relative.startswith("_global_.") else f"{package or ''}.{relative}"
    return relative.lstrip(".")
