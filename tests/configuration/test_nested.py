"""Nested choices: ``method.<stage>.<group>=NAME`` chooses a config wherever a config of a group is nested."""

from __future__ import annotations

import functools

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from method_plans import planned
from omegaconf import OmegaConf

from ltr.configuration.configs import conf_directory, config_names, read_config, without_defaults
from ltr.configuration.nested import NestedLoader
from ltr.configuration.overrides import compose_config, explain, load_config
from ltr.configuration.targets import check_arguments
from ltr.errors import ConfigError

# what a method's stage can be given beside its own: a name for each group, or the other one where it has that already
OTHER = {
    "sampler": ("instance", "class_balanced"),
    "loss": ("class_balanced", "cross_entropy"),
    "optimizer": ("adamw", "sgd"),
    "scheduler": ("constant", "cosine"),
    "head": ("cosine", "linear"),
    "backbone": ("resnet20",),
    "augment": ("none", "digits"),
    "method": ("sla",),
}
# a teacher of embeddings learns from groups of classes
OF_EMBEDDINGS = {"sampler": ("per_class",), "loss": ("triplet",), "head": ("embedding", "unit_embedding")}


@functools.cache
def nodes_of(method: str) -> dict[str, str]:
    """The nested choices of a method: where they lie, and of which group they are."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_directory())):
        loader = NestedLoader(GlobalHydra.instance().hydra.config_loader.get_search_path())
        loader.load_configuration("train", [f"method={method}"], RunMode.RUN)
    return {node: key.partition("@")[0] for node, key in loader.nodes.items() if node.startswith("method.")}


def nests(method: str) -> bool:
    """Return whether a method's own file says that a config is nested in it."""
    lines = read_config(f"method/{method}").get("defaults", [])
    keys = [key for line in lines if isinstance(line, dict) for key in line]
    return any("@" in key and "@_global_" not in key for key in keys)


METHODS = [method for method in config_names("method") if nests(method)]


def another(method: str, node: str, default: dict) -> str:
    """A config that a nested choice has not made by itself in the method's configuration."""
    group = nodes_of(method)[node]
    names = {**OTHER, **OF_EMBEDDINGS}[group] if method == "rkd" else OTHER[group]
    for part in node.split("."):
        default = default.get(part) or {}
    others = [name for name in names if read_config(f"{group}/{name}").get("_target_") != default.get("_target_")]
    return others[0] if others else names[0]


def test_every_config_that_a_method_nests_is_found():
    stages = ("sampler", "loss", "optimizer", "scheduler", "augment")
    for method in ("crt", "lws"):
        expected = {f"method.classifier.{group}": group for group in stages} | {"method.representation": "method"}
        assert nodes_of(method) == expected
    for method in ("rkd", "rkd_classification"):
        assert nodes_of(method) == {f"method.teacher.{group}": group for group in (*stages, "head", "backbone")}
    assert set(nodes_of("smote")) == {f"method.classifier.{group}" for group in stages[:4]}
    assert nodes_of("erm") == {}


@pytest.mark.parametrize("method", METHODS)
def test_each_nested_choice_plans_in_its_plain_form(method):
    default = OmegaConf.to_container(compose_config([f"method={method}"]), resolve=True)
    chosen = {node: another(method, node, default) for node in nodes_of(method)}
    data = ["dataset=digits_retrieval"] if method == "rkd" else []
    space = ["method.space=feature"] if method == "smote" else []
    if method == "smote":  # which refuses samplers that do not end class-balanced
        chosen["method.classifier.sampler"] = "class_balanced_deferred"
    if method in ("crt", "lws"):  # the representation's own method is tried by itself
        chosen.pop("method.representation")
        assert planned(f"method={method}", "method.representation=sla").keys
    plan = planned(f"method={method}", *data, *space, *(f"{node}={name}" for node, name in chosen.items()))
    groups = {nodes_of(method)[node]: name for node, name in chosen.items()}
    own = without_defaults(
        OmegaConf.to_container(compose_config([*data, *(f"{group}={name}" for group, name in groups.items())]))
    )
    for node in chosen:  # the whole config is there, and nothing of the one that it replaces
        value = plan.config
        for part in node.split("."):
            value = value[part]
        assert set(value) == set(own[nodes_of(method)[node]]), node
    # the form of Hydra means the same
    written_out = [f"{nodes_of(method)[node]}@{node}={name}" for node, name in chosen.items()]
    assert planned(f"method={method}", *data, *space, *written_out).keys == plan.keys


def test_values_below_a_nested_choice_are_those_of_its_config():
    config = compose_config(
        ["method=crt", "method.classifier.optimizer.beta1=0.8", "method.classifier.optimizer=adamw", "optimizer.lr=0.3"]
    )
    assert config.method.classifier.optimizer.beta1 == 0.8
    assert config.method.classifier.optimizer.lr == 0.3  # the method's config says so of any optimiser
    assert "momentum" not in config.method.classifier.optimizer


