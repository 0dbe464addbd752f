"""Every key that a message names exists in a shipped config of its group, and advice fits the configuration at hand."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ltr
from ltr.configuration.advice import advise, filter_overrides, hold_out
from ltr.configuration.allowed import find_problem
from ltr.configuration.configs import config_names, read_config
from ltr.configuration.parsing import parse
from ltr.configuration.rules import read_rules

GROUPS = ("trainer", "strategy", "sampler", "augment", "head", "loss", "backbone", "optimizer", "scheduler", "dataset",
          "method", "evaluation", "checkpoint", "callbacks", "logger", "paths")  # fmt: skip
KEY = re.compile(rf"(?<![\w./'\"-])({'|'.join(GROUPS)})\.([a-z_]\w*(?:\.[a-z_]\w*)*)(?:=([\w.]+)(?![\w.{{(]))?")
CHOICE = re.compile(rf"(?<![\w./@-])({'|'.join(GROUPS)})=([a-z]\w*)(?![\w.{{(=])")
# that no config holds and the program reads from a command line, a sweep or a config of the user's own
ADDED = ("method.extras", "method.representation", "dataset.split_file")
# former keys, names of tensors, and a report's JavaScript
NOT_KEYS = (
    "former_paths",
    "methods/foreign",
    "methods/herbs/released_weights",
    "models/published_names",
    "report/html_script",
    "report/leaderboard_html",
    "methods/background_splitting/network",
)


def shipped() -> dict[str, list[object]]:
    """Every key of the shipped configs, with the rules for it."""
    rules_of_key: dict[str, list[object]] = {}

    def collect(node: object, path: str) -> None:
        rules = read_rules(path, node) if isinstance(node, dict) else {}
        for key, value in node.items() if isinstance(node, dict) else ():
            if key not in ("_allowed_", "defaults", "hydra"):
                rules_of_key.setdefault(f"{path}.{key}", []).append(rules.get(key))
                collect(value, f"{path}.{key}")

    for group in GROUPS:
        for name in config_names(group):
            config = read_config(f"{group}/{name}")
            collect(config, group)
            for entry in config.get("defaults") or []:  # nested configs, such as /optimizer@classifier.optimizer
                for choice in entry if isinstance(entry, dict) else ():
                    inner, _, index = choice.removeprefix("override ").lstrip("/").partition("@")
                    for other in config_names(inner) if index and not index.startswith("_global_") else ():
                        rules_of_key.setdefault(f"{group}.{index}", [])
                        collect(read_config(f"{inner}/{other}"), f"{group}.{index}")
    return rules_of_key


SHIPPED = shipped()


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """The strings of a module without its docstrings; what a format fills in is ``{}``."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    with_docstring = (ast.Module, ast.ClassDef, ast.FunctionDef)
    documented = [node for node in ast.walk(tree) if isinstance(node, with_docstring) and node.body]
    skipped = {id(node.body[0].value) for node in documented if isinstance(node.body[0], ast.Expr)}
    skipped |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def wrong(text: str) -> list[str]:
    """Return the keys and configs that a text names and that do not exist."""
    missing = []
    for match in KEY.finditer(text):
        key = f"{match[1]}.{match[2]}"
        below = key.removeprefix("method.representation.")
        known = key in SHIPPED or key.startswith(ADDED) or (below != key and f"method.{below}" in SHIPPED)
        if not known:
            missing.append(key)
        elif match[3] and not match[3].isupper() and SHIPPED.get(key) and all(SHIPPED[key]):
            ((one,), _) = parse([f"{key}={match[3].rstrip('.')}"])
            if all(find_problem(one.values[0], rule) for rule in SHIPPED[key]):
                missing.append(one.text)
    for match in CHOICE.finditer(text):
        if match[2] not in config_names(match[1]):
            missing.append(match[0])
    return missing


@pytest.mark.parametrize("room", sorted({path.relative_to(Path(ltr.__file__).parent).parts[0]
                                         for path in Path(ltr.__file__).parent.rglob("*.py")}))  # fmt: skip
def test_every_key_that_a_message_names_exists(room):
    root = Path(ltr.__file__).parent
    files = [root / room] if room.endswith(".py") else sorted((root / room).rglob("*.py"))
    mistakes = [
        f"{file.relative_to(root)}:{line}: {name}"
        for file in files
        if not str(file.relative_to(root)).startswith(NOT_KEYS)
        for line, text in texts(file)
        for name in wrong(text)
    ]
    assert mistakes == []


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        ("use trainer.epochs=3", ["trainer.epochs"]),
        ("use trainer.max_epochs=3 or loss=ldamm", ["loss=ldamm"]),
        ("set dataset.val=train_fractions", ["dataset.val=train_fractions"]),
        ("set dataset.val=train_fraction, or method.classifier.optimizer.lr", []),
        ("method.representation.aux.weight=0", []),
    ],
)
def test_the_check_detects_unknown_keys_in_messages(text, mistakes):
    assert wrong(text) == mistakes


def test_advice_offers_only_values_that_the_config_accepts():
    rules = {"val": ["none", "train_fraction"]}
    data = {"dataset": {"name": "x", "val": "none", "_allowed_": rules}}
    assert hold_out(data, "select the last epoch") == "Set dataset.val=train_fraction, or select the last epoch"
    assert hold_out({"dataset": {"name": "x"}}, "select the last epoch") == "Select the last epoch"
    assert filter_overrides(
        {"trainer": {"on_error": "raise"}}, "trainer.on_error=skip", "trainer.on_error=x", "a.b=1"
    ) == ["trainer.on_error=skip"]
    assert advise(data, "dataset.size=3", "dataset.name=y", otherwise="leave it") == "Set dataset.name=y, or leave it"
