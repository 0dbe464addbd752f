"""The flags of ltr-train: in any order, checked, and what the informative ones print."""

from __future__ import annotations

import pytest
import yaml

from ltr.commands.arguments import Parser, parse_arguments
from ltr.configuration.command_line import read
from ltr.errors import ConfigError


def test_flags_and_overrides_are_accepted_in_any_order(tmp_path):
    folder = str(tmp_path)
    line = read(["seed=1", "-m", "loss=ldam", "-cd", folder, "--allow", "mine", "--cfg=job", "-x=1", "--", "-y"])
    assert line.overrides == ["seed=1", "loss=ldam", "-y"]
    assert line.allowed == ["mine"]
    assert line.for_hydra == ["--multirun", f"--config-dir={folder}", "--cfg=job", "--", "seed=1", "loss=ldam", "-y"]
    assert line.config_dir == folder


def test_an_informative_flag_without_its_value_means_all():
    assert read(["--info", "loss=ldam"]).for_hydra == ["--info=all", "loss=ldam"]
    assert read(["--info", "defaults"]).for_hydra == ["--info=defaults"]


def test_wrong_flags_are_reported_together_with_wrong_overrides(refused):
    done = refused("sede=1", "--mutlirun", "--cfg", "jobs", "--config-dir", "/no/such", "--allow", "a b", "--package")
    assert done.code == 2
    starts = ["--mutlirun: ", "--cfg jobs: ", "--allow a b: ", "--package: ", "--config-dir /no/such: ", "sede=1: "]
    assert [next(s for s in starts if line.startswith(s)) for line in done.mistakes] == starts
    assert "Did you mean '--multirun'?" in done.mistakes[0]
    assert "allowed is one of: job, hydra, all" in done.mistakes[1]


@pytest.mark.parametrize("argument", ["--optimizer.lr=0.1", "--seed=1", "--method.classifier.epochs=2"])
def test_a_key_with_dashes_is_refused_with_the_right_form_and_advice_for_sweep_agents(argument):
    (mistake,) = read([argument]).mistakes
    assert f"keys are written without dashes and with '=': {argument[2:]}." in mistake
    assert "${args_no_hyphens}" in mistake


@pytest.mark.parametrize(
    ("arguments", "override"),
    [(["--lr", "0.1"], "lr=0.1"), (["--batch-size", "128"], "batch_size=128"), (["--epochs=3"], "epochs=3")],
)
def test_options_of_other_programs_are_refused_with_the_key_of_ltr(arguments, override):
    line = read(arguments)
    assert line.overrides == [override]
    assert f"with '=': {override}" in line.mistakes[0]


def test_a_mistyped_flag_with_a_value_is_not_read_as_a_key():
    assert read(["--cfgs", "job"]).mistakes[0].endswith("Did you mean '--cfg'?")


@pytest.mark.parametrize(
    "arguments", [["--allow", "my_a", "my_b.c"], ["--allow", "my_a,my_b.c"], ["--allow=my_a,my_b.c"]]
)
def test_two_packages_after_one_flag_are_refused_with_a_flag_for_each(arguments):
    line = read([*arguments, "seed=1"])
    (mistake,) = line.mistakes
    assert "Type --allow my_a --allow my_b.c, or set LTR_ALLOW=my_a,my_b.c" in mistake
    assert line.overrides == ["seed=1"]


def test_each_package_has_a_separate_flag():
    line = read(["--allow", "my_a", "--allow", "my_b", "seed=1"])
    assert (line.allowed, line.mistakes) == (["my_a", "my_b"], [])


def test_flags_that_exclude_each_other_are_refused(refused):
    done = refused("--cfg", "job", "-m", "--resolve", "--help=1")
    assert "--cfg --multirun: only one of these flags" in done.err
    assert "--help takes no value" in done.err
    assert "--resolve: goes with --cfg" in refused("--resolve").err


def test_a_pickled_job_is_refused(refused, tmp_path):
    assert "there is no such flag" in refused("--experimental-rerun", str(tmp_path / "job.pickle")).err


def test_the_configuration_is_printed_as_yaml(ltr_train):
    done = ltr_train("--cfg", "job", "loss=ldam", "seed=3")
    assert done.code == 0
    printed = yaml.safe_load(done.out)
    assert printed["seed"] == 3
    assert printed["loss"]["scale"] == "${oc.select:head.scale,1.0}"
    assert not (done.outputs).exists()


def test_the_configuration_is_printed_resolved(ltr_train):
    printed = yaml.safe_load(ltr_train("--cfg", "job", "--resolve", "loss=ldam").out)
    assert printed["loss"]["scale"] == printed["head"]["scale"] == 30.0


def test_the_defaults_are_printed_with_their_origin(ltr_train):
    done = ltr_train("--info", "defaults", "loss=ldam")
    assert done.code == 0
    assert "head/cosine" in done.out


def test_version_prints_the_version_of_ltr(ltr_train):
    from ltr import __version__

    assert ltr_train("--version").out == f"ltr {__version__}\n"


def test_a_sweep_is_requested_by_its_flag_or_by_hydras_key_but_not_by_both():
    assert read(["hydra.mode=MULTIRUN", "seed=0,1"]).sweep
    assert not read(["hydra.mode=RUN", "seed=0"]).sweep
    (mistake,) = read(["-m", "hydra.mode=RUN", "seed=0,1"]).mistakes
    assert mistake.startswith("--multirun hydra.mode=RUN: ")


@pytest.mark.parametrize("argv", [[""], ["--out", ""], [" "], ["a\0b"]])
def test_empty_arguments_are_refused(argv):
    parser = Parser(prog="ltr-predict")
    parser.add_argument("--out")
    parser.add_argument("words", nargs="*")
    with pytest.raises(ConfigError, match="is empty or no text"):
        parse_arguments(parser, argv)


@pytest.mark.parametrize(("wrong", "words"), [("trainer.max_epochs=x", "int [1, inf)"), ("seed=-1", "int [0, inf)")])
def test_a_configuration_with_a_wrong_value_is_not_printed(refused, wrong, words):
    done = refused("--cfg", "job", wrong)
    assert (done.code, done.out) == (2, "")
    assert f"{wrong}: allowed is {words}" in done.err
