"""Hydra with its slow functions replaced: the tests compose configurations faster.

Most tests compose shipped configs, which do not change while they run, and differ in the values that they set. What
follows from the choice of configs is worked out once for each choice: the defaults list, and the configuration before
values are set; each file is parsed once. What depends on a folder of the user's own configs is not remembered.
"""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable
from typing import Any

import omegaconf._utils
import omegaconf.base
import omegaconf.grammar_parser
import pytest
import yaml
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra.core.object_type import ObjectType
from omegaconf import OmegaConf, flag_override

from ltr.configuration import nested
from ltr.configuration.config_files import ConfigFiles
from ltr.configuration.configs import conf_directory
from ltr.configuration.nested import NestedLoader

RELEASED_LOADER = omegaconf._utils.get_yaml_loader
RELEASED_MAP = defaults_list._create_interpolation_map
RELEASED_LOAD = ConfigRepository.load_config
RELEASED_PARSER = omegaconf.grammar_parser.parse
RELEASED_SINGLE = ConfigLoaderImpl._load_single_config
RELEASED_LIST = defaults_list.create_defaults_list
RELEASED_COMPOSITION = ConfigLoaderImpl._compose_config_from_defaults_list
RELEASED_SEARCH_PATH = ConfigLoaderImpl._process_config_searchpath
_PATCHED = (
    (omegaconf._utils, "get_yaml_loader"),
    (defaults_list, "_create_interpolation_map"),
    (config_loader_impl, "create_defaults_list"),
    (nested, "create_defaults_list"),
    (ConfigRepository, "load_config"),
    (CachingConfigRepository, "__init__"),
    (omegaconf._utils, "parse"),
    (omegaconf.base, "parse"),
    (ConfigLoaderImpl, "_load_single_config"),
    (ConfigLoaderImpl, "_compose_config_from_defaults_list"),
    (ConfigLoaderImpl, "_process_config_searchpath"),
)
_RELEASED = [(holder, name, getattr(holder, name)) for holder, name in _PATCHED]


def speed_up(patch: pytest.MonkeyPatch) -> None:
    """Parse config files in C, collect choices for references only where there are some, and remember compositions."""
    if hasattr(yaml, "CSafeLoader"):
        loader = loader_in_c(RELEASED_LOADER())
        patch.setattr(omegaconf._utils, "get_yaml_loader", lambda: loader)
    patch.setattr(defaults_list, "_create_interpolation_map", map_if_needed)
    for module in (config_loader_impl, nested):
        patch.setattr(module, "create_defaults_list", remembered_list)
    patch.setattr(ConfigRepository, "load_config", remembered_file)
    patch.setattr(CachingConfigRepository, "__init__", share_sources)
    parse = functools.lru_cache(4096)(RELEASED_PARSER)
    for module in (omegaconf._utils, omegaconf.base):
        patch.setattr(module, "parse", parse)
    patch.setattr(ConfigLoaderImpl, "_load_single_config", remembered_single)
    patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", remembered_composition)
    patch.setattr(ConfigLoaderImpl, "_process_config_searchpath", remembered_search_path)


def slow_down(patch: pytest.MonkeyPatch) -> None:
    """Restore the functions as released."""
    for holder, name, released in _RELEASED:
        patch.setattr(holder, name, released)


