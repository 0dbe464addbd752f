"""Descriptions of config groups and configs: what each is, and the default, rule and meaning of every key.

`ltr-train --help` and the docs' reference of the configuration are printed from these. What a class declares comes from
`ltr.configuration.declarations`; what only a config file knows, from the comments and the ``_allowed_`` in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltr.configuration.allowed import as_text
from ltr.configuration.comments import comments_of, opening_line
from ltr.configuration.configs import PRIVATE_KEYS, conf_directory, read_config
from ltr.configuration.dataset_options import PARTS, dataset_options
from ltr.configuration.declarations import Option, Required, fields_of, options_of
from ltr.configuration.declared_defaults import with_defaults
from ltr.configuration.launchers import LOCAL_OPTIONS
from ltr.configuration.listed_configs import LISTS, NODES, reader

PRIMARY = "train"
# read by the program, whatever the code
_COMMON = {
    "strategy.name": "Lightning's name of the strategy",
    "logger.name": "the logger",
    "features.name": "where features come from",
    "method.name": "its name in results and reports",
    "method.scorers": "its usual scores of how known an image is, the headline first; evaluation.scorers takes them",
}
_PACKAGE = "# @package _global_"
_ENTRY = re.compile(r"^  - (?:optional )?(?P<group>[\w/]+): (?P<name>\S+) +# (?P<meaning>.+)$", re.MULTILINE)
_OF_WEIGHTS = re.compile(r"^\$\{of_weights:\w+,(.*)\}$")
_INTERPOLATION = re.compile(r"^\$\{(?:oc\.(?:select|env):)?(?P<first>[\w.]+)(?:,(?P<second>.+))?\}$")


@dataclass(frozen=True)
class Group:
    """A folder of configs.

    Attributes:
        default: default choice, as text.
        meaning: description of the group.
        configs: summary of each config by name.
        key: the list that names its configs, such as ``evaluation.scorers``, or the node that takes one, such as
            ``features.pool``; None: ``group=name`` chooses one.
    """

    name: str
    default: str
    meaning: str
    configs: Mapping[str, str]
    key: str | None = None

    def choice(self, config: str) -> str:
        """Return how a config of the group is chosen on the command line."""
        name = f"[{config}]" if self.key in LISTS else config
        return f"{self.key or self.name}={name}"


@dataclass(frozen=True)
class Key:
    """A key of a config: its dotted path in the configuration, its value in the config, its rule and its meaning."""

    path: str
    default: str
    allowed: str
    meaning: str


@dataclass(frozen=True)
class Config:
    """A config file, its bases included.

    Attributes:
        summary: first line of its comment.
        details: the other lines.
        target: import path of the code that it names; '' if it names none.
        choices: configs that it chooses: in other groups ("head=cosine") and below itself.
        keys: its keys.
        more: further options of its code, which it leaves at their defaults.
    """

    group: str
    name: str
    summary: str
    details: list[str]
    target: str
    choices: list[str]
    keys: list[Key]
    more: list[Key]


def groups(config_dir: str | None = None) -> dict[str, Group]:
    """Return the groups in the order of the primary config, then those whose configs are named in lists.

    Args:
        config_dir: a folder of the user's own configs.
    """
    text = (conf_directory() / f"{PRIMARY}.yaml").read_text(encoding="utf-8")
    listed = {}
    for entry in _ENTRY.finditer(text):
        name, default = entry["group"], "by name" if "${" in entry["name"] else entry["name"]
        listed[name] = Group(name, default, entry["meaning"], summaries(name, config_dir))
    evaluation = read_config("evaluation/default")
    for group in dict.fromkeys(LISTS.values()):
        key = next(key for key, listed_group in LISTS.items() if listed_group == group)
        usual = evaluation.get("usual_scorers") if group == "scorer" else "of the split"
        text_of_default = " ".join(usual) if isinstance(usual, list) else str(usual)
        listed[group] = Group(group, text_of_default, f"several, in {key}", summaries(group, config_dir), key)
    for key, (group, meaning) in NODES.items():
        listed[group] = Group(group, "null", meaning, summaries(group, config_dir), key)
    return listed


def summaries(group: str, config_dir: str | None = None) -> dict[str, str]:
    """Return the first comment line of each config of a group, by name, those of the user's own folder included."""
    files = {path.stem: path for folder in _folders(config_dir) for path in sorted((folder / group).glob("*.yaml"))}
    return {name: summary_of(files[name]) for name in sorted(files)}


