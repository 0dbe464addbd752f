"""Identity of code outside ltr in a configuration: the version of an installed package, otherwise a digest.

A package from a registry (below ``site-packages`` or ``dist-packages``) counts by its version. Everything else counts
by the content of its source files: of the whole top-level package that a target lies in, and of the modules outside
``site-packages`` that its files import. Data files are ignored.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ltr.configuration.configs import mappings

# ltr and its dependencies: their versions are in a run's provenance
OURS = ("ltr", "torch", "torchvision", "timm", "pytorch_lightning", "lightning_fabric", "torchmetrics", "numpy",
        "sklearn")  # fmt: skip
_SOURCE = (".py", ".pyx", ".so", ".pyd")
_INSTALLED = ("site-packages", "dist-packages")
_DIGITS = 16

# top-level name -> loaded module, and its identity. Loaded code runs as it was loaded,
# so the identity of a loaded module does not follow an edit of its file
_known: dict[str, tuple[object, str]] = {}


def own_code(node: Any) -> dict[str, str]:
    """Return the identity of every top-level package outside ltr that a ``_target_`` at or below ``node`` names."""
    targets = [config.get("_target_") for _, config in mappings(node)]
    return identities(target for target in targets if isinstance(target, str))


def identities(names: Iterable[str]) -> dict[str, str]:
    """Return the identity of each top-level package of dotted names, without ltr, its dependencies, and Python."""
    tops = {name.partition(".")[0] for name in names}
    return {top: _identity(top) for top in sorted(tops) if _is_own(top)}


def _is_own(top: str) -> bool:
    return bool(top) and top not in OURS and top not in sys.stdlib_module_names


def _identity(top: str) -> str:
    loaded = sys.modules.get(top)
    if top in _known and (_known[top][0] is loaded or _known[top][0] is None):
        if _known[top][0] is None and loaded is not None:
            _known[top] = (loaded, _known[top][1])  # loaded by an earlier command of this process
        return _known[top][1]
    identity = _version(top) if _is_installed(_places(top)) else None
    _known[top] = (loaded, identity or _digest(top))
    return _known[top][1]


def _places(top: str) -> list[Path]:
    """Return the file or the folders of a top-level module or package; [] if it has none, as in a notebook."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # a module that is loaded without a specification, such as a script
        file = getattr(sys.modules.get(top), "__file__", None)
        return [Path(file).absolute()] if file else []
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(folder).absolute() for folder in spec.submodule_search_locations]
    return [Path(spec.origin).absolute()] if spec.origin and os.path.isfile(spec.origin) else []


def _version(top: str) -> str | None:
    distributions = metadata.packages_distributions().get(top)
    return metadata.version(distributions[0]) if distributions else None


def _digest(top: str) -> str:
    """Return the SHA-256, shortened, of the source of a package and its imports outside ``site-packages``."""
    digest = hashlib.sha256()
    waiting, seen = [top], {top}
    while waiting:
        name = waiting.pop(0)
        imported: set[str] = set()
        for path in _places(name):
            for relative, content in source_files(path):
                digest.update(repr((name, relative, len(content))).encode())
                digest.update(content)
                if relative.endswith(".py"):
                    imported |= _imports(content)
        new = sorted(
            one for one in imported - seen if _is_own(one) and _places(one) and not _is_installed(_places(one))
        )
        seen |= set(new)
        waiting += new
    return digest.hexdigest()[:_DIGITS] if any(map(_places, seen)) else "unknown"


def _is_installed(places: Iterable[Path]) -> bool:
    return any(set(_INSTALLED) & set(path.parts) for path in places)


def source_files(root: Path) -> Iterator[tuple[str, bytes]]:
    """Return (relative name, content) of a module's file, or of all source files of a package, in order.

    Hidden folders, caches, virtual environments and unreadable files are skipped.
    """
    if root.is_file():
        yield root.name, root.read_bytes()
        return
    for folder, below, files in os.walk(root):
        below[:] = sorted(
            name
            for name in below
            if not name.startswith((".", "__pycache__"))
            and not os.path.isfile(os.path.join(folder, name, "pyvenv.cfg"))
        )
        for name in sorted(files):
            path = Path(folder, name)
            if path.suffix in _SOURCE and path.is_file():
                yield path.relative_to(root).as_posix(), path.read_bytes()


def _imports(content: bytes) -> set[str]:
    """Return the top-level names that a file imports; none if it cannot be parsed."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return set()
    packages: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            packages.add(node.module.partition(".")[0])
    return packages


def changed_code(config: Mapping[str, Any]) -> list[str]:
    """Return the packages outside ltr whose code has changed since the run (``code``)."""
    now = own_code(config)
    return [top for top, identity in (config.get("code") or {}).items() if now.get(top, identity) != identity]
