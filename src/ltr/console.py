"""How the commands speak: warnings as plain lines."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Warnings of this project as one line each, without a source line; other packages' as they come."""
    original = warnings.showwarning

    def showwarning(
        message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        if category is UserWarning and filename.startswith(_OURS):
            print(f"warning: {message}", file=sys.stderr)
        else:
            original(message, category, filename, lineno, file, line)

    warnings.showwarning = showwarning
    try:
        yield
    finally:
        warnings.showwarning = original