def summary_of(file: Path) -> str:
    """Return the first line of a config file's comment; '' if it has none."""
    with open(file, encoding="utf-8") as lines:
        return opening_line(lines)


def described(group: str, name: str, config_dir: str | None = None) -> Config:
    """Return the description of a config.

    Args:
        group: '' for the primary config.
        config_dir: a folder of the user's own configs, which may hold it.
    """
    config = f"{group}/{name}".lstrip("/")
    file = next(path for folder in reversed(_folders(config_dir)) if (path := folder / f"{config}.yaml").is_file())
    text = file.read_text(encoding="utf-8")
    is_shipped = file.is_relative_to(conf_directory())
    content = read_config(config) if is_shipped else dict(reader(group, config_dir)(name) or {})
    choices = content.pop("defaults", [])
    if not is_shipped and not any(isinstance(entry, str) and entry != "_self_" for entry in choices):
        content = with_defaults(config, content, {})
    node = "" if _PACKAGE in text or group in LISTS.values() else _node_of(group)
    comments = _comments(config, file)
    target = content.get("_target_", "")
    passed = dataset_options(content) if group == "dataset" else None
    keys = list(_Reader(group, comments, _chosen_code(choices)).keys(content, node, declared=passed))
    keys += _launcher_keys(content, choices, comments) if group == "launcher" else []
    declared = options_of(target) if isinstance(target, str) else {}
    more = [
        _key(f"{node}.{option.name}".lstrip("."), option.default, option, option.rule, "")
        for option in declared.values()
        if option.name not in content and option.name not in _nested_choices(choices)
    ]
    opening, _ = comments_of(text)
    return Config(
        group,
        name,
        opening[0] if opening else "",
        opening[1:],
        str(target),
        [*_choices(choices, node)] if group else [],
        keys,
        more,
    )


def _launcher_keys(content: Mapping[str, Any], choices: Sequence[Any], comments: Mapping[str, str]) -> list[Key]:
    """Return the keys of ``hydra.launcher``, which other configs leave to Hydra."""
    is_local = any(isinstance(entry, Mapping) and entry.get("override /hydra/launcher") == "local" for entry in choices)
    declared = fields_of(LOCAL_OPTIONS) if is_local else None
    written, node = content.get("hydra", {}).get("launcher", {}), "hydra.launcher"
    return list(_Reader("launcher", comments, {}).keys(written, node, node, declared))


def _folders(config_dir: str | None) -> list[Path]:
    return [conf_directory(), *([Path(config_dir)] if config_dir is not None else [])]


def _node_of(group: str) -> str:
    return next((key for key, (name, _) in NODES.items() if name == group), group.replace("/", "."))


def _comments(config: str, file: Path) -> dict[str, str]:
    """Return the comments of a config's keys; a base's where it has none itself."""
    text = file.read_text(encoding="utf-8")
    comments: dict[str, str] = {}
    for base in re.findall(r"^  - ([\w/]+)(?: +#.*)?$", text, re.MULTILINE):
        path = base[1:] if base.startswith("/") else f"{Path(config).parent}/{base}"
        if base != "_self_" and (conf_directory() / f"{path}.yaml").is_file():
            comments |= _comments(path, conf_directory() / f"{path}.yaml")
    return comments | comments_of(text)[1]


