"""Targets of configs (``_target_``): the allow-list, checks of arguments, and instantiation.

`instantiate` replaces Hydra's, which turns run-time arguments (arrays, dataclasses) into config nodes.
Convention: what a config supplies is keyword-only in the callable, what the program supplies is positional.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ltr.configuration.command_line import wrong_package
from ltr.configuration.configs import PRIVATE_KEYS, mappings, node_at
from ltr.configuration.signatures import for_configs, mismatches
from ltr.configuration.unwritten import unwritten_methods
from ltr.errors import ConfigError, nearest
from ltr.identity import name_of, path_of

# timm as a whole has functions that unpickle a file; its models come through ltr.models
ALLOWED_PREFIXES = ("ltr.", "torch.nn.", "torch.optim.", "torchvision.models.")
PRIVATE = ("_target_", "name", "extras", "scorers", *PRIVATE_KEYS)
# read by the program itself on configs of methods, unless the code that a config names asks for them
OFFERED = ("name", "extras", "scorers")
_extra_prefixes: list[str] = []


@contextlib.contextmanager
def allow_packages(prefixes: Sequence[str]) -> Iterator[None]:
    """Extend the allow-list by prefixes (from ``--allow``) within the block.

    Never call it with text from a config file.

    Raises:
        ConfigError: a prefix is not the dotted name of a package.
    """
    for prefix in prefixes:
        if mistake := wrong_package(prefix):
            raise ConfigError(mistake)
    before = list(_extra_prefixes)
    _extra_prefixes.extend(prefixes)
    try:
        yield
    finally:
        _extra_prefixes[:] = before


def allowed_prefixes() -> tuple[str, ...]:
    """Return the allowed beginnings of a ``_target_``: ltr's, ``--allow`` and ``LTR_ALLOW`` (comma-separated)."""
    from_environment = [part.strip() for part in os.environ.get("LTR_ALLOW", "").split(",") if part.strip()]
    return ALLOWED_PREFIXES + tuple(_extra_prefixes) + tuple(from_environment)


def packages_of_command(config: Mapping[str, Any]) -> list[str]:
    """Return the packages of ``--allow`` that a configuration's targets lie in, for a command that reads its run."""
    targets = [str(node["_target_"]) for _, node in mappings(config) if "_target_" in node]
    prefixes = [prefix.rstrip(".") for prefix in dict.fromkeys(_extra_prefixes)]
    return [prefix for prefix in prefixes if any(f"{target}.".startswith(f"{prefix}.") for target in targets)]


def _inside(name: str) -> bool:
    """Return whether a dotted name lies in an allowed package: ``a.b`` allows ``a.b`` and ``a.b.c``, not ``a.bc``."""
    return any(name == prefix.rstrip(".") or name.startswith(prefix.rstrip(".") + ".") for prefix in allowed_prefixes())


def _key(path: str) -> str:
    return f"{path}._target_" if path else "_target_"


def _refusal(path: str, target: Any) -> str:
    return f"{_key(path)}={target}: {_outside()}"


def _outside() -> str:
    packages = ", ".join(prefix.rstrip(".") for prefix in allowed_prefixes())
    return f"not in an allowed package ({packages}). For your own code pass --allow PREFIX or set LTR_ALLOW"


def refused_target(target: Any) -> str | None:
    """Return the reason why a ``_target_`` is refused, as the end of a sentence; None if its package is allowed."""
    return None if isinstance(target, str) and _inside(target) else _outside()


def check_targets(config: Mapping) -> list[str]:
    """Return a sentence for every ``_target_`` outside the allow-list; import nothing."""
    return [
        _refusal(path, node["_target_"])
        for path, node in mappings(config)
        if "_target_" in node and not (isinstance(node["_target_"], str) and _inside(node["_target_"]))
    ]


def class_name(config: Mapping[str, Any]) -> str:
    """Return the name of a config's class or function, such as ``LDAM``."""
    return str(config.get("_target_")).rpartition(".")[2]


def typed_name(config: Mapping[str, Any]) -> str:
    """Return the name of a config's class in overrides, such as ``ldam``; that of code outside ltr is its path."""
    return name_of(str(config.get("_target_"))).rpartition("/")[2]


