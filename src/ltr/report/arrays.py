"""Named arrays of a run's ``artifacts/`` folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ltr.errors import DataError


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return all arrays of an ``.npz`` file; {} if the file does not exist.

    Raises:
        DataError: the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # numpy and zipfile raise errors of many types for damaged files
        raise DataError(
            f"{path} is damaged and cannot be read. Repeat the run's command with resume=never, which writes it again."
        ) from error
