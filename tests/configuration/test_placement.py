"""Every key of a composed configuration is read by something, or refused; a config is named, not placed by a path."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from ltr.configuration.check import examined
from ltr.configuration.forbidden import forbidden, wrong_config_name
from ltr.configuration.hydra_nodes import check_hydra
from ltr.configuration.overrides import composed
from ltr.configuration.pages import PRIVATE_KEYS, page_names
from ltr.configuration.placement import unread_keys


def unread(config: dict, *overrides: str, hydra: dict | None = None) -> list[str]:
    return [line.partition(":")[0] for line in unread_keys(config, overrides, hydra)]


@pytest.fixture(scope="module")
def config() -> dict:
    found = OmegaConf.to_container(composed([]), resolve=False)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("dataset", page_names("dataset"))
def test_every_key_of_a_shipped_data_set_is_read(dataset):
    page = OmegaConf.to_container(composed([f"dataset={dataset}"]), resolve=False)
    assert unread_keys(page) == []


@pytest.mark.parametrize("group", ["method", "sweep", "debug"])
def test_every_key_of_a_shipped_config_is_read(group):
    for name in page_names(group):
        page = OmegaConf.to_container(composed([f"{group}={name}"]), resolve=False)
        assert unread_keys({key: value for key, value in page.items() if key != "hydra"}) == [], name


def test_what_no_reference_reaches_is_unread_though_it_refers_to_itself(config):
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


def test_a_reference_may_be_relative_nested_whole_or_of_hydra(config):
    trainer = {**config["trainer"], "max_epochs": "${..my.length}", "log_every": "${oc.select:my.${my.which},1}"}
    more = {"my": {"length": 3, "which": "x", "x": 4}, "loss": "${mine}", "mine": {"_target_": "a.b"}, "study": "s"}
    assert unread({**config, **more, "trainer": trainer}) == ["study=s"]
    assert unread({**config, **more, "trainer": trainer}, hydra={"sweeper": {"study_name": "${study}"}}) == []


def test_a_config_that_nothing_reads_is_told_as_it_was_typed_with_the_place_that_is_read():
    override = "+loss@b.c=ldam"
    _, mistakes = examined(composed([override]), [override])
    assert mistakes == [
        f"{override}: nothing reads 'b.c'. A config of this group is read at: loss. Write loss=ldam",
    ]
    _, mistakes = examined(composed(["method=crt", override]), [override])
    assert "loss, method.classifier.loss. Write loss=ldam or loss@method.classifier.loss=ldam" in mistakes[0]


@pytest.mark.parametrize(
    "override",
    ["+strategy@a.b=fsdp", "+a.b=1", "+dataset.foo.bar=1", "+loss@_global_=ldam", "+recipe@x.y=cifar10", "++a={b: 1}",
     "+dataset@dataset.more=cifar10", "+_target_=os.system"],
)  # fmt: skip
def test_what_is_placed_where_nothing_reads_it_is_refused(override):
    _, mistakes = examined(composed([override]), [override])
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
        ["+my.loss=1", "+method.extras=[{_target_: ltr.methods.extras.HKD, teacher: '${my.loss}'}]"],
        ["+dataset.split_file=x.npz"],
    ],
)
def test_what_is_placed_where_it_is_read_is_not(overrides):
    assert examined(composed(overrides), overrides)[1] == []


@pytest.mark.parametrize("key", PRIVATE_KEYS)
@pytest.mark.parametrize(
    "written",
    ["~optimizer.{}", "~optimizer.{}.lr", "head.{}=1", "++loss.{}={{}}", "evaluation={{{}: {{}}}}", "+{}.seed=1",
     "+method.extras=[{{{}: 1}}]", "optimizer.{}.lr=null,[0]", "+hydra.sweeper.params={{optimizer.{}.lr: x}}",
     "+loss@head.{}=ldam"],
)  # fmt: skip
def test_private_keys_are_not_for_the_command_line(key, written):
    text = written.format(key)
    (sentence,) = forbidden([text]).values()
    assert sentence.startswith(f"{text}: '{key}'")
    assert "--config-dir" in sentence


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../loss/ldam", "./ldam", "a/../b", "ldam.yaml", "a//b", "a\\b", "~/x/y"]
)
def test_a_path_is_not_the_name_of_a_config(name):
    assert "is a path" in (wrong_config_name(name) or "")


@pytest.mark.parametrize("name", ["ldam", "mine/ldam", "a.b", "ldam-2", "null"])
def test_a_name_may_be_the_name_of_a_config(name):
    assert wrong_config_name(name) is None


@pytest.mark.parametrize("override", ["paths.outputs=/a/../b", "name=../x", "dataset.root=x.yaml", "seed=1"])
def test_a_path_as_a_value_is_no_matter(override):
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
def test_nodes_of_hydra_that_it_could_not_use_are_refused(node, words):
    (line,) = check_hydra(node)
    assert words in line


def test_a_user_s_own_config_has_its_own_rules_and_one_without_has_the_shipped_ones(tmp_path):
    page = tmp_path / "optimizer" / "sgd.yaml"
    page.parent.mkdir()
    content = "_target_: ltr.optim.optimizers.sgd\nlr: 0.1\nmomentum: 0.9\nweight_decay: 0\n"
    page.write_text(content)
    refused = examined(composed(["optimizer=sgd", "optimizer.lr=0"], str(tmp_path)))[1]
    assert refused == ["optimizer.lr=0: allowed is (0, inf)"]
    page.write_text(content + "_allowed_: {lr: '[0, inf)'}\n")
    assert examined(composed(["optimizer=sgd", "optimizer.lr=0"], str(tmp_path)))[1] == []
    page.write_text(content + "_allowed_: 1\n")
    assert "rules by key are needed" in examined(composed(["optimizer=sgd"], str(tmp_path)))[1][0]
