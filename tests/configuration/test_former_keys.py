"""Former spellings of keys: understood on the command line, in sweeps and in config files, with one notice each."""

from __future__ import annotations

import pytest

from ltr.configuration.former_keys import forget_notices
from ltr.configuration.overrides import compose_config, load_config
from ltr.errors import ConfigError
from ltr.runs.keys import run_hash


@pytest.fixture(autouse=True)
def _first_command():
    forget_notices()


@pytest.fixture
def own(tmp_path):
    """Write a user config; returns the folder for ``--config-dir``."""

    def write(path: str, text: str) -> str:
        file = tmp_path / f"{path}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return str(tmp_path)

    return write


def test_a_former_key_on_the_command_line_sets_todays_key_with_one_notice(capsys):
    config = compose_config(["evaluation.watch=test"])
    assert config.evaluation.monitor_split == "test"
    assert "watch" not in config.evaluation
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: evaluation.watch is now called evaluation.monitor_split. ")
    compose_config(["evaluation.watch=test"])
    assert capsys.readouterr().err == ""


def test_todays_keys_need_no_notice(capsys):
    assert compose_config(["evaluation.monitor_split=test", "method=herbs"]).method.location_rule == "location"
    assert capsys.readouterr().err == ""


def test_a_former_option_is_understood_for_its_method_only():
    for method in ("herbs", "herbs_released", "pim"):
        assert compose_config([f"method={method}", "method.selection=random"]).method.location_rule == "random"
    with pytest.raises(ConfigError, match=r"method\.selection=random: there is no key 'method.selection'"):
        compose_config(["method=erm", "method.selection=random"])


def test_both_spellings_are_the_same_run():
    pairs = [("evaluation.watch=test", "evaluation.monitor_split=test")]
    pairs += [("method.selection=random", "method.location_rule=random")]
    for former, today in pairs:
        hashes = {run_hash(load_config(["method=herbs", text])) for text in (former, today)}
        assert len(hashes) == 1


def test_a_wrong_value_of_a_former_key_is_refused_and_no_key_is_called_unknown():
    with pytest.raises(ConfigError) as refused:
        load_config(["evaluation.watch=tets"])
    assert "evaluation.monitor_split=tets: allowed is one of" in str(refused.value)
    with pytest.raises(ConfigError) as refused:
        compose_config(["evaluation.watch=test", "los=ldam"])
    assert "evaluation.watch" not in str(refused.value)


def test_former_keys_work_in_a_user_experiment(own, capsys):
    body = "# @package _global_\ndefaults: [{override /method: herbs}]\nmethod: {selection: image_class}\n"
    folder = own("experiment/mine", body + "evaluation: {watch: test}\n")
    config = compose_config(["experiment=mine"], folder)
    assert (config.method.location_rule, config.evaluation.monitor_split) == ("image_class", "test")
    assert "selection" not in config.method
    message = capsys.readouterr().err.splitlines()
    assert len(message) == 2
    assert all(line.startswith("note: in 'experiment/mine': ") for line in message)


def test_former_keys_work_in_a_user_method_and_evaluation(own):
    own("method/mine", "defaults: [herbs]\nname: mine\nselection: random\n")
    own("method/whole", "_target_: ltr.methods.herbs.HERBS\nname: whole\nselection: random\n")
    folder = own("evaluation/mine", "defaults: [default]\nwatch: test\n_allowed_: {watch: [test]}\n")
    config = compose_config(["method=mine", "evaluation=mine"], folder)
    assert (config.method.location_rule, config.evaluation.monitor_split) == ("random", "test")
    assert config.evaluation._allowed_.monitor_split == ["test"]
    assert compose_config(["method=whole"], folder).method.location_rule == "random"


def test_a_later_config_wins_over_a_former_key_of_an_earlier_one(own):
    own("method/mine", "defaults: [herbs]\nname: mine\nselection: random\n")
    folder = own("experiment/later", "# @package _global_\nmethod: {location_rule: image_class}\n")
    assert compose_config(["method=mine", "experiment=later"], folder).method.location_rule == "image_class"


def test_a_config_with_both_spellings_is_refused(own):
    folder = own("evaluation/both", "defaults: [default]\nwatch: test\nmonitor_split: test\n")
    with pytest.raises(ConfigError, match=r"evaluation/both.*one key under its former and its present name. Keep"):
        compose_config(["evaluation=both"], folder)


def test_a_sweep_over_a_former_key_runs_each_value(ltr_train):
    done = ltr_train("-m", "debug=fast", "stages=plan", "evaluation.watch=null,test")
    assert done.code == 0, done.err
    assert done.err.count("evaluation.watch is now called evaluation.monitor_split") == 1
    assert "evaluation.watch=tets" in ltr_train("-m", "debug=fast", "stages=plan", "evaluation.watch=null,tets").err


def test_former_function_names_refer_to_todays_functions():
    from ltr import cli
    from ltr.configuration import check

    assert check.checked is check.check_config
    assert cli.guarded is cli.run_guarded
