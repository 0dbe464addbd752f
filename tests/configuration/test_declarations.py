"""Options that classes and functions declare: read from the source as Python itself sees them."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_type_hints

import pytest

from ltr.configuration.allowed import check_values
from ltr.configuration.annotations import rule_of
from ltr.configuration.configs import config_names, leaves, mappings, read_config
from ltr.configuration.dataset_options import PARTS, dataset_options, passed_on
from ltr.configuration.declarations import Required, args_of, options_of, rules_of_target
from ltr.configuration.ranges import Fraction, PositiveInt, check_option
from ltr.configuration.rules import read_rules
from ltr.configuration.signatures import mismatches
from ltr.configuration.targets import locate
from ltr.errors import ConfigError
from ltr.models.published_names import LAYOUTS, WeightsMap

GROUPS = ("dataset", "sampler", "augment", "head", "loss", "backbone", "optimizer", "scheduler", "method", "scorer",
          "protocol")  # fmt: skip
TERMS = tuple(f"ltr.methods.distillation.terms.{name}" for name in ("RKD", "HKD", "FitNet", "AttentionTransfer"))
CONFIGS = [f"{group}/{name}" for group in GROUPS for name in config_names(group)]


def targets() -> Iterator[str]:
    nodes = [node for config in CONFIGS for _, node in mappings(read_config(config))]
    yield from sorted({node["_target_"] for node in nodes if "_target_" in node} | set(TERMS))


def declared_by_python(target: str) -> dict[str, tuple[Any, Any]]:
    """Name -> (default, rule) of what a config gives a class or function, from its imported signature."""
    function = locate(target, "test")
    options = getattr(function, "Options", None)
    if options is not None:
        hints = get_type_hints(options, include_extras=True)
        defaults = {field.name: field.default for field in dataclasses.fields(options)}
        none = dataclasses.MISSING
    else:
        code = function.__init__ if inspect.isclass(function) else function
        scope = {**getattr(code, "__globals__", {}), **getattr(inspect.unwrap(code), "__globals__", {})}
        parameters = inspect.signature(function).parameters.values()
        keywords = [one for one in parameters if one.kind is one.KEYWORD_ONLY]
        hints = {one.name: eval(one.annotation, scope) for one in keywords}
        defaults = {one.name: one.default for one in keywords}
        none = inspect.Parameter.empty
    return {name: (Required if value is none else value, rule_of(hints[name])) for name, value in defaults.items()}


@pytest.mark.parametrize("target", sorted(targets()))
def test_options_in_the_source_are_those_of_the_imported_code(target):
    declared = {name: (option.default, option.rule) for name, option in options_of(target).items()}
    assert declared == declared_by_python(target)


@pytest.mark.parametrize("target", sorted(targets()))
def test_every_option_is_explained(target):
    options = options_of(target)
    nested = {f"{name}.{key}": inner for name, one in options.items() for key, inner in (one.nested or {}).items()}
    assert [name for name, option in (options | nested).items() if not option.meaning] == []


@pytest.mark.parametrize("config", [config for config in CONFIGS if not config.startswith("dataset/")])
def test_declared_defaults_are_not_repeated_in_configs(config):
    assert [path for path, node in mappings(read_config(config)) if "_allowed_" in node] == []


@pytest.mark.parametrize("name", config_names("dataset"))
def test_rules_of_a_data_set_only_narrow_those_of_its_code(name):
    content = read_config(f"dataset/{name}")
    declared = {key: option.rule for key, option in dataset_options(content).items()}
    for key, allowed in content.pop("_allowed_", {}).items():
        assert set(allowed) < set(declared[key]), f"{key}: the code takes {declared[key]}"
    assert [path for path, node in mappings(content) if "_allowed_" in node] == []


@pytest.mark.parametrize("name", config_names("dataset"))
def test_every_key_of_a_data_set_is_an_option_of_its_code_or_of_the_program(name):
    content = read_config(f"dataset/{name}")
    assert set(content) - {"defaults", "source", "split", "_allowed_"} <= set(dataset_options(content))
    for part in PARTS:
        references = {value for _, value in leaves(content[part]) if "${dataset." in str(value)}
        passed = {f"${{dataset.{key}}}" for key in passed_on(content, part).values()}
        assert references <= passed, "passed on under another name"


def test_a_key_that_is_passed_on_is_checked_once_under_the_name_that_users_type():
    split = {"_target_": "ltr.data.splits.natural", "val": "tset", "seed": -1, "num_classes": 0}
    config = {"dataset": {"name": "mine", "val": "tset", "split_seed": -1, "num_classes": 3, "split": split}}
    mistakes = {line.split("=")[0]: line for line in check_values(config)}
    assert set(mistakes) == {"dataset.val", "dataset.split_seed", "dataset.split.num_classes"}
    assert "none, train_fraction, official, test_fraction" in mistakes["dataset.val"]


def test_a_data_set_config_needs_no_rules():
    rules = read_rules("dataset", {key: value for key, value in read_config("dataset/mnist_open").items()
                                 if key != "_allowed_"})  # fmt: skip
    assert rules["classes"] == ["mnist", "seeded", "ids"], "narrowed by the shipped config of its name"
    assert rules["trial"] == "int [0, 4]"


# configs that give a class's defaults: what another config of the class chooses is its own
PLAIN = ("head/linear", "head/cosine", "head/embedding", "sampler/instance", "sampler/power", "sampler/progressive",
         "sampler/class_balanced", "sampler/square_root", "sampler/effective_number", "sampler/per_class",
         "scheduler/constant", "scheduler/cosine", "scheduler/one_cycle", "scheduler/timm", "scheduler/herbs",
         "backbone/digits_net", "backbone/classifier32", "backbone/resnet32", "backbone/timm", "backbone/torchvision",
         *(f"loss/{name}" for name in config_names("loss") if name != "ldam"))  # fmt: skip


@pytest.mark.parametrize("config", PLAIN)
def test_a_plain_config_gives_every_option_its_declared_default(config):
    content = read_config(config)
    options = options_of(content["_target_"])
    values = {key: value for key, value in content.items() if key in options and "${" not in str(value)}
    assert set(content) - {"_target_", "defaults"} == set(options)
    defaults = {key: option.default for key, option in options.items() if key in values}
    defaults = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    assert values == {key: values[key] if value is Required else value for key, value in defaults.items()}


def test_the_choices_of_weights_maps_are_the_known_layouts():
    assert get_args(WeightsMap) == ("order", *LAYOUTS)


def test_options_of_a_stage_have_rules():
    method = {key: value for key, value in read_config("method/crt").items() if key != "defaults"}
    config = {"method": method}
    assert read_rules("method.classifier", method["classifier"], config)["epochs"] == "int [1, inf)"
    assert read_rules("method.nothing", {}, config) == {}


def test_options_of_user_code_are_not_read_from_source():
    assert options_of("torch.nn.Linear") == options_of("ltr.no.such.Thing") == rules_of_target(3) == {}


def test_a_rule_of_a_config_may_narrow_the_declared_one():
    node = {"_target_": "ltr.losses.classification.VS", "_allowed_": {"tau": [1.0]}}
    assert read_rules("loss", node) == {"gamma": "[0, inf)", "tau": [1.0], "defer_from": "[0, 1] or null"}


def test_entries_of_a_docstring_span_lines_and_share_a_text():
    text = "Summary.\n\nArgs:\n    first, second: one\n        and two.\n    third: three.\n\nRaises:\n    Error: no.\n"
    assert args_of(text) == {"first": "one and two.", "second": "one and two.", "third": "three."}


@pytest.mark.parametrize(
    ("hint", "rule"),
    [
        (PositiveInt | None, "int [1, inf) or null"),
        (Fraction | list[Fraction], "[0, 1] or list of [0, 1]"),
        (PositiveInt | list[PositiveInt] | None, "int [1, inf) or null or list of int [1, inf)"),
        (list[Literal["a", "b"]], [["a", "b"]]),
        (Literal["a"] | None, [None, "a"]),
        (float | None, None),
        (Annotated[float, "(0, 2)"], "(0, 2)"),
    ],
)
def test_rules_follow_from_types(hint, rule):
    assert rule_of(hint) == rule


def test_a_value_outside_its_type_is_refused_by_its_key():
    assert check_option("loss.gamma", 0.5, Fraction) == 0.5
    with pytest.raises(ConfigError, match=r"loss.gamma=2: allowed is \[0, 1\]"):
        check_option("loss.gamma", 2, Fraction)


def test_ranges_in_the_signature_of_the_user_code_are_checked_too():
    def mine(counts: list[int], *, gamma: Annotated[float, "[0, 1)"]) -> None: ...

    def reasons(gamma: float) -> list[str]:
        return mismatches("loss", "my.mine", mine, inspect.signature(mine, eval_str=True), {"gamma": gamma})

    assert reasons(0.5) == []
    assert reasons(1.0) == ["loss.gamma=1.0: allowed is [0, 1)"]


def test_a_configuration_is_checked_without_importing_torch():
    code = (
        "import sys; from ltr.configuration.declarations import options_of; "
        "options_of('ltr.losses.classification.LDAM'); options_of('ltr.methods.herbs.method.HERBS'); "
        "sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
