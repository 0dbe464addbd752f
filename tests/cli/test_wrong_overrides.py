"""Wrong overrides: each is named once, with the allowed values and the nearest name."""

from __future__ import annotations

import contextlib
import io

import pytest

from ltr.cli import train_main
from ltr.configuration.configs import config_names

UNKNOWN_KEYS = {
    "sede=1": "Did you mean 'seed'?",
    "Seed=1": "Did you mean 'seed'?",
    "los=ldam": "Did you mean 'loss'?",
    "epochs=3": "Did you mean 'trainer.max_epochs'?",
    "trainer.epochs=3": "Did you mean 'trainer.max_epochs'?",
    "train.max_epochs=3": "Did you mean 'trainer.max_epochs'?",
    "lr=0.1": "Did you mean 'optimizer.lr'?",
    "loss.max_margin=1": "it is a key of loss=ldam",
    "loss.max_margn=1": "Did you mean 'loss.max_margin' (of loss=ldam)?",
    "evaluation.nothing=1": "evaluation has many_above, few_below",
    "~loss.betta": "Did you mean 'loss.beta'",
    "loss={betta:1}": "there is no key 'loss.betta'",
}
VALUES = {
    "trainer.max_epochs=abc": "int [1, inf)",
    "trainer.accumulate=null": "int [1, inf)",
    "trainer.log_every=[3]": "int [1, inf)",
    "trainer.num_workers=true": "int [0, inf)",
    "trainer.gradient_clip=0": "(0, inf) or null",
    "trainer.precision=fp8": "one of: auto, bf16, fp16, fp32",
    "seed=1.5": "int [0, inf)",
    "batch_size=": "int [1, inf)",
    "evaluation.top_k=$x": "int [1, inf)",
    "dataset.imbalance_factor=0.5": "[1, inf)",
    "dataset.n_max=-1": "int [1, inf) or null",
    "optimizer.lr=nan": "(0, inf)",
    "optimizer.head_lr=inf": "(0, inf) or null",
    "compile=yes": "one of: true, false, auto, graph",
    "resume=mustt": "one of: auto, never, must. Did you mean 'must'?",
}
MALFORMED = {
    "loss": "an override is written key=value",
    "=3": "the key is missing",
    "a=b=c": "not an override",
    "[": "an override is written key=value",
    "{": "an override is written key=value",
    "+": "an override is written key=value",
    "~": "an override is written key=value",
    "seed =3": "not an override",
    "seed=[1": "not an override",
    "name=${": "not an override",
    "sampler=": "there is no sampler ''",
    "head=null": "there is no head 'null'",
    "loss@head=ldam": "no config of this group is chosen at loss@head",
    "++loss=ldam": "not supported",
    "~backbone=ldam": "Could not delete",
    "figures=two,none": "several values are a sweep, which needs the flag -m",
    "seed=choice()": "not an override",
    "+trainer.max_epochs=1": "'trainer.max_epochs' exists already; write it without '+'",
    "hydra.nothing=1": "have no key 'hydra.nothing'",
    "hydra.sweep.dirr=x": "Did you mean 'hydra.sweep.dir'?",
    "hydra/launcher=[null]": "",
    "hydra/sweeper=[1,[2]]": "",
}


