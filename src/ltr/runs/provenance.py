"""How a result came about: versions, commit, device. No user names, no keys, no paths."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

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
    """The installed version of every package that numbers depend on."""

    def version(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    return {name: version(name) for name in PACKAGES}


def code_state() -> dict[str, Any]:
    """Commit and dirty flag of the checkout that this package runs from; both None for an installed package."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None}

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain")
    return {"commit": git("rev-parse", "HEAD") or None, "dirty": None if status is None else bool(status)}


def provenance(device: str, precision: str) -> dict[str, Any]:
    """What `provenance.json` holds of the machine and the code."""
    return {
        "code": code_state(),
        "packages": versions(),
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "device": device,
        "precision": precision,
    }
