"""Declarations of options: rules, constructors, configs and docs that follow from them."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from ltr.configuration.configs import config_names, read_config
from ltr.configuration.rules import read_rules
from ltr.configuration.targets import locate
from ltr.errors import ConfigError
from ltr.methods.core.options import Options, meanings_of, table_of
from ltr.methods.core.stage import Method
from ltr.methods.erm import ERM
from ltr.methods.sla.options import SLAOptions

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "scripts"))
from option_tables import DOCS, TABLE, with_tables  # noqa: E402


class Example(Options):
    """Options of an example."""

    rate: Annotated[float, "(0, 1]"] = 0.5
    """Share of
    everything."""
    count: Annotated[int | None, "[1, inf)"] = None
    """How many."""
    first: Annotated[float | Literal["auto"], "[0, inf)"] = "auto"
    """Where it starts."""
    way: Literal["up", "down"] = "up"
    """Direction."""
    other: Literal["a"] | None = None
    """A choice or none."""
    flag: bool = False
    """A switch."""
    file: str | None = None
    """A path; anything goes."""


class Longer(Example):
    """Options of an example with one more."""

    name: str
    """Needed."""


def declared() -> dict[str, tuple[type[Method], type[Options]]]:
    """The shipped methods whose options are declared, by the name of their config."""
    methods = {name: locate(read_config(f"method/{name}")["_target_"]) for name in config_names("method")
               if "_target_" in read_config(f"method/{name}")}  # fmt: skip
    return {name: (method, method.Options) for name, method in methods.items() if method.Options is not None}


def inherited(name: str) -> dict[str, Any]:
    """A config of the group with what it takes from the others in its defaults list."""
    config = read_config(f"method/{name}")
    bases = [base for base in config.get("defaults", []) if isinstance(base, str) and base != "_self_"]
    return {key: value for base in bases for key, value in inherited(base).items()} | config


def test_rules_follow_from_types():
    assert Example.rules() == {
        "rate": "(0, 1]", "count": "int [1, inf) or null", "first": "[0, inf) or auto", "way": ["up", "down"],
        "other": [None, "a"], "flag": [True, False],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0}, r"method.rate=0: allowed is \(0, 1\]"),
        ({"count": 1.5}, r"method.count=1.5: allowed is int \[1, inf\) or null"),
        ({"way": "dwn", "flag": 1}, r"(?s)method.way=dwn: .*Did you mean 'down'.*method.flag=1"),
        ({"first": "late"}, "method.first=late: .*or auto"),
    ],
)
def test_values_outside_their_rules_are_all_named(options, message):
    with pytest.raises(ConfigError, match=message):
        Example(**options)


def test_an_unknown_or_missing_option_is_a_type_error():
    with pytest.raises(TypeError, match="rat"):
        Example(rat=1)
    with pytest.raises(TypeError, match="name"):
        Longer()


def test_options_are_a_mapping_and_cannot_be_changed():
    options = Longer(name="x", rate=1.0)
    assert dict(options) == {**dict(Example(rate=1.0)), "name": "x"}
    assert options == dict(options)
    assert options.part(Example) == dict(Example(rate=1.0))
    assert "part" not in options
    with pytest.raises(AttributeError):
        options.rate = 0.1


def test_meanings_are_the_docstrings_under_the_fields():
    expected = "Temperature T of the distillation; value of the code."
    assert meanings_of(SLAOptions)["temperature"] == expected
    assert set(meanings_of(SLAOptions)) == set(SLAOptions())  # those of base classes, too
    assert f"| `temperature` | `1.0` | (0, inf) | {expected} |" in table_of(SLAOptions).splitlines()


def test_a_constructor_has_the_signature_of_the_declaration():
    class Declared(Method):
        Options = Longer

    class Own(Declared):
        def __init__(self, *, size: int) -> None:
            super().__init__(name=str(size))

    assert list(inspect.signature(Declared).parameters) == list(Longer(name=""))
    assert list(inspect.signature(Own).parameters) == ["size"]
    assert not inspect.signature(ERM).parameters
    assert Own(size=3).options.name == "3"


def is_variant(name: str) -> bool:
    """Return whether a config's values are those of another code or paper, in place of its method's defaults."""
    return name in ("rpl_official", "rpl_confirmed", "herbs_released", "pim", "rkd_classification")


@pytest.mark.parametrize("name", [name for name in declared() if not is_variant(name)])
def test_a_config_gives_every_option_its_declared_default(name):
    _, options = declared()[name]
    config = inherited(name)
    assert "_allowed_" not in config
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    groups = [entry for group in config.get("defaults", []) if isinstance(group, dict) for entry in group]
    chosen = {entry.partition("@")[2].split(".")[0] for entry in groups}
    for option in set(defaults) - chosen - {"representation"}:
        assert option in config, f"{option} is not in the config"
        is_required = defaults[option] is dataclasses.MISSING
        assert is_required or config[option] == defaults[option], option


@pytest.mark.parametrize("name", declared())
def test_every_option_is_documented_and_has_its_rule_in_the_configuration(name):
    _, options = declared()[name]
    assert set(meanings_of(options)) == set(options.__dataclass_fields__)
    target = read_config(f"method/{name}")["_target_"]
    assert {**read_rules("method", {"_target_": target})} == dict(options.rules())


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.stem)
def test_tables_in_the_docs_are_those_of_the_declarations(path):
    text = path.read_text(encoding="utf-8")
    assert with_tables(text) == text, "run python scripts/option_tables.py"


def test_every_declared_method_has_its_table_in_the_docs():
    tables = {name for path in DOCS.glob("*.md") for _, name, *_ in TABLE.findall(path.read_text(encoding="utf-8"))}
    assert {f"{options.__module__}.{options.__name__}" for _, options in declared().values()} <= tables


def test_declarations_import_nothing_heavy():
    modules = sorted({options.__module__ for _, options in declared().values()})
    code = (
        f"import sys, {', '.join(modules)}; print(sorted({{'torch', 'numpy', 'pytorch_lightning'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
