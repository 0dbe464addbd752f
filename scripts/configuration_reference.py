"""Write docs/reference.md, every group, config and key of the configuration; run it after changing one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ltr.configuration.descriptions import PRIMARY, Config, Group, Key, described, groups
from ltr.configuration.listed_configs import LISTS

PAGE = Path(__file__).parent.parent / "docs" / "reference.md"
# groups whose configs set keys of other groups: only listed
COLLECTIONS = ("recipe", "recipe/shared", "experiment", "sweep", "debug")
INTRODUCTION = """\
# Reference of the configuration

Every group of configs, its configs and their keys, with default, allowed values and meaning. The command line shows the
same: `ltr-train --help loss`, `ltr-train --help loss/ldam`. [Configuration](configuration.md) explains how configs
are chosen and changed. An interval such as `[0, 1)` is a range of numbers, with `int` of whole numbers.

`python scripts/configuration_reference.py` writes this page from the code and the configs.
"""


def page() -> str:
    """Return the text of the page."""
    known = groups()
    parts = [INTRODUCTION, f"## Top-level keys\n\n{_table([described('', PRIMARY)])}\n"]
    parts += [section for group in known.values() for section in _group(group)]
    return "\n".join(parts)


def _group(group: Group) -> Iterator[str]:
    chosen = f"`{group.choice('CONFIG,...' if group.key in LISTS else 'CONFIG')}`"
    meaning = _cell(group.meaning[0].upper() + group.meaning[1:])
    default = _code(group.default)
    yield f"## {group.name}\n\n{meaning}. Chosen by {chosen}; default: {default}.\n\n{_list(group.configs)}\n"
    if group.name in COLLECTIONS:
        return
    configs = [described(group.name, name) for name in group.configs]
    for alike in [configs] if group.name == "dataset" else _alike(configs):
        if any(config.keys or config.more for config in alike):
            names = "all data sets" if group.name == "dataset" else ", ".join(config.name for config in alike)
            yield f"### {group.name}: {names}\n\n{_table(alike)}\n"


def _alike(configs: Sequence[Config]) -> list[list[Config]]:
    """Return the configs in lists of the same code and keys."""
    alike: dict[tuple[str, ...], list[Config]] = {}
    for config in configs:
        keys = sorted(key.path for key in (*config.keys, *config.more))
        alike.setdefault((config.target, *keys), []).append(config)
    return list(alike.values())


def _list(configs: Mapping[str, str]) -> str:
    lines = ["| config | what it is |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {_cell(summary)} |" for name, summary in configs.items())])


def _table(configs: Sequence[Config]) -> str:
    """Return the keys of configs; a default that differs between them is given for each, or for the first few."""
    keys: dict[str, dict[str, Key]] = {}
    for config in configs:
        for key in (*config.keys, *config.more):
            keys.setdefault(key.path, {})[config.name] = key
    lines = ["| key | default | allowed | meaning |", "|---|---|---|---|"]
    for path, by_config in keys.items():
        first = next(iter(by_config.values()))
        meanings = Counter(key.meaning.partition(". Here: ")[0] for key in by_config.values())
        meaning = meanings.most_common(1)[0][0] if len(configs) > 1 else first.meaning
        allowed = _code(first.allowed) if first.allowed else ""
        lines.append(f"| `{path}` | {_defaults(by_config)} | {allowed} | {_cell(meaning)} |")
    return "\n".join(lines)


def _defaults(by_config: Mapping[str, Key]) -> str:
    values = dict.fromkeys(key.default for key in by_config.values())
    if len(values) == 1:
        return _code(next(iter(values)))
    if len(values) > 4:
        return "by config"
    return "; ".join(
        f"{_code(value)} ({', '.join(name for name, key in by_config.items() if key.default == value)})"
        for value in values
    ) if len(by_config) <= 12 else "by config"  # fmt: skip


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
