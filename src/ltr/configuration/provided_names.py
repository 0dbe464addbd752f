"""Names that the packages behind a group know, such as timm's models: the command that chooses each of them.

The names are read from the packages' source: nothing is imported for a message.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

# group -> package, its files, the pattern of a name, and the command that chooses it
_PROVIDERS: dict[str, tuple[tuple[str, str, str, str], ...]] = {
    "backbone": (
        ("timm", "models/*.py", r"^@register_model\s+def (\w+)\(", "backbone=timm backbone.name={}"),
        ("torchvision", "models/*.py", r"^@register_model\(.*\)\s(?:@.*\s)?def (\w+)\(",
         "backbone=torchvision backbone.name={}"),
    ),
    "optimizer": (
        ("torch", "optim/*.py", r"^class (\w+)\(Optimizer\):", "optimizer=torch optimizer.name={}"),
        ("timm", "optim/_optim_factory.py", r"^ +name='(\w+)'", "optimizer=timm optimizer.name={}"),
    ),
    "scheduler": (
        ("timm", "scheduler/scheduler_factory.py", r"sched(?:_name)? == '(\w+)'", "scheduler=timm scheduler.name={}"),
    ),
    "scorer": (
        ("pytorch_ood", "detector/**/*.py", r"^class (\w+)\((?:\w+, )*\w*Detector\b",
         "evaluation.scorers=[pytorch_ood.{}]"),
    ),
}  # fmt: skip


_SHORTEST_FAMILY = 3  # letters of a name that can begin a family's


def provided_choices(group: str, name: str) -> list[str]:
    """Return the commands that choose a name of a package, such as ``backbone=timm backbone.name=resnet18``.

    Args:
        group: group in which there is no config of this name.
        name: as typed; capitals and punctuation do not matter, and names that are equal come first.
    """
    choices = []
    for package, files, pattern, command in _PROVIDERS.get(group, ()):
        names = dict.fromkeys(_names(package, files, pattern))
        alike = [name] if name in names else [known for known in names if _simplified(known) == _simplified(name)]
        choices += [command.format(known) for known in alike[:1]]
    return choices if group == "backbone" else choices[:1]  # timm repeats the optimisers of torch


def family_choices(group: str, name: str) -> list[str]:
    """Return the commands that choose a backbone of the family that a name begins, one for each package.

    Of several models it is the one with the shortest name: ``swin_large_patch4_window7_224`` for ``swin_large``.
    """
    wanted = name.lower()
    if group != "backbone" or len(wanted) < _SHORTEST_FAMILY:
        return []
    choices = []
    for package, files, pattern, command in _PROVIDERS[group]:
        names = list(dict.fromkeys(_names(package, files, pattern)))
        begin = [known for known in names if known.startswith(wanted)]
        whole_words = [known for known in begin if not known[len(wanted) : len(wanted) + 1].isalpha()]
        family = whole_words or begin or [known for known in names if wanted in known.split("_")]
        choices += [command.format(min(family, key=len))] if family else []
    return choices


def _names(package: str, files: str, pattern: str) -> Iterator[str]:
    """Yield the names that a package's files define; none if it is not installed."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations if spec is not None else None) or ():
        for file in sorted(Path(folder).glob(files)):
            yield from re.findall(pattern, file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)


def _simplified(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
