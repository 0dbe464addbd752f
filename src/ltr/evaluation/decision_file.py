"""File of decision thresholds in a run's folder, with their metrics, by the digest of the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ltr.errors import CheckpointError

FILE = "decisions.json"  # name of the file in the folder of a run
FORMAT, VERSION = "ltr-decisions", 1


def read_entries(path: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of a file of decisions, by the SHA-256 of the weights.

    Raises:
        CheckpointError: the file is damaged, or of a newer version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = content["weights"] if content["format"] == FORMAT and content["version"] <= VERSION else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}. Move it elsewhere, and choose again by ltr-eval --decide"
        ) from error
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise CheckpointError(
            f"{path} is of a newer version of ltr, or of another program. Move it "
            "elsewhere, and choose again by ltr-eval --decide"
        )
    return entries
