"""Names of ltr's classes and functions: unique, complete, and independent of their module."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from ltr import identity
from ltr.configuration.configs import conf_directory
from ltr.configuration.targets import locate
from ltr.former_paths import CONFIGURATION, FORMER_KEYS, FORMER_PATHS, LATER_PATHS
from ltr.identity import (
    as_first_written,
    config_as_first_written,
    config_of_today,
    first_path_of,
    flat_config_of_today,
    name_of,
    named,
    names,
    path_of,
    with_names,
    with_paths,
)
from ltr.methods.core.network import ImageClassifier

NEITHER_STORED_NOR_KEYED = ("ltr.sweeps.SweepFolder",)  # Hydra's callback


def shipped_targets() -> set[str]:
    targets = set()
    for path in conf_directory().rglob("*.yaml"):
        targets |= set(re.findall(r"_target_: *(ltr\.[\w.]+)", path.read_text()))
    return targets - set(NEITHER_STORED_NOR_KEYED)


def networks(of: type) -> set[type]:
    return {of, *(network for one in of.__subclasses__() for network in networks(one))}


def test_every_target_of_a_shipped_config_has_a_name_and_is_named_where_it_is_defined():
    targets = shipped_targets()
    assert len(targets) > 70
    assert {target for target in targets if target not in names().values()} == set()


@pytest.mark.parametrize("path", sorted({*FORMER_PATHS, *LATER_PATHS, *shipped_targets()}))
def test_a_name_resolves_to_its_path_and_the_object_has_the_name(path):
    name = name_of(path)
    located = locate(path)
    assert located is locate(names()[name])
    assert located.__ltr_name__ == name
    assert first_path_of(name) in (name, *FORMER_PATHS)


def test_the_path_in_keys_is_the_first_path_of_a_name():
    assert all(first_path_of(path_of(path)) == path for path in FORMER_PATHS)


def test_later_paths_never_appear_in_keys():
    assert not {first_path_of(path_of(path)) for path in LATER_PATHS} & set(LATER_PATHS)


def test_every_network_that_a_stage_can_store_has_a_name():
    for path in set(names().values()):
        locate(path)
    actual = {one for one in networks(ImageClassifier) if one.__module__.startswith("ltr.")}
    paths = set(names().values())
    unnamed = {one.__name__ for one in actual if f"{one.__module__}.{one.__qualname__}" not in paths}
    # bases of others, which no stage trains
    assert {name for name in unnamed if not name.startswith("_")} == {
        "TransformedClassifier",
        "AdjustedClassifier",
        "ExpertClassifier",
        "ContrastiveClassifier",
    }


def test_configurations_are_translated_at_any_depth_except_user_code():
    former = "ltr.losses.classification.LDAM"
    node = {"_target_": former, "x": [{"_target_": "mine.Loss", "y": ({"_target_": former},)}], "target": former}
    named_node = with_names(node)
    assert named_node["_target_"] == "loss/ldam"
    assert named_node["x"][0]["_target_"] == "mine.Loss"
    assert named_node["x"][0]["y"][0]["_target_"] == "loss/ldam"
    assert named_node["target"] == former
    assert as_first_written(named_node) == as_first_written(node) == node
    assert with_paths(named_node) == {**node, **with_paths(node)}
    assert path_of("loss/ldam") == path_of(former)
    assert path_of("torch.nn.Linear") == "torch.nn.Linear"


def test_a_name_that_two_declarations_share_is_refused(tmp_path, monkeypatch):
    for file in ("a.py", "b.py"):
        (tmp_path / file).write_text('@named("loss/x")\nclass X:\n    pass\n')
    monkeypatch.setattr(identity, "_ROOT", tmp_path)
    with pytest.raises(ValueError, match="'loss/x' names both"):
        names.__wrapped__()


def test_a_subclass_does_not_inherit_the_name_of_its_base():
    @named("loss/made_up")
    class Base(torch.nn.Module):
        pass

    class Derived(Base):
        pass

    assert name_of(f"{Derived.__module__}.{Derived.__qualname__}") not in names()


def test_former_paths_are_sorted_and_in_one_table_only():
    assert list(FORMER_PATHS) == sorted(FORMER_PATHS)
    assert list(LATER_PATHS) == sorted(LATER_PATHS)
    assert not set(LATER_PATHS) & set(FORMER_PATHS)
    source = Path(identity.__file__).parent
    tables = [path.name for path in source.rglob("*.py") if '"ltr.methods.erm.ERM"' in path.read_text()]
    assert tables == ["former_paths.py"]


FORMER_CONFIG = {
    "evaluation": {"watch": "test", "top_k": 5},
    "method": {"_target_": "ltr.methods.herbs.HERBS", "selection": "random"},
    "trainer": {"selection": "last"},
    "judged": {"part": "val"},
}


def test_former_keys_of_a_stored_configuration_are_translated_in_both_directions():
    today = config_of_today(FORMER_CONFIG)
    assert today["evaluation"] == {"monitor_split": "test", "top_k": 5}
    assert today["method"] == {"_target_": "ltr.methods.herbs.HERBS", "location_rule": "random"}
    assert today["trainer"] == {"selection": "last"}
    assert today["evaluated"] == {"part": "val"}
    assert config_of_today(today) == today
    assert config_as_first_written(today) == config_as_first_written(FORMER_CONFIG) == FORMER_CONFIG


def test_former_keys_of_a_flat_configuration_are_translated():
    flat = {
        "evaluation.watch": None,
        "method._target_": "ltr.methods.herbs.HERBS",
        "method.selection": "location",
        "trainer.selection": "last",
        "judged.part": "val",
    }
    assert flat_config_of_today(flat) == {
        "evaluation.monitor_split": None,
        "method._target_": "ltr.methods.herbs.method.HERBS",
        "method.location_rule": "location",
        "trainer.selection": "last",
        "evaluated.part": "val",
    }


def test_a_renamed_key_of_one_class_is_unchanged_in_other_classes():
    node = {"_target_": "mine.Method", "selection": "x"}
    assert with_paths(node) == as_first_written(node) == node


def test_former_keys_have_an_owner_and_are_replaced_in_the_same_node():
    assert all(owner == CONFIGURATION or owner in names() for owner in FORMER_KEYS)
    for keys in FORMER_KEYS.values():
        assert all(old.rpartition(".")[0] == new.rpartition(".")[0] for old, new in keys.items())
        assert not set(keys) & set(keys.values())
