"""Names that a config may have as targets, and the fit of its arguments."""

import pytest

from ltr.configuration import targets
from ltr.configuration.targets import check_arguments, check_targets, instantiate, locate
from ltr.errors import ConfigError


@pytest.mark.parametrize(
    "target",
    ["os.system", "subprocess.run", "builtins.eval", "torch.load", "ltrx.methods", "torch.nnx.Linear", "", None, 3],
)
def test_targets_outside_the_allow_list_are_refused_without_import(target):
    assert len(check_targets({"method": {"_target_": target}})) == 1
    with pytest.raises(ConfigError, match="not in an allowed package"):
        locate(target)


@pytest.mark.parametrize("alias", ["ltr.files.os.system", "ltr.configuration.targets.importlib.import_module"])
def test_an_alias_of_a_forbidden_object_in_an_allowed_module_is_refused(alias):
    with pytest.raises(ConfigError, match="not in an allowed package"):
        locate(alias)


def test_nested_targets_are_checked_too():
    assert check_targets({"a": {"b": [{"_target_": "os.system"}]}})


def test_an_unknown_name_gets_the_nearest_known_one():
    with pytest.raises(ConfigError, match="Did you mean 'derive_seed'"):
        locate("ltr.randomness.derive_sed")


def test_a_module_that_does_not_exist_is_named():
    with pytest.raises(ConfigError, match="has no 'nowhere'"):
        locate("ltr.nowhere.Thing")


def test_prefixes_of_user_code_can_be_allowed(monkeypatch):
    monkeypatch.setenv("LTR_ALLOW", "collections, fractions")
    assert locate("collections.OrderedDict")
    assert not check_targets({"m": {"_target_": "fractions.Fraction"}})


def test_command_line_prefixes_end_with_their_package(monkeypatch):
    monkeypatch.setattr(targets, "_extra_prefixes", ["mine"])
    assert not check_targets({"m": {"_target_": "mine.Net"}})
    assert check_targets({"m": {"_target_": "minefield.Net"}})


def test_wrong_and_missing_arguments_are_all_named():
    config = {
        "a": {"_target_": "ltr.losses.classification.ClassBalanced", "beta": 0.9, "gama": 1.0},
        "b": {"_target_": "ltr.data.sources.cifar.cifar10"},
    }
    mistakes = check_arguments(config)
    assert any("a.gama" in m and "Did you mean 'gamma'" in m for m in mistakes)
    assert any(m.startswith("b.root: missing") for m in mistakes)


def test_a_value_is_named_by_the_key_that_set_it():
    source = {"_target_": "ltr.data.sources.folder.image_folder", "name": "own", "root": "x", "matte": True, "exif": 3}
    mistakes = check_arguments({"dataset": {"matte": True, "source": source}})
    assert any(m.startswith("dataset.matte=true: ") and "dataset.source.matte" not in m for m in mistakes)
    assert any(m.startswith("dataset.source.exif=3: ") for m in mistakes)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("import ltr.lossses", "the module 'ltr.lossses', and the package ltr has none of this name"),
        ("import json.fast", "the module 'json.fast', and the package json has none"),
        ("import no_such_package.deep", "needs the package 'no_such_package', which is not installed"),
    ],
)
def test_a_failing_import_inside_user_code_is_reported_as_such(monkeypatch, tmp_path, line, words):
    name = f"lacks_{abs(hash(line))}"
    (tmp_path / f"{name}.py").write_text(f"{line}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("LTR_ALLOW", name)
    with pytest.raises(ConfigError) as caught:
        locate(f"{name}.Net", "loss")
    assert words in str(caught.value)
    assert ("pip install" in str(caught.value)) == line.startswith("import no_such")


def test_private_keys_do_not_reach_the_callable():
    made = instantiate({"_target_": "torch.nn.Linear", "_allowed_": {"bias": [True]}, "name": "x", "bias": False}, 3, 2)
    assert made.bias is None
    assert made.weight.shape == (2, 3)


def test_arguments_that_do_not_fit_are_a_config_error():
    with pytest.raises(ConfigError, match="in_features"):
        instantiate({"_target_": "torch.nn.Linear"})
