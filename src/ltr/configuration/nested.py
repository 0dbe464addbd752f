"""Nested choices: ``method.classifier.optimizer=adamw`` chooses a config, like ``optimizer=adamw`` at the top level.

Hydra knows such a choice only as ``optimizer@method.classifier.optimizer=adamw``. Which nodes are choices follows from
the defaults lists of the configs that are composed; the plain form is understood on the command line, in a job of a
sweep, and in the body of any config file. Three rules hold for every node, nested or not:

- what a config sets below a choice is meant for the config that it chooses itself: where another one is chosen, the
  keys which that one lacks are left out (see `ltr.configuration.replaced_keys`);
- a value does not take the place of a node that holds keys;
- an unknown name is refused with the names that exist.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import GroupDefault, ResultDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from ltr.configuration import removed
from ltr.configuration.allowed import as_text
from ltr.configuration.config_files import ConfigFiles, entries_of, is_name
from ltr.configuration.configs import PRIVATE_KEYS
from ltr.configuration.forbidden import not_one_config
from ltr.configuration.former_keys import print_notices, rename_in_file, rename_overrides
from ltr.configuration.listed_configs import LISTS, with_own
from ltr.configuration.replaced_keys import ReplacedKeys, joined
from ltr.configuration.swept_keys import split_applicable
from ltr.configuration.unknown_configs import unknown_config
from ltr.identity import former_keys, has_former_options

_RUN = "hydra.mode=RUN"  # override that Hydra adds if a command is not a sweep
_NO_PLACE = re.compile(r"In 'experiment/[^']+': Could not override '([\w/]+@method\.[\w.]+)'")
_ROUNDS = 8  # maximal depth of nested choices


class NestedLoader(ConfigLoaderImpl):
    """Hydra's loader of configurations, with nested choices in their plain form.

    Attributes:
        nodes: dotted paths of the nested choices of the last configuration -> Hydra's names for them, e.g.
            ``{"method.classifier.optimizer": "optimizer@method.classifier.optimizer"}``.
        former: dotted former keys of that configuration -> current keys.
        is_quiet: True prints no notice of former keys.
    """

    def __init__(self, config_search_path: ConfigSearchPath, is_quiet: bool = False) -> None:
        super().__init__(config_search_path)
        self.is_quiet = is_quiet
        self.nodes: dict[str, str] = {}
        self.former: dict[str, str] = {}
        self._notices: list[str] = []
        self._in_files: dict[str, dict[str, str]] = {}  # config file -> nodes chosen in its body -> their groups
        self._left_out: set[str] = set()  # choices of experiments below a method that the command replaces
        self._repository: ConfigFiles | None = None
        self._for_mode: tuple[tuple[Any, ...], DictConfig] | None = None
        self._defaults: list[ResultDefault] = []
        self._overrides: list[Override] = []
        self._holding_keys: set[str] = set()
        self._name: str | None = None  # of the primary config
        self._replaced: ReplacedKeys | None = None

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose a configuration; see Hydra's loader for the arguments.

        Hydra composes a command twice: to read ``hydra.mode``, and to run with the mode as one more override. The
        second call reuses the first configuration.
        """
        request = (config_name, tuple(overrides), from_shell)
        composed, self._for_mode = self._for_mode, None
        if composed is not None:
            (name, before, shell), config = composed
            if request == (name, (*before, _RUN), shell) and not self._sweeps(before):
                config.hydra.mode = RunMode.RUN
                config.hydra.overrides.hydra.append(_RUN)
                return config
        config = self._composed(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        if not validate_sweep_overrides:  # Hydra reads only the mode of this configuration
            self._for_mode = request, config
        return config

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Compose the configuration of a sweep's job, without values of keys that only other jobs have."""
        try:
            return super().load_sweep_config(master_config, sweep_overrides)
        except HydraException:
            command = list(map(str, master_config.hydra.overrides.task))
            name = master_config.hydra.job.config_name

            def compose(texts: list[str]) -> DictConfig:
                return self.load_configuration(name, texts, RunMode.RUN)

            kept, notices = split_applicable(command, sweep_overrides, self._is_choice, compose)
            if not notices:
                raise
        config = super().load_sweep_config(master_config, kept)
        print_notices(notices)
        return config

    def _is_choice(self, key: str) -> bool:
        return key in self.nodes or self.repository.group_exists(key)

    @staticmethod
    def _sweeps(overrides: Iterable[str]) -> bool:
        """Return whether an override has several values, which is an error in a single run."""
        lists = [text for text in overrides if "," in text or "(" in text]
        return any(override.is_sweep_override() for override in OverridesParser.create().parse_overrides(lists))

    def _composed(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool,
        validate_sweep_overrides: bool,
    ) -> DictConfig:
        self._in_files, self._left_out = {}, set()
        self._name = config_name
        # Hydra has no `sharpness=null`; it deletes what a file has chosen
        optional = self.optional_groups(config_name)
        none = [text.partition("=")[0] for text in overrides if _is_none_of(text, optional)]
        overrides = [text for text in overrides if not _is_none_of(text, optional)]
        for _ in range(_ROUNDS):
            self._repository = None
            refused: Exception | None = None
            try:
                config = super().load_configuration(
                    config_name, overrides, run_mode, from_shell, validate_sweep_overrides
                )
                choices = dict(config.hydra.runtime.choices)
            except (HydraException, ValueError) as error:
                if self._leaves_out(error, overrides):
                    continue
                refused, choices = error, self._choices(config_name, overrides)
            self.nodes = _nested(choices)
            again = [self._as_choice(text, choices) for text in overrides]
            again += [f"~{group}" for group in none if choices.get(group) and f"~{group}" not in again]
            in_files = self._choices_in_files()
            if again == overrides and in_files == self._in_files:
                break
            overrides, self._in_files = [text for text in again if text], in_files
        if refused is not None:
            raise refused
        self._check_recipe(choices)
        if not self.is_quiet:
            print_notices(self._notices)
        if none:  # reports of sweeps name a job by what was typed
            deleted = {f"~{group}" for group in none}
            kept = [text for text in config.hydra.overrides.task if text not in deleted]
            config.hydra.overrides.task = [*kept, *(f"{group}=null" for group in none)]
        return self._with_own_configs(config)

    def _leaves_out(self, error: Exception, overrides: Iterable[str]) -> bool:
        """Leave out an experiment's choice that the command's method has no place for; return whether it is new."""
        match = _NO_PLACE.search(str(error))
        if match is None or match[1] in self._left_out or not any(text.startswith("method=") for text in overrides):
            return False
        self._left_out.add(match[1])
        return True

    def _with_own_configs(self, config: DictConfig) -> DictConfig:
        """Return a configuration whose lists hold the user's own configs in place of their names."""
        for path, group in LISTS.items():
            entries = OmegaConf.select(config, path, throw_on_resolution_failure=False)
            above, _, last = path.rpartition(".")
            node = OmegaConf.select(config, above, throw_on_resolution_failure=False)
            if not OmegaConf.is_list(entries) or not OmegaConf.is_dict(node) or OmegaConf.is_interpolation(node, last):
                continue
            names = OmegaConf.to_container(entries, resolve=False)
            contents = with_own(group, names, functools.partial(self._content, group))
            if contents != names:
                with open_dict(node):
                    node[last] = contents
        return config

    def _content(self, group: str, name: str) -> Mapping[str, Any] | None:
        """Return the content of a config, unresolved; None if there is no such config."""
        path = f"{group}/{name}"
        loaded = self.repository.load_config(path) if self.repository.config_exists(path) else None
        content = None if loaded is None else OmegaConf.to_container(loaded.config, resolve=False)
        return {str(key): value for key, value in content.items()} if isinstance(content, dict) else None

    def _check_recipe(self, choices: Mapping[str, str | None]) -> None:
        """Refuse a data set's config that refers to a removed recipe."""
        dataset = choices.get("dataset")
        instead = removed.advice("recipe", choices.get("recipe@_global_"))
        if instead and not choices.get("recipe/shared") and not self.repository.config_exists(f"recipe/{dataset}"):
            name = instead.partition("recipe/shared=")[2].split()[0]
            raise ConfigCompositionException(
                f"dataset={dataset}: {instead}, or add to the defaults list of this data set's config "
                f"'- override /recipe/shared@_global_.recipe.shared: {name}'"
            )

    def list_groups(self, parent_name: str) -> list[str]:
        """Return the groups below a group, without ``base``, whose configs are none to choose."""
        return [name for name in super().list_groups(parent_name) if name != "base"]

    def options(self, node: str) -> list[str]:
        """Return the configs that can be chosen at a nested node."""
        return self.repository.get_group_options(_group(self.nodes[node]), ObjectType.CONFIG)

    def optional_groups(self, config_name: str | None) -> set[str]:
        """Return the groups that need no config, such as ``sharpness``: ``sharpness=null`` chooses none.

        The names of recipes are composed of the shared recipe's, which therefore cannot be null.
        """
        primary = self.repository.load_config(config_name) if config_name else None
        entries = (primary.defaults_list if primary is not None else None) or []
        return {
            str(one.group)
            for one in entries
            if isinstance(one, GroupDefault) and one.value is None and one.group != "recipe/shared"
        }

    def _choices(self, config_name: str | None, overrides: Iterable[str]) -> dict[str, str | None]:
        """Return the choices of a command that does not compose, as far as they can be determined."""
        all_of_them = list(overrides)
        added = [text for text in all_of_them if text.startswith("+") and "@" in text.partition("=")[0]]
        for texts in (all_of_them, [text for text in all_of_them if text not in added])[: 1 + bool(added)]:
            try:
                parsed = OverridesParser.create().parse_overrides(overrides=texts)
                repo = self._repository or self._parse_overrides_and_create_caching_repo(config_name, texts)[1]
                defaults_list = create_defaults_list(repo, config_name, parsed, prepend_hydra=True, skip_missing=False)
            except (HydraException, ValueError):
                continue
            self._defaults = defaults_list.defaults
            return dict(defaults_list.overrides.known_choices)
        return {}

    def _as_choice(self, text: str, choices: Mapping[str, str | None]) -> str:
        """Return an override in Hydra's form; empty if it changes nothing."""
        bare = text.lstrip("+")
        key, equals, value = bare.partition("=")
        if not equals or text.startswith("~"):
            return text
        if text.startswith("+") and key in choices:
            return bare if choices[key] is None and "@" in key else text
        if key not in self.nodes:
            return text
        override = OverridesParser.create().parse_override(bare)
        chosen = override.value()
        if override.is_sweep_override() or not is_name(chosen):
            return text
        if chosen is None:
            return "" if choices[self.nodes[key]] is None else f"~{self.nodes[key]}"
        if isinstance(chosen, list) and (reason := not_one_config(_group(self.nodes[key]), chosen, key)):
            raise ConfigCompositionException(reason)
        self._check_names(key, chosen if isinstance(chosen, list) else [chosen])
        return f"{self.nodes[key]}={value}"

    def _check_names(self, node: str, names: Iterable[Any], where: str = "") -> None:
        for name in names:
            if reason := self.unknown(node, name):
                raise ConfigCompositionException(where + reason)

    def unknown(self, node: str, name: Any) -> str | None:
        """Return the reason why a name is refused at a nested node, as the end of a sentence; None if it is allowed."""
        options = self.options(node)
        if isinstance(name, str) and name in options:
            return None
        return unknown_config(_group(self.nodes[node]), as_text(name), options)

    def _choices_in_files(self) -> dict[str, dict[str, str]]:
        """Return the nested choices in the bodies of config files, with those of earlier rounds."""
        choices = {path: dict(nodes) for path, nodes in self._in_files.items()}
        names = self._repository.names if self._repository is not None else {}
        last_parts = {node.rpartition(".")[2] for node in self.nodes}
        for default in self._defaults:
            for relative, name in names.get(default.config_path or "", {}).items():
                if relative.rpartition(".")[2] not in last_parts:
                    continue
                node = joined(default.package, relative)
                if node in self.nodes:
                    self._check_names(node, [name], f"In '{default.config_path}': {relative}={name}: ")
                    choices.setdefault(str(default.config_path), {})[relative] = _group(self.nodes[node])
        return choices

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        self._overrides = OverridesParser.create().parse_overrides(overrides=overrides)
        self._repository = ConfigFiles(self.repository, self._in_files, self._left_out)
        self._process_config_searchpath(config_name, self._overrides, self._repository)
        return self._overrides, self._repository

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        self._defaults = defaults
        self._holding_keys = set()
        self._replaced = ReplacedKeys(defaults, self._overrides, self._name, repo)
        self.former = former_keys(self._targets_with_former_options())
        self._notices = []
        config = super()._compose_config_from_defaults_list(defaults, repo)
        self._notices += [*self._replaced.notices, *rename_overrides(self._overrides, self.former)]
        for override in self._overrides:
            key = str(override.key_or_group)
            is_value = override.package is None and not repo.group_exists(key) and not override.is_sweep_override()
            if not is_value or override.is_delete() or not _replaces(override.value()):
                continue
            node = OmegaConf.select(config, key, throw_on_resolution_failure=False)
            if OmegaConf.is_dict(node) and not key.startswith("hydra") and len(node):
                raise ConfigCompositionException(holds_keys(key, node))
        return config

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        loaded = super()._load_single_config(default, repo)
        if not OmegaConf.is_dict(loaded.config) or str(default.config_path).startswith("hydra"):
            return loaded
        if dotted := next((key for key in _keys_of_file(repo, default) if "." in key), None):
            outer, _, inner = dotted.partition(".")
            raise ConfigCompositionException(
                f"In '{default.config_path}': '{dotted}' is one key with dots, which nothing reads. Nest the keys: "
                f"{outer}: {{{inner.replace('.', ': {')}: ...}}{'}' * inner.count('.')}"
            )
        loaded, notices = rename_in_file(loaded, str(default.config_path), self.former)
        self._notices += notices
        if self._replaced is not None:
            loaded = self._replaced.without(default, loaded)
        for path, value in entries_of(loaded.config):
            if path in self._holding_keys and not isinstance(value, Mapping) and _replaces(value):
                choice = f". Choose a config in its defaults list: '- override /{path}: {as_text(value)}'"
                raise ConfigCompositionException(
                    f"In '{default.config_path}': {path}={as_text(value)}: keys are needed here, not a value"
                    f"{choice if repo.group_exists(path) else ''}"
                )
            if isinstance(value, Mapping) and value:
                self._holding_keys.add(path)
        return loaded

    def _targets_with_former_options(self) -> dict[str, str]:
        """Return the nodes whose class has renamed options, with the class's path."""
        in_files = self._repository.targets if self._repository is not None else {}
        targets = {
            joined(default.package, relative).rstrip("."): target
            for default in self._defaults
            for relative, target in in_files.get(default.config_path or "", {}).items()
        }
        return {node: target for node, target in targets.items() if has_former_options(target)}


@contextlib.contextmanager
def nested_choices() -> Iterator[None]:
    """Enable nested choices in Hydra within the block."""
    from hydra._internal import hydra

    before = hydra.ConfigLoaderImpl
    hydra.ConfigLoaderImpl = NestedLoader  # type: ignore[misc]
    try:
        yield
    finally:
        hydra.ConfigLoaderImpl = before  # type: ignore[misc]


def holds_keys(key: str, node: Mapping[str, Any]) -> str:
    """Return why a node of the configuration cannot take a value, as the end of a sentence."""
    keys = [str(name) for name in node if name not in PRIVATE_KEYS]
    return f"keys are needed here, not a value; it has {', '.join(keys)}. Set one with {key}.KEY=VALUE"


def _is_none_of(text: str, groups: set[str]) -> bool:
    key, _, value = text.partition("=")
    return value == "null" and key in groups


def _replaces(value: Any) -> bool:
    """Return whether a value would replace a node's keys; interpolations do not count."""
    return is_name(value) and value != "???"


def _nested(choices: Mapping[str, Any]) -> dict[str, str]:
    paths = {(key.partition("@")[2] or key.replace("/", ".")): key for key in choices}
    return {path: key for path, key in paths.items() if "." in path}


def _keys_of_file(repo: IConfigRepository, default: ResultDefault) -> list[str]:
    """Return the keys at the top of a config file."""
    loaded = repo.load_config(str(default.config_path))
    return [str(key) for key in loaded.config] if loaded is not None and OmegaConf.is_dict(loaded.config) else []


def _group(choice: str) -> str:
    return choice.partition("@")[0]
