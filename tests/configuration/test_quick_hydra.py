"""The faster Hydra of the tests composes what the released one composes."""

from __future__ import annotations

import omegaconf._utils
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal import defaults_list
from hydra.errors import HydraException
from omegaconf import OmegaConf

import quick_hydra
from ltr.configuration.configs import conf_directory
from ltr.configuration.nested import nested_choices


@pytest.fixture(autouse=True)
def quick():
    """Refuse to compare the released functions with themselves."""
    assert defaults_list._create_interpolation_map is quick_hydra.map_if_needed
    if hasattr(yaml, "CSafeLoader"):
        assert omegaconf._utils.get_yaml_loader is not quick_hydra.RELEASED_LOADER


def composed(*overrides: str):
    with nested_choices(), initialize_config_dir(version_base="1.3", config_dir=str(conf_directory())):
        return compose("train", overrides=list(overrides), return_hydra_config=True)


def nodes_of(node, path: str = "") -> list[tuple]:
    """Return every node with its types, flags and value; its children have to know it."""
    metadata = node._metadata
    flags = {name: value for name, value in (metadata.flags or {}).items() if value is not None}
    content = node.__dict__.get("_content")
    keys = list(content) if isinstance(content, dict) else range(len(content) if isinstance(content, list) else 0)
    assert all(content[key]._get_parent() is node for key in keys)
    nodes = [nodes_of(content[key], f"{path}.{key}") for key in keys]
    value = None if isinstance(content, (dict, list)) else node._value()
    itself = (path, type(node), metadata.ref_type, metadata.object_type, metadata.optional, flags, value)
    return [itself, *(inner for several in nodes for inner in several)]


CHOICES = [
    (),
    ("experiment=cub_herbs", "seed=1e1"),
    ("dataset=cifar10_lt", "method=crt", "~callbacks"),
    ("method=crt", "method.classifier.optimizer=adamw"),
    ("experiment=[cifar10_lt_crt]", "+method.representation.loss=ldam"),
    ("hydra/launcher=basic", "optimizer=timm", "optimizer.name=lamb"),
]


@pytest.mark.parametrize("overrides", CHOICES)
def test_the_fast_composition_equals_that_of_hydra(overrides, monkeypatch):
    quick, once_more = nodes_of(composed(*overrides)), nodes_of(composed(*overrides))
    quick_hydra.slow_down(monkeypatch)
    assert quick == once_more == nodes_of(composed(*overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        ("dataset=nope",),
        ("method=crt", "method.classifier.optimizer=nope"),
        ("method=crt", "method.classifier=3"),
        ("method.nope=1",),
        ("optimizer=3",),
        ("seed=0,1",),
    ],
)
def test_mistakes_are_reported_as_by_hydra(overrides, monkeypatch):
    with pytest.raises((HydraException, ValueError)) as quick:
        composed(*overrides)
    quick_hydra.slow_down(monkeypatch)
    with pytest.raises((HydraException, ValueError)) as released:
        composed(*overrides)
    assert (type(quick.value), str(quick.value)) == (type(released.value), str(released.value))


def test_changing_a_composed_configuration_does_not_affect_later_ones():
    changed = composed("method=crt")
    changed.method.classifier.epochs = 77
    assert composed("method=crt").method.classifier.epochs != 77


def test_a_changed_user_config_is_read_again(tmp_path):
    config = tmp_path / "optimizer" / "mine.yaml"
    config.parent.mkdir()
    for rate in (0.3, 0.4):
        config.write_text(f"defaults: [sgd]\nlr: {rate}\n")
        assert composed(f"hydra.searchpath=[file://{tmp_path}]", "optimizer=mine").optimizer.lr == rate


@pytest.mark.parametrize("text", ["a: 1e3\nb: 2020-01-01\nc: [1., .5, on, 0o7, 1_000]\nd: {e: ~, f: '1'}", "{}", ""])
def test_values_are_parsed_as_by_hydra(text, monkeypatch):
    quick = OmegaConf.create(text)
    quick_hydra.slow_down(monkeypatch)
    assert OmegaConf.create(text) == quick


def test_a_key_that_is_written_twice_is_refused():
    with pytest.raises(yaml.constructor.ConstructorError, match="found duplicate key a"):
        OmegaConf.create("a: 1\na: 2")
