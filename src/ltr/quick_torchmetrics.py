"""A quicker import of torchmetrics, which Lightning imports for the names of two classes.

The package itself imports all of its metrics and with them SciPy, torchvision and, where it is installed,
transformers: a third of the processor time that ``import pytorch_lightning`` takes. The commands use none of them.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any


def install(package: str = "torchmetrics") -> None:
    """Let torchmetrics, once imported, load its metrics only when somebody uses one of them.

    Meant for the commands, which own their process. The package stays complete: any name beside those that Lightning
    needs imports the rest, and its submodules can be imported as ever. Does nothing if the package is imported already.
    """
    if package not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(package))


class _Finder(importlib.abc.MetaPathFinder):
    """Finder of the package, which `_Loader` then loads."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.package:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """Loader of a part of the package.

    Args:
        whole: the loader that runs the package's own ``__init__``.
    """

    def __init__(self, whole: importlib.abc.Loader) -> None:
        self.whole = whole

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.whole.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        try:
            self._load_part(module)
        except (ImportError, AttributeError):  # a version whose modules import each other in another order
            for name in [name for name in sys.modules if name.startswith(f"{module.__name__}.")]:
                del sys.modules[name]
            self.whole.exec_module(module)

    def _load_part(self, module: ModuleType) -> None:
        """Define the names that Lightning and the submodules import."""
        package = module.__name__
        module.__dict__["__version__"] = import_module(f"{package}.__about__").__version__
        module.__dict__["_logger"] = logging.getLogger(package)
        import_module(f"{package}.utilities")  # before .metric, which imports parts of it
        for name, submodule in (("Metric", "metric"), ("MetricCollection", "collections")):
            module.__dict__[name] = getattr(import_module(f"{package}.{submodule}"), name)

        def attribute(name: str) -> Any:
            if name.startswith("__") and name != "__all__":  # inspecting the module uses no metric
                raise AttributeError(f"module '{package}' has no attribute '{name}'")
            del module.__dict__["__getattr__"]
            self.whole.exec_module(module)
            return getattr(module, name)

        module.__dict__["__getattr__"] = attribute
