"""ltr: experiments in long-tailed, open-set and fine-grained recognition.

``ltr.train(overrides)``, ``ltr.load(run)``, ``ltr.config(overrides)`` and ``ltr.build(method, num_classes=C)`` are the
Python interface. They are imported on first use, which keeps ``import ltr`` cheap.
"""

from __future__ import annotations

from typing import Any

from ltr.former_modules import install

__version__ = "0.1.0"
__all__ = ["build", "config", "load", "train"]

install()


def __getattr__(name: str) -> Any:
    if name in __all__:
        from ltr import api

        return getattr(api, name)
    raise AttributeError(f"module 'ltr' has no attribute '{name}'")