def locate(target: str, path: str = "") -> Any:
    """Import the object of a ``_target_``.

    Raises:
        ConfigError: the name or the object's own module is outside the allow-list (an alias of a forbidden function
            does not pass), or no such object exists.
    """
    if not isinstance(target, str) or not _inside(target):
        raise ConfigError(_refusal(path, target))
    parts = path_of(target).split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:cut])
        try:
            located: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as missing:
            if missing.name and (module_name == missing.name or module_name.startswith(missing.name + ".")):
                continue
            raise ConfigError(f"{_key(path)}={target}: importing it needs {_lacking(missing)}") from missing
        except Exception as error:  # importing a user's module may raise any exception
            raise ConfigError(
                f"{_key(path)}={target}: importing {module_name} fails: {type(error).__name__}: {error}"
            ) from error
        for part in parts[cut:]:
            if not hasattr(located, part):
                raise ConfigError(
                    f"{_key(path)}={target}: '{module_name}' has no '{part}'{nearest(part, dir(located))}"
                )
            located = getattr(located, part)
        own_module = getattr(located, "__module__", None) or ""
        if not callable(located) or not _inside(own_module):
            raise ConfigError(_refusal(path, f"{target} (an object of '{own_module or '?'}')"))
        return located
    raise ConfigError(
        f"{_key(path)}={target}: there is no such module. Code that is not installed is found where "
        "PYTHONPATH names its folder (PYTHONPATH=. for this one)"
    )


def _config_arguments(node: Mapping, signature: inspect.Signature) -> dict[str, Any]:
    """Return the config's arguments, without ``name`` and the program's own keys unless the callable asks for them."""
    names = signature.parameters
    return {key: value for key, value in node.items() if key not in PRIVATE or (key in OFFERED and key in names)}


# a sweep asks about the same few callables in each of its jobs
_signature = functools.lru_cache(maxsize=1024)(inspect.signature)


def check_arguments(config: Mapping) -> list[str]:
    """Import every ``_target_``, compare its config with the signature, and return a sentence for every mismatch."""
    mistakes = []
    for path, node in mappings(config):
        if "_target_" not in node:
            continue
        try:
            function = locate(node["_target_"], path)
        except ConfigError as error:
            mistakes.append(str(error))
            continue
        if isinstance(function, type) and (reason := unwritten_methods(function)):
            mistakes.append(f"{_key(path)}={node['_target_']}: {reason}")
        try:
            signature = _signature(function)
        except ValueError:  # a builtin without a signature
            continue
        arguments = _config_arguments(node, signature)
        if node["_target_"].startswith("ltr."):  # the user's code may check its config itself
            arguments |= {key: node[key] for key in OFFERED if key in node and not _is_read(key, path, function)}
        mismatched = mismatches(path, node["_target_"], function, signature, arguments)
        mistakes += [_as_given(mistake, config, path, node) for mistake in mismatched]
    return mistakes


def _as_given(mistake: str, config: Mapping, path: str, node: Mapping) -> str:
    """Name the key that a mistake's value comes from: dataset.exif, not dataset.source.exif."""
    above = path.rpartition(".")[0]
    outer = node_at(config, above)
    if above and isinstance(outer, Mapping):
        for key in node:
            if key in outer and outer[key] == node[key] and not isinstance(node[key], Mapping):
                mistake = mistake.replace(f"{path}.{key}=", f"{above}.{key}=")
    return mistake


def _lacking(missing: ModuleNotFoundError) -> str:
    """Describe a module that cannot be imported: a package to install, or a missing module of a package."""
    name = str(missing.name)
    package = name.partition(".")[0]
    try:
        is_there = package == "ltr" or ("." in name and importlib.util.find_spec(package) is not None)
    except (ImportError, ValueError):
        is_there = False
    if is_there:
        return f"the module '{name}', and the package {package} has none of this name. Correct its import"
    return f"the package '{name}', which is not installed. Install it, e.g. pip install {name}"


def _is_read(key: str, path: str, function: Any) -> bool:
    """Return whether the program itself reads one of `OFFERED` here: all of the run's method, the name below it."""
    return path == "method" or (key != "extras" and hasattr(function, "stages"))


def instantiate(node: Mapping, *runtime: Any, **runtime_named: Any) -> Any:
    """Call the config's ``_target_`` with the run-time arguments first and the config's values by name.

    Nested configs (values with a ``_target_`` of their own) are passed on unchanged; the code that knows their run-time
    arguments instantiates them.

    Raises:
        ConfigError: the target is not allowed, or the arguments do not fit.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        shown_node = ", ".join(map(str, node)) if isinstance(node, Mapping) else str(node)
        raise ConfigError(f"a config with a _target_ is needed, and this has none: {shown_node or 'an empty one'}")
    function = locate(node["_target_"], str(node.get("name", "")))
    if isinstance(function, type) and (reason := unwritten_methods(function)):
        raise ConfigError(reason)
    try:
        signature = _signature(function)
        arguments = _config_arguments(node, signature)
        for name in arguments:
            if name in signature.parameters and not for_configs(node["_target_"], signature.parameters[name]):
                raise TypeError(f"'{name}' is not an argument that a config can give")
        signature.bind(*runtime, **arguments, **runtime_named)
    except TypeError as mismatch:
        raise ConfigError(f"{node['_target_']}: {mismatch}") from mismatch
    return function(*runtime, **arguments, **runtime_named)
