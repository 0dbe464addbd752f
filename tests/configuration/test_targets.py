"""What a page may name, and whether its arguments fit."""

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
def test_an_alias_inside_an_allowed_module_does_not_pass(alias):
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


def test_prefixes_can_be_added_for_ones_own_code(monkeypatch):
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


def test_private_keys_do_not_reach_the_callable():
    made = instantiate({"_target_": "torch.nn.Linear", "_allowed_": {"bias": [True]}, "name": "x", "bias": False}, 3, 2)
    assert made.bias is None
    assert made.weight.shape == (2, 3)


def test_arguments_that_do_not_fit_are_a_config_error():
    with pytest.raises(ConfigError, match="in_features"):
        instantiate({"_target_": "torch.nn.Linear"})