def test_a_choice_may_be_nested_in_a_nested_choice():
    plan = planned(
        "method=ncm",
        "method.representation=rkd_classification",
        "method.representation.teacher.backbone=resnet20",
        "method.representation.teacher.optimizer=adamw",
        "method.representation.teacher.optimizer.lr=0.02",
    )
    assert plan.stages["teacher"].settings.backbone["depth"] == 20
    assert plan.stages["teacher"].settings.optimizer["lr"] == 0.02


def test_null_resets_a_nested_choice():
    assert compose_config(["method=crt", "method.representation=null"]) == compose_config(["method=crt"])
    chosen = ["experiment=cifar100_rkd"]
    assert compose_config(chosen).method.teacher.backbone.depth == 56
    assert (
        compose_config([*chosen, "method.teacher.backbone=null"]).method.teacher.backbone.depth == 20
    )  # the student's


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("method.classifier.optimizer=adamq", "'adamq'. Did you mean 'adamw'? There are: adamw, sgd, timm, torch"),
        ("method.classifier.optimizer=3", "there is no optimizer '3'"),
        ("method.classifier.optimizer=[sgd,1]", "one config is needed here, not a list"),
        ("method.classifier.loss=", "there is no loss ''"),
        ("++method.classifier.sampler=instanse", "Did you mean 'instance'"),
        ("method.classifier=adamw", "it has sampler, loss, optimizer, scheduler, epochs, selection"),
        ("method.classifier=null", "keys are needed here"),
        ("dataset.source=digits", "Set one with dataset.source.KEY=VALUE"),
        ("hydra.launcher=joblob", "there is no hydra/launcher 'joblob'"),
    ],
)  # fmt: skip
def test_unknown_nested_choices_are_refused_by_name(override, reason):
    with pytest.raises(ConfigError) as refused:
        compose_config(["method=crt", "method.classifier.optimizer.momentum=0.5", override, "seed=1"])
    lines = str(refused.value).splitlines()[1:]
    assert len(lines) == 1
    assert override in lines[0]
    assert reason in lines[0]


@pytest.mark.parametrize(
    "override",
    ["+method.representation.loss=ldam", "~method.classifier.optimizer", "~method.classifier.optimizer._target_",
     "method.classifier.scheduler=null"],
)  # fmt: skip
def test_a_node_without_a_config_is_refused(ltr_train, override):
    done = ltr_train("method=crt", override, "stages=plan")
    assert done.code == 2
    assert override.strip("+~").partition("=")[0].removesuffix("._target_").rsplit(".", 1)[0] in done.err


# -- in files ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_configs(tmp_path):
    """Write user config files; returns the folder for ``--config-dir``."""

    def write(**files: str):
        for path, content in files.items():
            file = tmp_path / "own" / f"{path.replace('__', '/')}.yaml"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        return str(tmp_path / "own")

    return write


EXPERIMENT = """# @package _global_
defaults:
  - override /method: crt
method:
  classifier:
    optimizer: adamw
    augment: none
    scheduler:
      final: 0.1
"""


def test_an_experiment_chooses_as_the_command_line_does(own_configs):
    folder = own_configs(experiment__mine=EXPERIMENT)
    written = ["method=crt", "method.classifier.optimizer=adamw", "method.classifier.augment=none",
               "method.classifier.scheduler.final=0.1"]  # fmt: skip
    assert compose_config(["experiment=mine"], folder) == compose_config(written)
    below = compose_config(["experiment=mine", "method.classifier.optimizer.beta1=0.5"], folder)
    assert below.method.classifier.optimizer.beta1 == 0.5
    # the command line has the last word
    assert (
        "beta1"
        not in compose_config(
            ["experiment=mine", "method.classifier.optimizer=sgd"], folder
        ).method.classifier.optimizer
    )


def test_a_user_method_chooses_nested_configs_in_its_body(own_configs):
    folder = own_configs(
        method__mine="defaults:\n  - crt\n  - _self_\nname: mine\nclassifier:\n  loss: class_balanced\n"
    )
    loss = compose_config(["method=mine"], folder).method.classifier.loss
    assert loss == compose_config(["loss=class_balanced"]).loss
    nested = compose_config(["method=ncm", "method.representation=mine"], folder).method.representation
    assert nested.classifier.loss == loss


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "method: {classifier: {optimizer: adamq}}",
            "there is no optimizer 'adamq'. Did you mean 'adamw'? There are: adamw, sgd",
        ),
        ("method: {classifier: {optimizer: 3}}", "method.classifier.optimizer=3: keys are needed here"),
        ("method: {classifier: adamw}", "method.classifier=adamw: keys are needed here"),
        (
            "trainer: gpu",
            "trainer=gpu: keys are needed here, not a value. Choose a config in its defaults list: '- override",
        ),
        (
            "method.classifier.epochs: 3",
            "one key with dots, which nothing reads. Nest the keys: method: {classifier: {e",
        ),
    ],
)
def test_a_file_with_a_value_where_a_config_belongs_is_refused(own_configs, ltr_train, body, reason):
    folder = own_configs(experiment__mine=EXPERIMENT.partition("method:\n")[0] + body + "\n")
    done = ltr_train(f"--config-dir={folder}", "experiment=mine", "stages=plan")
    assert done.code == 2
    assert reason in done.err