@dataclass(frozen=True)
class _Reader:
    """Sources of the descriptions of a config's keys.

    Attributes:
        group: group of the config.
        comments: comments of its keys.
        chosen: import path of the code of each config that it chooses in a nested node, such as
            ``classifier.optimizer``.
    """

    group: str
    comments: Mapping[str, str]
    chosen: Mapping[str, str]

    def keys(
        self, node: Mapping[str, Any], path: str, inner: str = "", declared: Mapping[str, Option] | None = None
    ) -> Iterator[Key]:
        """Yield the keys of a node and of the nodes below it.

        Args:
            path: the node's, in the configuration.
            inner: the node's, in the config file.
            declared: the options of a node that names no code itself.
        """
        target = node.get("_target_", self.chosen.get(inner))
        options = options_of(target) if isinstance(target, str) else declared or {}
        rules = {name: option.rule for name, option in options.items()} | dict(node.get("_allowed_") or {})
        for key, value in node.items():
            if key in (*PRIVATE_KEYS, "_target_", "hydra") or (self.group == "dataset" and key in PARTS):
                continue
            dotted, file_key = f"{path}.{key}".lstrip("."), f"{inner}.{key}".lstrip(".")
            option = options.get(key)
            if isinstance(value, Mapping) and value:
                yield from self.keys(value, dotted, file_key, None if option is None else option.nested)
            else:
                yield _key(dotted, value, option, rules.get(key), self.comments.get(file_key, ""))


def _key(path: str, default: Any, option: Option | None, rule: Any, comment: str) -> Key:
    declared = _COMMON.get(path, "") if option is None else option.meaning
    meaning = ". Here: ".join(filter(None, [_plain(declared), _plain(comment)]) if declared else [_plain(comment)])
    kind = "" if option is None or "." in option.kind else option.kind
    return Key(path, default_in_words(default), allowed_in_words(rule) or kind, meaning)


def _plain(text: str) -> str:
    """Return a docstring's or comment's text as a terminal shows it."""
    text = re.sub(r"\[([^\]]+)\]\([\w/]+\.md(?:#[\w-]+)?\)", r"\1", text)  # links of the docs
    for python, yaml in (("None", "null"), ("True", "true"), ("False", "false")):
        text = re.sub(rf"\b{python}\b", yaml, text)
    return text.replace("``", "`").replace("**", "").replace("see below", "see the docs").strip().rstrip(".")


def default_in_words(value: Any) -> str:
    """Return a config's value as it is typed, with interpolations in words: ``optimizer.lr``, ``$LTR_DATA or data``."""
    if value is Required:
        return "none"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(default_in_words(entry) for entry in value)}]"
    if isinstance(value, str) and (of_weights := _OF_WEIGHTS.match(value)):
        return f"that of the pretrained weights, else {of_weights[1]}"
    match = _INTERPOLATION.match(value) if isinstance(value, str) else None
    if match is None:
        return as_text(value)
    first = f"${match['first']}" if value.startswith("${oc.env") else match["first"]
    return f"that of {first}" if match["second"] is None else f"{first}, else {default_in_words(match['second'])}"


def allowed_in_words(rule: Any) -> str:
    """Return a rule as text: choices with commas, a range as it is written."""
    if rule is None:
        return ""
    if isinstance(rule, list) and len(rule) == 1 and isinstance(rule[0], list):
        return f"a list of {allowed_in_words(rule[0])}"
    return ", ".join(as_text(choice) for choice in rule) if isinstance(rule, list) else str(rule)


def _chosen_code(choices: list[Any]) -> dict[str, str]:
    """Return the code of the configs that a defaults list chooses below the config, by their node."""
    code = {}
    for entry in choices:
        for key, name in entry.items() if isinstance(entry, Mapping) else ():
            group, _, package = str(key).lstrip("/").partition("@")
            if package and not package.startswith("_global_") and name is not None and " " not in group:
                code[package] = read_config(f"{group}/{name}").get("_target_", "")
    return code


def _nested_choices(choices: list[Any]) -> set[str]:
    keys = [key for entry in choices if isinstance(entry, Mapping) for key in entry]
    packages = [str(key).partition("@")[2] for key in keys if not str(key).startswith("override")]
    return {package.partition(".")[0] for package in packages if package}


def _choices(entries: list[Any], node: str) -> Iterator[str]:
    """Yield what a defaults list chooses, as it is typed: ``head=cosine``, ``method.classifier.loss=cross_entropy``."""
    for entry in entries:
        for key, name in entry.items() if isinstance(entry, Mapping) else ():
            group, _, package = str(key).removeprefix("optional ").partition("@")
            is_override = group.startswith("override ")
            group = group.removeprefix("override ").lstrip("/")
            is_global = not package or package.startswith("_global_")
            yield f"{group if is_override and is_global else f'{node}.{package}'}={as_text(name)}"
