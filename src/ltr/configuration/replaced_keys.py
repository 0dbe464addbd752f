"""Keys of configs that a command has replaced.

A file that chooses a config may set keys of it, and a recipe or an experiment may set keys of the configs that its data
set and method choose. These keys are meant for those configs: where a command chooses another one, keys that this one
lacks are left out, and so is the ``name`` of a library's network, optimiser or schedule, and all that a recipe sets for
an optimiser.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from hydra._internal.config_repository import IConfigRepository
from hydra.core.default_element import ResultDefault
from omegaconf import DictConfig, OmegaConf, open_dict

from ltr.configuration.allowed import as_text
from ltr.configuration.config_files import entries_of
from ltr.configuration.configs import PRIVATE_KEYS

PUBLISHED = ("recipe", "experiment")  # groups whose files set keys of configs that other files choose
_OF_ONE_CLASS = ("trainer", "evaluation", "checkpoint", "paths")  # groups whose configs have the same keys
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


def sets_keys_of_configs(config: DictConfig) -> bool:
    """Return whether a file's content sets keys of a config that another one of its group can lack."""
    return any("." in path and path.partition(".")[0] not in _OF_ONE_CLASS for path, _ in entries_of(config))


def without_replaced_keys(
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


def without_references(config: DictConfig, chosen: Choices) -> DictConfig:
    """Return a file's content without references such as ``${backbone}`` at nodes where a config is chosen.

    OmegaConf would merge the chosen config into what the reference stands for.
    """
    for node in chosen.configs:
        above, _, last = node.rpartition(".")
        outer = OmegaConf.select(config, above) if above else config
        if OmegaConf.is_dict(outer) and OmegaConf.is_interpolation(outer, last):
            config = _without(config, above, {last})
    return config


def without_replaced_optimizers(
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
