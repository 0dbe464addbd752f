"""Where the configuration configs lie, and small helpers over a composed configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ltr.errors import ConfigError

# what a config says about itself: rules for its values, the tables of results that it is a row of, the published
# number. None of them reaches the code that a config names, a result file or the identity of a stage or a run
PRIVATE_KEYS = ("_allowed_", "_table_", "_published_")


def conf_directory() -> Path:
    """The folder of configs: inside an installed package, or beside ``src`` in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "conf", package.parent.parent / "conf"):
        if (candidate / "train.yaml").is_file():
            return candidate
    raise ConfigError(f"the configuration configs are missing: looked in {package / 'conf'} and the checkout's conf/")


def read_config(config: str) -> dict[str, Any]:
    """A shipped config as it is written, not composed, e.g. ``read_config("trainer/default")``."""
    import yaml

    content = yaml.safe_load((conf_directory() / f"{config}.yaml").read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def config_names(group: str) -> list[str]:
    """The names of the shipped configs of a group."""
    return sorted(path.stem for path in (conf_directory() / group).glob("*.yaml"))


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every (dotted key, value) below ``node``, without private entries."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key not in PRIVATE_KEYS:
                yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def mappings(node: Any, path: str = "") -> Iterator[tuple[str, Mapping]]:
    """Every mapping at or below ``node`` with its dotted path."""
    if isinstance(node, Mapping):
        yield path, node
        for key, value in node.items():
            if key not in PRIVATE_KEYS:
                yield from mappings(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from mappings(value, f"{path}.{number}")


def without_private(node: Any) -> Any:
    """A copy without the private keys: what is written to result files and hashed."""
    if isinstance(node, Mapping):
        return {key: without_private(value) for key, value in node.items() if key not in PRIVATE_KEYS}
    if isinstance(node, (list, tuple)):
        return [without_private(value) for value in node]
    return node


def canonical_json(value: Any) -> str:
    """JSON that is the same for equal content: sorted keys, no spaces, floats as Python prints them."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 in hex over the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
