"""Every key of a composed configuration is read by something, or refused; a config is named, not placed by a path."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from ltr.configuration.check import find_mistakes
from ltr.configuration.configs import PRIVATE_KEYS, config_names
from ltr.configuration.forbidden import forbidden, not_one_config, wrong_config_name
from ltr.configuration.hydra_nodes import check_hydra
from ltr.configuration.overrides import compose_config, explain
from ltr.configuration.placement import unread_keys
from ltr.errors import ConfigError

BASIC = "hydra._internal.core_plugins.basic_{}"


def unread(config: dict, *overrides: str, hydra: dict | None = None) -> list[str]:
    return [line.partition(":")[0] for line in unread_keys(config, overrides, hydra)]


@pytest.fixture(scope="module")
def config() -> dict:
    plain = OmegaConf.to_container(compose_config([]), resolve=False)
    assert isinstance(plain, dict)
    return plain


@pytest.mark.parametrize("dataset", config_names("dataset"))
def test_every_key_of_a_shipped_data_set_is_read(dataset):
    config = OmegaConf.to_container(compose_config([f"dataset={dataset}"]), resolve=False)
    assert unread_keys(config) == []


@pytest.mark.parametrize("group", ["method", "sweep", "debug"])
def test_every_key_of_a_shipped_config_is_read(group):
    for name in config_names(group):
        config = OmegaConf.to_container(compose_config([f"{group}={name}"]), resolve=False)
        assert unread_keys({key: value for key, value in config.items() if key != "hydra"}) == [], name


def test_a_node_that_only_refers_to_itself_is_unread(config):
    more = {
        "a": {"b": "${a.c}", "c": 1},
        "trainer": {**config["trainer"], "max_epochs": "${d.e}"},
        "d": {"e": 3, "f": 4},
    }
    assert unread({**config, **more}, "+a.b=${a.c}", "+a.c=1", "+d.e=3", "+d.f=4") == [
        "+a.b=${a.c}",
        "+a.c=1",
        "+d.f=4",
    ]


def test_references_may_be_relative_nested_whole_or_of_hydra(config):
    trainer = {**config["trainer"], "max_epochs": "${..my.length}", "log_every": "${oc.select:my.${my.which},1}"}
    more = {"my": {"length": 3, "which": "x", "x": 4}, "loss": "${mine}", "mine": {"_target_": "a.b"}, "study": "s"}
    assert unread({**config, **more, "trainer": trainer}) == ["study=s"]
    assert unread({**config, **more, "trainer": trainer}, hydra={"sweeper": {"study_name": "${study}"}}) == []


def test_an_unread_config_is_reported_as_typed_with_the_key_that_is_read():
    override = "+loss@b.c=ldam"
    _, mistakes = find_mistakes(compose_config([override]), [override])
    assert mistakes == [
        f"{override}: nothing reads 'b.c'. A config of this group is read at: loss. Write loss=ldam",
    ]
    _, mistakes = find_mistakes(compose_config(["method=crt", override]), [override])
    assert "loss, method.classifier.loss. Write loss=ldam or loss@method.classifier.loss=ldam" in mistakes[0]


@pytest.mark.parametrize(
    "override",
    ["+strategy@a.b=fsdp", "+a.b=1", "+dataset.foo.bar=1", "+loss@_global_=ldam", "+recipe@x.y=cub_pim", "++a={b: 1}",
     "+dataset@dataset.more=cifar10", "+_target_=torch.nn.Linear"],
)  # fmt: skip
def test_configs_at_unread_keys_are_refused(override):
    _, mistakes = find_mistakes(compose_config([override]), [override])
    assert mistakes
    assert mistakes[-1].startswith(override)
    assert "nothing reads" in mistakes[-1]


@pytest.mark.parametrize(
    "overrides",
    [
        ["method=crt", "scheduler@method.classifier.scheduler=multistep"],
        ["method=crt", "+method@method.representation=sla"],
        ["method=crt", "loss@method.classifier.loss=ldam"],
        ["+my.width=3", "trainer.max_epochs=${my.width}"],
        ["+my.loss=1", "+method.extras=[{_target_: ltr.methods.distillation.terms.HKD, teacher: '${my.loss}'}]"],
        ["+dataset.split_file=x.npz"],
    ],
)
def test_configs_at_read_keys_are_accepted(overrides):
    assert find_mistakes(compose_config(overrides), overrides)[1] == []


@pytest.mark.parametrize("key", PRIVATE_KEYS)
@pytest.mark.parametrize(
    "written",
    ["~optimizer.{}", "~optimizer.{}.lr", "head.{}=1", "++loss.{}={{}}", "evaluation={{{}: {{}}}}", "+{}.seed=1",
     "+method.extras=[{{{}: 1}}]", "optimizer.{}.lr=null,[0]", "+hydra.sweeper.params={{optimizer.{}.lr: x}}",
     "+loss@head.{}=ldam"],
)  # fmt: skip
def test_private_keys_are_refused_on_the_command_line(key, written):
    text = written.format(key)
    (sentence,) = forbidden([text]).values()
    assert sentence.startswith(f"{text}: '{key}'")
    assert "--config-dir" in sentence


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../loss/ldam", "./ldam", "a/../b", "ldam.yaml", "a//b", "a\\b", "~/x/y"]
)
def test_a_path_instead_of_a_config_name_is_refused(name):
    assert "is a path" in (wrong_config_name(name) or "")


@pytest.mark.parametrize("name", ["ldam", "mine/ldam", "a.b", "ldam-2", "null"])
def test_config_names_are_accepted(name):
    assert wrong_config_name(name) is None


@pytest.mark.parametrize("override", ["paths.outputs=/a/../b", "name=../x", "dataset.root=x.yaml", "seed=1"])
def test_paths_as_values_are_accepted(override):
    assert forbidden([override]) == {}


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"launcher": "/dev/stdin"}, "hydra.launcher=/dev/stdin: a config is needed, chosen as hydra/launcher=basic"),
        ({"sweeper": None}, "hydra.sweeper=null: a config is needed"),
        ({"callbacks": {"mine": 1}}, "hydra.callbacks.mine=1: a config with a _target_ is needed"),
        ({"foo": 1}, "hydra.foo: nothing reads it"),
        ({"searchpath": ["nowhere"]}, "there is no folder of configs 'nowhere'"),
        ({"searchpath": ["pkg://nowhere"]}, "there is no folder of configs 'pkg://nowhere'"),
        ({"runtime": {"choices": {"loss": "../method/erm"}}}, "loss=../method/erm: the name of a config is needed"),
    ],
)
def test_invalid_hydra_nodes_are_refused(node, words):
    (line,) = check_hydra(node)
    assert words in line


def test_a_user_config_without_rules_has_those_of_the_shipped_one(tmp_path):
    config = tmp_path / "optimizer" / "sgd.yaml"
    config.parent.mkdir()
    content = "_target_: ltr.optim.optimizers.sgd\nlr: 0.1\nmomentum: 0.9\nweight_decay: 0\n"
    config.write_text(content)
    refused = find_mistakes(compose_config(["optimizer=sgd", "optimizer.lr=0"], str(tmp_path)))[1]
    assert refused == ["optimizer.lr=0: allowed is (0, inf)"]
    config.write_text(content + "_allowed_: {lr: '[0, inf)'}\n")
    assert find_mistakes(compose_config(["optimizer=sgd", "optimizer.lr=0"], str(tmp_path)))[1] == []
    config.write_text(content + "_allowed_: 1\n")
    assert "rules by key are needed" in find_mistakes(compose_config(["optimizer=sgd"], str(tmp_path)))[1][0]


@pytest.mark.parametrize(
    ("override", "advice"),
    [
        ("optimizer=[adamw,adamw]", "e.g. optimizer=adamw"),
        ("loss=[ldam,cross_entropy]", "-m loss=ldam,cross_entropy"),
        ("dataset=[digits_lt]", "e.g. dataset=digits_lt"),
        ("hydra/launcher=[basic,joblib]", "e.g. hydra/launcher=basic"),
        ("loss@method.classifier.loss=[ldam,focal_softmax]", "-m loss@method.classifier.loss=ldam,focal_softmax"),
    ],
)
def test_a_list_where_one_config_is_read_is_refused(override, advice):
    (line,) = forbidden([override]).values()
    assert line.startswith(f"{override}: one config is needed here, not a list")
    assert advice in line


def test_groups_that_only_set_values_accept_several_configs():
    assert forbidden(["debug=[fast,profile]", "experiment=[a,b]", "evaluation.scorers=[msp,energy]"]) == {}
    assert not_one_config("debug", ["fast", "profile"]) is None


def test_a_nested_choice_in_a_user_file_takes_one_config():
    with pytest.raises(ConfigError, match=r"one config is needed here, .* -m method.classifier.loss=ldam,f"):
        compose_config(["method=crt", "method.classifier.loss=[ldam,focal_softmax]"])
    chosen = {"loss@method.classifier.loss": ["ldam", "focal_softmax"]}
    (line,) = check_hydra({"runtime": {"choices": chosen}})
    assert "one config is needed" in line


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"launcher": {"_target_": BASIC.format("launcher.BasicLauncher"), "x": 1}}, "hydra.launcher.x: nothing reads"),
        (
            {"sweeper": {"_target_": BASIC.format("sweeper.BasicSweeper"), "x": 1}},
            "hydra.sweeper has _target_, max",
        ),
        (
            {"sweeper": {"_target_": BASIC.format("sweeper.BasicSweeper"), "max_batch_size": 0}},
            "hydra.sweeper.max_batch_size=0: allowed is int [1, inf) or null",
        ),
    ],
)
def test_unknown_arguments_of_launchers_and_sweepers_are_named(node, words):
    (line,) = check_hydra(node)
    assert words in line


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["optimizer@method.classifier.optimizer=adamw"], "no config of this group is chosen at optimizer@method"),
        (["+loss@loss=ldam"], "a config is chosen there already. Write it without '+'"),
        (["hydra.mode=foo"], "expected one of [RUN, MULTIRUN]"),
        (["hydra.sweeper.params={seed:'0,1'}"], "Hydra takes this from a config file only"),
    ],
)
def test_errors_of_hydra_become_messages_with_advice(overrides, words):
    (line,) = explain(overrides, None, "train")
    assert line.startswith(overrides[0])
    assert words in line
    assert "To append" not in line