@pytest.mark.parametrize(
    ("defaults", "reason"),
    [
        ("defaults: [override /method: crt]", "Write '# @package _global_' as its first line"),
        ("# @package _global_\ndefaults: [override /methd: crt]", "the defaults list has no 'methd' to override"),
        ("# @package _global_\ndefaults: [/loss: ldam]", "in a defaults list as '- override /loss: NAME'"),
        ("# @package _global_\ndefaults: [no_such]", "there is no config 'experiment/no_such'"),
    ],
)
def test_a_wrong_defaults_list_gets_the_right_one(own_configs, defaults, reason):
    folder = own_configs(experiment__mine=f"{defaults}\n")
    assert reason in explain(["experiment=mine"], folder, "train")[0]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["method=erm", "method.classifier.optimizer=adamw"], "it is a key of method=cc_sam, method=crt, method=lws"),
        (
            ["method=crt", "method.classifier.optimizer=adamw", "method.classifier.optimizer.momentum=0.5"],
            "it is a key of method.classifier.optimizer=sgd",
        ),
        (["method=crt", "method.classifier.augment.pad=2"], "it is a key of method.classifier.augment=cifar"),
        (["method=rkd", "method.teacher.backbone.depth=20"], "it is a key of method.teacher.backbone=resnet20"),
    ],
)
def test_a_key_of_another_nested_choice_gets_that_choice(overrides, reason):
    (mistake,) = explain(overrides, None, "train")
    assert reason in mistake


def test_a_method_may_have_values_named_like_a_group(own_configs):
    folder = own_configs(method__mine="_target_: mine.Method\nname: mine\nloss: ldam\noptimizer: fast\n")
    assert compose_config(["method=mine", "method.loss=mse"], folder).method.loss == "mse"
    assert compose_config(["method=mine"], folder).method.loss == "ldam"


# -- one composition for each command ---------------------------------------------------------------------------------


def loader_for(*overrides: str) -> tuple[NestedLoader, list[str]]:
    """Return a loader that has composed the configuration from which Hydra reads the mode, and the overrides to run."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_directory())):
        loader = NestedLoader(GlobalHydra.instance().hydra.config_loader.get_search_path())
        loader.load_configuration("train", list(overrides), RunMode.MULTIRUN, validate_sweep_overrides=False)
    return loader, [*overrides, "hydra.mode=RUN"]


@pytest.mark.parametrize(
    "overrides",
    [(), ("method=crt", "method.classifier.optimizer=adamw"), ("evaluation.scorers=[msp,energy]",)],
    ids=["defaults", "nested choice", "list"],
)
def test_the_configuration_composed_for_the_checks_is_reused_for_the_run(overrides, monkeypatch):
    loader, to_run = loader_for(*overrides)
    anew = loader_for(*overrides)[0]
    anew.load_configuration("train", ["seed=7"], RunMode.RUN)  # another request forgets the first configuration
    expected = anew.load_configuration("train", to_run, RunMode.RUN)
    monkeypatch.setattr(NestedLoader, "_composed", None)
    taken = loader.load_configuration("train", to_run, RunMode.RUN)
    assert OmegaConf.to_container(taken, resolve=False) == OmegaConf.to_container(expected, resolve=False)


def test_the_checked_configuration_is_used_once():
    loader, to_run = loader_for()
    first, second = (loader.load_configuration("train", to_run, RunMode.RUN) for _ in range(2))
    assert first is not second


def test_null_stays_in_the_overrides_that_name_a_job():
    loader, to_run = loader_for("sharpness=null", "seed=1")
    config = loader.load_configuration("train", to_run, RunMode.RUN)
    assert sorted(config.hydra.overrides.task) == ["seed=1", "sharpness=null"]
    with_sam = loader.load_configuration("train", ["experiment=cifar10_lt_ce_drw_sam", "sharpness=null"], RunMode.RUN)
    assert list(with_sam.hydra.overrides.task) == ["experiment=cifar10_lt_ce_drw_sam", "sharpness=null"]
    assert "sharpness" not in with_sam


def test_a_run_refuses_a_choice_that_is_missing(ltr_train):
    done = ltr_train("sampler=???")
    assert done.code == 2
    assert "sampler" in done.err


def test_a_run_refuses_several_values_of_a_key():
    loader, to_run = loader_for("seed=1,2")
    with pytest.raises(Exception, match="Ambiguous value"):
        loader.load_configuration("train", to_run, RunMode.RUN)


def test_keys_of_the_own_choice_that_do_not_exist_are_refused(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults:\n  - override /backbone: resnet32\n  - _self_\nbackbone: {dept: 20}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    (mistake,) = check_arguments(load_config(["experiment=mine"], str(tmp_path)))
    assert mistake.startswith("backbone.dept=20")
