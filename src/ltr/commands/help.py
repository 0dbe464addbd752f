"""``ltr-train --help``: help on the command, its groups, the configs of a group and the keys of a config."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from ltr.commands.layout import columns, help_width, longest, pairs, wrapped
from ltr.configuration.descriptions import PRIMARY, Config, Group, Key, described, groups
from ltr.configuration.field_names import KEYS
from ltr.configuration.listed_configs import LISTS
from ltr.errors import ConfigError, nearest_name

_INTRODUCTION = "Train and evaluate classifiers of long-tailed, open-set and fine-grained images."
_EXAMPLES = (
    ("ltr-train dataset=cifar10_lt loss=ldam loss.beta=0.99", "choose configs and keys"),
    ("ltr-train -m method=erm,crt seed=0,1", "four runs and a table"),
    ("ltr-train --cfg job experiment=cifar10_lt_m2m", "print it, run nothing"),
)
_COMMANDS = {
    "ltr-data": "list, describe, check and pack data sets",
    "ltr-eval": "evaluate finished runs, checkpoints or other weights",
    "ltr-predict": "predict the classes of images",
    "ltr-mine": "rank unlabelled images for rare classes",
    "ltr-export": "export a network and its description",
    "ltr-report": "tables, figures and HTML of finished runs",
    "ltr-stages": "list and prune cached stages",
    "ltr-dashboard": "a Weights & Biases workspace of finished runs",
}
_FLAGS = {
    "-m": "one run for each combination of comma-separated values",
    "--cfg job": "print the configuration",
    "--config-dir FOLDER": "add configs of your own",
    "--allow PREFIX": "let a config name your own package",
    "--hydra-help": "Hydra's other flags",
}
_INNER_GROUPS = ("recipe", "recipe/shared")  # chosen by data set and method, not by name
_SELDOM_KEYS = ("name", "stages", "figures")
_CONFIGS_OF_KEY = 8  # that the help on a key names
_DOCS = "Docs: docs/index.md, docs/configuration.md; `make docs` builds the site."


def help_text(topics: Sequence[str] = (), config_dir: str | None = None, width: int | None = None) -> str:
    """Return the help on a group, a config or the whole command.

    Args:
        topics: ``GROUP``, ``GROUP/NAME``, or as a configuration is changed: ``GROUP=NAME``, ``KEY=VALUE``; none: the
            whole command.
        config_dir: a folder of the user's own configs.
        width: in characters; None: the terminal's.

    Raises:
        ConfigError: there is no such group or config; the nearest one comes first in the message.
    """
    width = width or help_width()
    known = groups(config_dir)
    lines: list[str] = []
    for number, topic in enumerate(topics):
        lines += [""] * bool(number) + _on_topic(topic, known, config_dir, width)
    return "\n".join(lines or _overview(known, width))


def _on_topic(topic: str, known: dict[str, Group], config_dir: str | None, width: int) -> list[str]:
    key, _, value = topic.lstrip("+").partition("=")
    wanted = f"{key}/{value}".strip("/") if key in known else key.strip("/")
    if wanted in known:
        return _group(known[wanted], width)
    if wanted == PRIMARY:
        return _config(described("", PRIMARY), width)
    group, _, name = wanted.rpartition("/")
    group_of_key = wanted.removeprefix("hydra.").partition(".")[0]
    if group in known and name in known[group].configs:
        return _config(described(group, name, config_dir), width, known[group].choice(name))
    entries = [(title, key) for title, key in _keys_of(group_of_key, known, config_dir) if key.path == wanted]
    if entries:
        title, entry = entries[0]
        configs = [f"{group_of_key}/{title.rpartition('=')[2]}" for title, key in entries[1:] if key != entry]
        more = "" if len(configs) <= _CONFIGS_OF_KEY else f" and {len(configs) - _CONFIGS_OF_KEY} more"
        text = f"Also of {', '.join(configs[:_CONFIGS_OF_KEY])}{more}, where it may differ"
        note = ["", *wrapped(f"{text}: ltr-train --help {configs[0]}", width)] if configs else []
        return [*wrapped(title, width), "", *_entry(entry, width), *note]
    raise ConfigError(_unknown(topic, wanted, known, width))


def _keys_of(group: str, known: dict[str, Group], config_dir: str | None) -> Iterator[tuple[str, Key]]:
    """Yield the keys of a group's configs with a title, those of the default config first; at last the top level's."""
    if group in known and known[group].key is None:
        for name in sorted(known[group].configs, key=lambda config: config != known[group].default):
            yield from ((f"A key of {group}={name}", key) for key in described(group, name, config_dir).keys)
    yield from (("A key of the top level", key) for key in described("", PRIMARY).keys)


def _overview(known: dict[str, Group], width: int) -> list[str]:
    keys = [key.path for key in described("", PRIMARY).keys if key.path not in _SELDOM_KEYS]
    shown = [(group.name, group.default, group.meaning) for group in known.values() if group.name not in _INNER_GROUPS]
    return [
        *wrapped(_INTRODUCTION, width),
        "",
        *wrapped("Usage: ltr-train [GROUP=CONFIG ...] [KEY=VALUE ...] [FLAG ...]", width),
        *pairs(_EXAMPLES, width, "  ", most=0.75),
        "",
        *wrapped("Groups and their default configs. `ltr-train --help GROUP` lists the configs of a group, "
                  "`ltr-train --help GROUP/CONFIG` the keys of a config.", width),
        *columns(shown, width, "  "),
        *wrapped(f"  {', '.join(_INNER_GROUPS)}: published values, by data set and method", width),
        *pairs([(PRIMARY, f"top-level keys: {', '.join(keys)}, ...")], width, "  ", least=longest(known)),
        "",
        "Flags",
        *pairs(_FLAGS.items(), width, "  "),
        "",
        "Other commands, each with --help",
        *pairs(_COMMANDS.items(), width, "  "),
        *wrapped(_DOCS, width),
    ]  # fmt: skip


def _group(group: Group, width: int) -> list[str]:
    usage = f"{group.key}=[CONFIG,...] chooses some" if group.key in LISTS else f"{group.choice('CONFIG')} chooses one"
    return [
        *wrapped(f"{group.name}: {group.meaning}. Default: {group.default}.", width),
        *wrapped(f"{usage}; `ltr-train --help {group.name}/CONFIG` lists the keys of one.", width),
        "",
        *pairs(group.configs.items(), width, "  "),
    ]


def _config(config: Config, width: int, title: str = "Top-level keys") -> list[str]:
    lines = wrapped(f"{title}: {config.summary}", width)
    lines += [line for paragraph in _paragraphs(config.details) for line in wrapped(paragraph, width)]
    if config.choices:
        lines += ["", *wrapped(f"It chooses {'  '.join(config.choices)}", width)]
    if config.target:
        lines += ["", *wrapped(f"Code: {config.target}", width)]
    lines += [line for entry in config.keys for line in ("", *_entry(entry, width))]
    if config.more:
        lines += ["", *wrapped("Further options of the code, which this config leaves at their defaults; a + before "
                                f"the key adds one: +{config.more[0].path}=VALUE", width)]  # fmt: skip
        lines += [line for entry in config.more for line in ("", *_entry(entry, width))]
    if not config.keys and not config.more:
        lines += ["", "It has no keys of its own."]
    return lines


def _entry(key: Key, width: int) -> list[str]:
    """Return the lines of a key: name and default, allowed values, meaning."""
    lines = wrapped(f"{key.path} = {key.default}", width, after="    ")
    if key.allowed:
        lines += wrapped(f"allowed: {key.allowed}", width, "    ", "      ")
    return lines + (wrapped(key.meaning, width, "    ", "    ") if key.meaning else [])


def _unknown(topic: str, wanted: str, known: dict[str, Group], width: int) -> str:
    """Return the message for a topic that there is not: the nearest ones, then all groups or all configs of its one."""
    group, _, name = wanted.rpartition("/")
    if group in known:
        near = _nearest(name, list(known[group].configs))
        rest = f"{group} has {', '.join(known[group].configs)}"
        near = [f"{group}/{one}" for one in near]
    else:
        configs = [f"{one.name}/{config}" for one in known.values() for config in one.configs]
        last = wanted.rpartition("/")[2].lower()
        near = [config for config in configs if config.rpartition("/")[2].lower() == last]
        near = near or [*KEYS.get(wanted, ())]
        near = near or _nearest(group or wanted, [*known, PRIMARY])
        near = near or [config for end in _nearest(last, [c.rpartition("/")[2] for c in configs])
                        for config in configs if config.rpartition("/")[2] == end]  # fmt: skip
        rest = f"the groups are {', '.join(known)}"
    hint = f"did you mean {' or '.join(near[:4])}? " if near else ""
    message = f"--help {topic}: {hint}{'There' if hint else 'there'} is no such group or config; {rest}"
    return "\n".join(wrapped(message, width - len("error: "), after="  "))


def _nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return the nearest name, capitals aside; [] where none is close."""
    by_lower = {one.lower(): one for one in known}
    close = nearest_name(name.lower(), by_lower)
    return [] if close is None else [by_lower[close]]


def _paragraphs(lines: Sequence[str]) -> list[str]:
    """Return the text of a comment's lines; commands and lines such as ``Cost:    ...`` start paragraphs."""
    paragraphs: list[str] = []
    for line in lines:
        starts = re.match(r"ltr-|\w+: {2,}", line) is not None
        is_command = bool(paragraphs) and paragraphs[-1].startswith("ltr-")
        if not paragraphs or starts or is_command:
            paragraphs.append("")
        paragraphs[-1] = f"{paragraphs[-1]} {' '.join(line.split())}".strip()
    return paragraphs