@pytest.fixture(scope="module")
def mistakes_of(tmp_path_factory) -> list[str]:
    """Return the error of a command in which everything is wrong, a line for each mistake."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        assert train_main([*UNKNOWN_KEYS, *MALFORMED, *VALUES]) == 2
    assert "Traceback" not in err.getvalue()
    return [line.strip() for line in err.getvalue().splitlines() if line.startswith("  ")]


@pytest.mark.parametrize("override", UNKNOWN_KEYS)
def test_an_unknown_key_gets_the_nearest_known_one(mistakes_of, override):
    (line,) = [line for line in mistakes_of if line.startswith(f"{override}: there is no key")]
    assert UNKNOWN_KEYS[override] in line


@pytest.mark.parametrize("override", VALUES)
def test_a_value_out_of_range_or_of_the_wrong_type_names_what_is_allowed(mistakes_of, override):
    (line,) = [line for line in mistakes_of if line.startswith(f"{override}: ")]
    assert f"allowed is {VALUES[override]}" in line


@pytest.mark.parametrize("override", MALFORMED)
def test_a_malformed_override_is_refused_with_the_syntax(mistakes_of, override):
    (line,) = [line for line in mistakes_of if line.startswith(f"{override}: ")]
    assert MALFORMED[override] in line


def test_each_mistake_is_reported_once(mistakes_of):
    assert len(mistakes_of) == len(set(mistakes_of)) == len(UNKNOWN_KEYS) + len(MALFORMED) + len(VALUES)


@pytest.mark.parametrize("override", ["loss", "=3", "head=null", "seed=0,1", "seed=-1"])
def test_a_wrong_override_alone_is_refused_before_anything_is_written(refused, override):
    done = refused(override)
    assert done.code == 2
    assert len(done.mistakes) == 1
    assert not done.out
    assert done.left == []


@pytest.mark.parametrize("group", ["loss", "recipe"])
def test_an_unknown_config_lists_the_configs_of_its_group(refused, group):
    name = config_names(group)[0] + "x"
    done = refused(f"{group}={name}")
    assert done.mistakes == [
        f"{group}={name}: there is no {group} '{name}'. Did you mean '{name[:-1]}'? "
        f"There are: {', '.join(config_names(group))}"
    ]


def test_keys_of_a_misspelt_config_are_checked_too(refused):
    done = refused("loss=lldam", "loss.max_margin=-1")
    assert [line.partition(":")[0] for line in done.mistakes] == ["loss=lldam", "loss.max_margin=-1"]


def test_unknown_configs_keys_ranges_and_targets_are_reported_in_one_message(refused):
    wrong = ["method=erm2", "loss.betta=1", "seed=abc", "dataset.imbalance_factor=0.5", "backbone._target_=os.system"]
    done = refused(*wrong)
    assert [line.partition(":")[0] for line in done.mistakes] == wrong


def test_a_value_without_a_rule_is_checked_against_the_signature(refused):
    wrong = {
        "dataset.std=[nan]": "a list of numbers is needed",
        "dataset.mean=0.5": "a list of numbers is needed",
        "logger.tags=3": "a list of texts is needed",
        "batch_size=99999999999999999999": "64 bits",
        "seed=${nothing}": "Interpolation key 'nothing' not found",
        "name=${oc.env:NO_SUCH_VARIABLE}": "NO_SUCH_VARIABLE",
        "paths.data=null": "a folder is needed",
    }
    done = refused("logger=wandb", *wrong)
    for override, words in wrong.items():
        (line,) = [line for line in done.mistakes if line.startswith(f"{override}: ")]
        assert words in line


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["scheduler=multistep", "scheduler.milestones=[a]"], "takes a list of numbers"),
        (["backbone=timm", "backbone.name=null"], "backbone.name=null: "),
        (["backbone.weights=3"], "takes a text or null"),
    ],
)
def test_a_value_is_checked_against_the_type_of_its_argument(refused, overrides, words):
    done = refused(*overrides)
    assert done.code == 2
    assert words in done.err
    assert done.left == []


def test_a_name_that_is_not_a_folder_name_is_refused(refused):
    done = refused("name=a/b", "dataset.name=../x", "method.name=[1,2]", "stages=plan")
    assert len(done.mistakes) == 3
    assert all("a folder's name is needed" in line for line in done.mistakes)


def test_a_wrong_value_is_reported_once_though_other_keys_refer_to_it(refused):
    done = refused("loss=ldam", "head.scale=-1", "paths.outputs=${nowhere}")
    assert [line.partition("=")[0] for line in done.mistakes] == ["paths.outputs", "head.scale"]


def test_an_added_key_that_nothing_reads_is_refused(refused):
    done = refused("+new.key=1", "++new=1", "+dataset.foo=1", "+evaluation.foo=1", "+trainer.max_epoch=1")
    message = [(line.partition(": ")[0], line.partition(": ")[2]) for line in done.mistakes]
    assert {(override, words[:13]) for override, words in message} == {
        ("+new.key=1", "nothing reads"),
        ("++new=1", "nothing reads"),
        ("+dataset.foo=1", "nothing reads"),
        ("trainer.max_epoch=1", "nothing reads"),
        ("evaluation.foo=1", "nothing reads"),
    }
    assert "Did you mean 'max_epochs'?" in dict(message)["trainer.max_epoch=1"]


@pytest.mark.parametrize("override", ["+loss.gamma=1", "+loss.class_counts=[1]"])
def test_an_added_argument_that_the_code_does_not_take_is_refused(refused, override):
    assert f"{override[1:]}: ltr.losses.classification.CrossEntropy has no such argument" in refused(override).err


def test_an_added_key_that_another_refers_to_is_accepted(ltr_train):
    done = ltr_train("+my.width=3", "trainer.max_epochs=${my.width}", "stages=plan")
    assert done.code == 0, done.err
    assert "3 epochs" in done.out


def test_required_keys_cannot_be_removed(refused):
    done = refused("~loss", "~seed", "~trainer.max_epochs", "~dataset.split", "~logger", "~backbone._target_")
    missing = {line.partition(":")[0] for line in done.mistakes if "missing" in line}
    assert missing == {"loss", "seed", "trainer.max_epochs", "dataset.split", "logger", "backbone._target_"}
    assert "loss: missing; the program needs a config, e.g. loss=cross_entropy" in done.mistakes


def test_an_argument_with_a_default_can_be_removed(ltr_train):
    assert ltr_train("loss=focal_softmax", "~loss.gamma", "stages=plan").code == 0


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("os.system", "not in an allowed package"),
        ("timm.models.load_state_dict", "not in an allowed package"),
        ("ltr.files.os.system", "an object of 'posix'"),
        ("torch.nn.CrossEntropyLoss", "it lacks link, prior_bias, start_epoch"),
        ("ltr.randomness.derive_seed", "cannot be used as loss: it lacks link"),
    ],
)
def test_targets_that_are_forbidden_or_not_callable_are_refused(refused, target, words):
    done = refused(f"loss._target_={target}")
    assert done.code == 2
    assert done.mistakes[0].startswith(f"loss._target_={target}")
    assert words in done.err
    assert done.left == []


@pytest.mark.parametrize("key", ["weights_map=nonsense", "trainable=1", "no_such_key=1"])
def test_a_wrong_value_beside_a_refused_target_is_named(refused, key):
    done = refused("backbone._target_=os.system", f"backbone.{key}")
    assert [line.partition(":")[0] for line in done.mistakes] == [f"backbone.{key}", "backbone._target_=os.system"]


def test_a_config_cannot_call_functions_outside_the_declared_targets(refused, tmp_path):
    trap = tmp_path / "trap"
    wrong = ["dataset.source._target_=ltr.files.write_text", f"+dataset.source.path={trap}", "+dataset.source.text=x"]
    assert "has no such argument" in refused(*wrong).err
    assert not trap.exists()
