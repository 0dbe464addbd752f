"""Provenance of a result: versions, commit, device, without user names, keys or paths."""

from __future__ import annotations

import functools
import hashlib
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ltr.configuration.own_code import source_files

PACKAGES = (
    "ltr",
    "torch",
    "torchvision",
    "timm",
    "pytorch-lightning",
    "torchmetrics",
    "hydra-core",
    "omegaconf",
    "numpy",
    "scikit-learn",
    "pillow",
    "pyarrow",
)


def versions() -> dict[str, str | None]:
    """Return the installed version of every package that results depend on."""
    return {name: _version(name) for name in PACKAGES}


@functools.cache
def _version(package: str) -> str | None:
    """Return the installed version of a package; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def code_state() -> dict[str, Any]:
    """Return commit and dirty flag of the checkout that this package runs from, and a digest of the package's source.

    The first two are None for an installed package. All are read once, so that they describe the running code.
    """
    root = Path(__file__).resolve().parents[3]
    digest = hashlib.sha256()
    for name, content in source_files(Path(__file__).resolve().parents[1]):
        digest.update(repr((name, len(content))).encode())
        digest.update(content)
    source = {"source": digest.hexdigest()[:16]}
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None, **source}

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain")
    return {"commit": git("rev-parse", "HEAD") or None, "dirty": None if status is None else bool(status), **source}


def describe_difference(earlier: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str | None:
    """Return a description of two different states of ltr's code; None if they are equal or one is unknown.

    The description mentions uncommitted changes, but does not list them.

    Args:
        earlier: `code_state` of the code that wrote a file; None if it was not stored.
        now: `code_state` of this process.
    """
    if not earlier:
        return None
    is_same_source = earlier.get("source") == now["source"]
    is_clean = earlier.get("commit") == now["commit"] and not earlier.get("dirty") and not now["dirty"]
    if is_clean and is_same_source:
        return None
    return f"{_named(earlier)}; this is {_named(now)}{'; the source of ltr is the same' if is_same_source else ''}"


def _named(code: Mapping[str, Any]) -> str:
    if code.get("commit") is None:
        return f"source {code.get('source') or 'unknown'}"
    return f"commit {str(code['commit'])[:10]}{' with uncommitted changes' if code.get('dirty') else ''}"


def provenance(device: str, precision: str) -> dict[str, Any]:
    """Return the entries of ``provenance.json`` about the machine and the code."""
    return {
        "code": code_state(),
        "packages": versions(),
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "device": device,
        "precision": precision,
    }
