"""Options that a config leaves out have the defaults of their declaration, wherever the config is read."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ltr.configuration.check import check_config
from ltr.configuration.configs import conf_directory, mappings, node_at, read_config, updated, without_private
from ltr.configuration.declarations import options_of
from ltr.configuration.declared_defaults import GROUPS, takes_defaults, with_defaults
from ltr.configuration.descriptions import described
from ltr.configuration.overrides import compose_config, explain
from ltr.errors import ConfigError

FILES = sorted(
    str(path.relative_to(conf_directory()).with_suffix(""))
    for path in conf_directory().rglob("*.yaml")
    if takes_defaults(str(path.relative_to(conf_directory())))
)
M2M = "_target_: ltr.methods.m2m.method.M2m\nname: mine\n"


@pytest.fixture
def own_configs(tmp_path):
    """Write user config files, such as ``method__mine``; returns the folder for ``--config-dir``."""

    def write(**configs: str) -> str:
        for name, text in configs.items():
            path = tmp_path / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return str(tmp_path)

    return write


def written(config: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The content of a shipped file as it is written, and the merged content of its bases."""
    content = yaml.safe_load((conf_directory() / f"{config}.yaml").read_text())
    bases: dict[str, Any] = {}
    for entry in content.pop("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            bases = updated(bases, read_config(str(Path(config).parent / entry)))
    bases.pop("defaults", None)
    return content, bases


def complete(config: str, content: dict[str, Any], bases: dict[str, Any]) -> str:
    return json.dumps(updated(bases, with_defaults(config, content, bases)), sort_keys=True)


@pytest.mark.parametrize("config", FILES)
def test_a_file_repeats_no_value_of_its_class_or_bases(config):
    content, bases = written(config)
    whole = complete(config, content, bases)
    repeated = []
    for path, node in mappings(content):
        for key in node:
            without = copy.deepcopy(content)
            del node_at(without, path)[key]
            if key != "_target_" and complete(config, without, bases) == whole:
                repeated.append(f"{path}.{key}".lstrip("."))
    assert repeated == []


@pytest.mark.parametrize("config", [config for config in FILES if config.split("/")[0] in GROUPS])
def test_a_printed_config_has_every_option_and_says_where_they_are_explained(config):
    options = options_of(read_config(config)["_target_"])
    values = {name for name, option in options.items() if not option.takes_config}
    assert values <= set(read_config(config))
    is_told = f"# options: ltr-train --help {config}\n" in (conf_directory() / f"{config}.yaml").read_text()
    assert is_told == bool(options)


def test_options_come_in_the_order_of_their_declaration_and_with_the_value_that_is_written():
    content = {"_target_": "ltr.losses.classification.LDAM", "scale": 3.0, "_allowed_": {"scale": [3.0]}}
    completed = with_defaults("loss/mine", content, {"max_margin": 0.1})
    assert completed == {
        "_target_": "ltr.losses.classification.LDAM", "scale": 3.0, "beta": None, "reduction": "weight_sum",
        "defer_from": None, "_allowed_": {"scale": [3.0]},
    }  # fmt: skip
    assert list(completed)[:3] == ["_target_", "scale", "beta"]


def test_configs_of_user_code_and_other_groups_stay_unchanged():
    for config, content in (
        ("loss/mine", {"_target_": "mine.Loss", "a": 1}),
        ("loss/mine", {"defer_from": 0.5}),
        ("scorer/mine", {"_target_": "ltr.data.augmentation.augment.Augmentation"}),
        ("experiment/mine", {"loss": {"_target_": "ltr.losses.classification.LDAM"}}),
        ("dataset/mine", {"source": {"_target_": "mine.source", "exif": "${dataset.exif}"}}),
    ):
        assert with_defaults(config, content, {}) == content


def test_a_user_config_needs_only_its_class(own_configs):
    folder = own_configs(method__mine=M2M + "steps: 3\n")
    assert compose_config(["method=mine", "method.gamma=0.5"], folder).method == {
        **compose_config(["method=m2m"]).method, "name": "mine", "steps": 3, "gamma": 0.5,
    }  # fmt: skip


def test_a_user_base_overrides_the_declaration(own_configs):
    folder = own_configs(
        method__base="steps: 3\naux: 1\n",
        method__mine=f"defaults: [base, _self_]\n{M2M}",
        method__arpl_wide="defaults: [arpl, _self_]\n_target_: ltr.methods.reciprocal_points.arpl.RPLPlusPlus\n",
    )
    method = compose_config(["method=mine"], folder).method
    assert (method.steps, method.gamma, method.aux) == (3, 0.9, 1)
    wide = compose_config(["method=arpl_wide"], folder).method
    assert (wide.radius, wide.prototype_weight) == (read_config("method/arpl")["radius"], 0.1)


def test_a_stage_has_all_defaults_with_configs_chosen_inside_it(own_configs):
    text = (conf_directory() / "method" / "crt.yaml").read_text().partition("classifier:\n")[0]
    folder = own_configs(method__mine=text + "classifier:\n  epochs: 3\n", method__plain=text)
    mine = ["method=mine", "method.classifier.optimizer=adamw", "method.classifier.selection=best_val"]
    classifier = compose_config(mine, folder).method.classifier
    assert (classifier.epochs, classifier.selection, classifier.optimizer.eps) == (3, "best_val", 1e-8)
    assert compose_config(["method=plain"], folder).method.classifier.epochs == 10


def test_a_user_data_set_needs_only_the_values_that_it_changes(own_configs):
    source = "{_target_: ltr.data.sources.folder.image_folder, group: '${dataset.group}'}"
    body = f"name: mine\nroot: /x\nsource: {source}\n"
    folder = own_configs(dataset__mine=f"defaults: [base/own_images, base/all_images, _self_]\n{body}")
    dataset = compose_config(["dataset=mine", "dataset.num_classes=3"], folder).dataset
    assert dataset.source.group is None
    assert dataset.split.num_classes == 3


def test_folders_of_the_search_path_are_completed_too(ltr_train, own_configs):
    folder = own_configs(method__mine=M2M)
    done = ltr_train("--cfg", "job", f"hydra.searchpath=[file://{folder}]", "method=mine", "method.steps=3")
    method = yaml.safe_load(done.out)["method"]
    assert (method["name"], method["steps"], method["gamma"]) == ("mine", 3, 0.9)


def test_an_option_that_is_left_out_is_suggested_for_a_mistyped_one(own_configs):
    folder = own_configs(method__mine=M2M)
    with pytest.raises(ConfigError, match=r"Did you mean 'method\.rejection'"):
        compose_config(["method=mine", "method.rejecton=none"], folder)
    assert explain(["method=mine", "method.rejection=none"], folder, "train") == []


def test_the_help_on_a_user_config_lists_the_options_that_it_leaves_out(own_configs):
    keys = {key.path: key.default for key in described("method", "mine", own_configs(method__mine=M2M)).keys}
    assert (keys["method.gamma"], keys["method.name"]) == ("0.9", "mine")


def test_an_augmentation_has_its_options_and_only_those_that_are_set_reach_the_run():
    composed = compose_config(["augment=cifar", "augment.jitter=0.2", "augment.blur=0.0"])
    assert composed.augment.mix is None
    plain = check_config(composed)["augment"]
    assert plain == {"_target_": composed.augment._target_, "pad": 4, "flip": True, "jitter": 0.2}


def test_the_crop_of_image_files_has_its_options_too():
    overrides = ["dataset=cub", "augment=window", "augment.files.ratio=[0.5,2.0]"]
    files = check_config(compose_config(overrides))["augment"]["files"]
    assert files["ratio"] == [0.5, 2.0]
    assert "scale" not in files


def test_without_private_removes_filled_in_values():
    plain = {"_target_": read_config("augment/none")["_target_"], "pad": 0, "flip": False}
    assert without_private(read_config("augment/none")) == plain