class _Memory:
    """The values worked out last, pickled: what reads a value gets a copy of its own."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: dict[Any, bytes] = {}

    def get(self, key: Any, work_out: Callable[[], Any]) -> Any:
        """Return a copy of the value of a key, which is worked out if it is not there."""
        if key not in self._values:
            value = work_out()
            if value is None:  # may be there later
                return None
            self._values[key] = pickle.dumps(value)
            if len(self._values) > self.size:
                del self._values[next(iter(self._values))]
        return pickle.loads(self._values[key])


_files = _Memory(2000)
_singles = _Memory(2000)
_lists = _Memory(300)
_compositions = _Memory(300)
_without_search_path: set[Any] = set()


@functools.cache
def _shipped() -> frozenset[str]:
    return frozenset({f"file://{conf_directory()}", "pkg://hydra.conf", "structured://"})


def _shipped_files(repo: Any) -> Any:
    """Return what identifies the configs that are read, if all of them are shipped ones; otherwise None."""
    sources = tuple((source.provider, source.full_path()) for source in repo.get_sources())
    if not all(path in _shipped() for _, path in sources):
        return None
    choices = {path: tuple(nodes.items()) for path, nodes in getattr(repo, "choices", {}).items()}
    return (type(repo), sources, tuple(choices.items()))


def _shipped_source(repo: Any, config_path: str) -> Any:
    """Return what identifies the content of a config, if it is a shipped one; otherwise None."""
    if isinstance(repo, CachingConfigRepository):
        chosen = tuple(getattr(repo, "choices", {}).get(config_path, {}).items())
        source = _shipped_source(repo.delegate, config_path)
        return None if source is None else (source, type(repo), chosen)
    source = repo._find_object_source(config_path, ObjectType.CONFIG)
    path = None if source is None else source.full_path()
    return (source.provider, path) if path in _shipped() else None


def remembered_file(self: Any, config_path: str) -> Any:
    source = _shipped_source(self, config_path)
    if source is None:
        return RELEASED_LOAD(self, config_path)
    return _files.get((source, config_path), lambda: RELEASED_LOAD(self, config_path))


def share_sources(self: Any, delegate: Any) -> None:
    self.delegate = copy.copy(delegate)  # not a deep copy: other sources are put into a new list
    self.cache = {}


def remembered_list(repo: Any, config_name: Any, overrides_list: Any, prepend_hydra: bool, skip_missing: bool) -> Any:
    files = _shipped_files(repo)
    if files is None:
        return RELEASED_LIST(repo, config_name, overrides_list, prepend_hydra, skip_missing)
    of_values = defaults_list.Overrides(repo, overrides_list).config_overrides
    known = set(map(id, of_values))
    chosen = [override for override in overrides_list if id(override) not in known]

    def work_out() -> Any:
        composed = RELEASED_LIST(repo, config_name, chosen, prepend_hydra, skip_missing)
        composed.defaults_tree = None  # nothing reads it
        return composed, (repo.names, repo.targets) if isinstance(repo, ConfigFiles) else None

    key = (files, config_name, tuple(override.input_line for override in chosen), prepend_hydra, skip_missing)
    composed, contents = _lists.get(key, work_out)
    if contents is not None:
        repo.names, repo.targets = contents
    composed.config_overrides = composed.overrides.config_overrides = of_values
    return composed


def remembered_composition(self: Any, defaults: Any, repo: Any) -> Any:
    def work_out() -> Any:
        try:
            config = _merged(self, defaults, repo)
        except Exception:  # the message names the file
            self._notices, self._holding_keys = [], set()
            config = RELEASED_COMPOSITION(self, defaults, repo)
        return config, (self._notices, self._holding_keys) if isinstance(self, NestedLoader) else None

    files = _shipped_files(repo)
    configs = tuple((one.config_path, one.package, one.is_self, one.primary) for one in defaults)
    config, noted = work_out() if files is None else _compositions.get((type(self), files, configs), work_out)
    if noted is not None:
        self._notices, self._holding_keys = noted
    return config


def _merged(self: Any, defaults: Any, repo: Any) -> Any:
    """Return the composition of configs that are merged in one call: parents are set once, not for each of them."""
    config = OmegaConf.create()
    with flag_override(config, "no_deepcopy_set_nodes", True):
        config.merge_with(*(self._load_single_config(default=one, repo=repo).config for one in defaults))
    return RELEASED_COMPOSITION(_OneConfig(config), [None], None)  # type: ignore[arg-type]


class _OneConfig:
    """What Hydra's loader has to be for a composition of one config."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def _load_single_config(self, default: Any, repo: Any) -> _OneConfig:
        return self


def remembered_single(self: Any, default: Any, repo: Any) -> Any:
    source = _shipped_source(repo, default.config_path)
    if source is None:
        return copy.deepcopy(RELEASED_SINGLE(self, default, repo))  # one file may stand at two nodes
    key = (source, default.config_path, default.package, default.primary)
    return _singles.get(key, lambda: RELEASED_SINGLE(self, default, repo))


def remembered_search_path(self: Any, config_name: Any, parsed_overrides: Any, repo: Any) -> None:
    files = _shipped_files(repo)
    is_named = any(override.get_key_element() == "hydra.searchpath" for override in parsed_overrides)
    if files is None or is_named or (files, config_name) not in _without_search_path:
        RELEASED_SEARCH_PATH(self, config_name, parsed_overrides, repo)
        if not is_named and _shipped_files(repo) == files:
            _without_search_path.add((files, config_name))


def map_if_needed(overrides: Any, defaults: list[Any], self_added: bool) -> Any:
    has_reference = any(not entry.is_self() and entry.is_interpolation() for entry in defaults)
    return RELEASED_MAP(overrides, defaults, self_added) if has_reference else None


def loader_in_c(loader: type[yaml.SafeLoader]) -> type[yaml.CSafeLoader]:
    """Return OmegaConf's loader over libyaml's parser: the same resolvers and constructors."""
    rules = {name: getattr(loader, name) for name in ("yaml_implicit_resolvers", "yaml_constructors")}
    return type("LoaderInC", (_DuplicateCheck, yaml.CSafeLoader), rules)


class _DuplicateCheck:
    """OmegaConf's check that no key is written twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        keys = set()
        for key, _ in node.value:
            if key.tag == yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG and key.value in keys:
                problem = f"found duplicate key {key.value}"
                raise yaml.constructor.ConstructorError(
                    "while constructing a mapping", node.start_mark, problem, key.start_mark
                )
            keys.add(key.value)
        return super().construct_mapping(node, deep=deep)  # type: ignore[misc]
