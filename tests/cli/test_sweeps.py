"""Sweeps: several runs from one command, one of which may fail."""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import re

import pytest
import yaml

from ltr.cli import _single_run_arguments
from ltr.configuration.command_line import read
from ltr.configuration.configs import conf_directory
from ltr.configuration.overrides import _PLUGINS
from ltr.configuration.parsing import parse
from ltr.configuration.swept_configs import defer_values, jobs_of
from ltr.errors import ConfigError, Interrupted
from ltr.sweeps import _claimed, _remove_empty, check_processes, own_gpu

CONF = conf_directory()

FAST = ("debug=fast", "evaluation.batch_size=400")


def test_two_seeds_give_two_runs(ltr_train):
    done = ltr_train(*FAST, "-m", "seed=0,1")
    assert done.code == 0, done.err
    assert [path.name.partition("-s")[2][0] for path in done.directories] == ["0", "1"]


def test_a_key_of_the_swept_configs_alone_can_be_set(ltr_train):
    done = ltr_train(*FAST, "-m", "method=crt,lws", "method.classifier.optimizer.lr=0.03", "method.classifier.epochs=1")
    assert done.code == 0, done.err
    configs = [yaml.safe_load((path / "config.yaml").read_text())["method"] for path in done.directories]
    assert sorted(config["name"] for config in configs) == ["crt", "lws"]
    assert [config["classifier"]["optimizer"]["lr"] for config in configs] == [0.03, 0.03]


def test_null_next_to_swept_configs_stays_null_in_the_run_and_the_report(ltr_train):
    done = ltr_train(*FAST, "-m", "method=erm,ncm", "sampler.num_samples=null", "trainer.max_epochs=null")
    assert done.code == 2
    assert done.err == "error: the sweep cannot be carried out:\n  trainer.max_epochs=null: allowed is int [1, inf)\n"
    done = ltr_train(*FAST, "-m", "method=erm,ncm", "sampler.num_samples=null")
    assert done.code == 0, done.err
    for path in done.directories:
        assert yaml.safe_load((path / "config.yaml").read_text())["sampler"]["num_samples"] is None
        assert "sampler.num_samples=null" in yaml.safe_load((path / "overrides.yaml").read_text())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("method=posthoc_la,erm", "method.classifier.epochs=1"),
            "  method.classifier.epochs=1: there is no key",
        ),
        (("method=erm,crt", "sampler.q=1"), "  sampler.q=1: there is no key"),
        (("method=crt,lws", "method.classifier.epox=null"), "  method.classifier.epox=null: there is no key"),
        (("method=crt,lws", "method.classifier.epox=1"), "  method.classifier.epox=1: there is no key"),
        (("method=crt,lws", "method.classifier.epochs=-1"), "epochs=-1: allowed is int [1, inf)"),
        (("experiment=[cifar10_lt_erm],[cifar10_lt_crt]", "method.b=1"), "  method.b=1: there is no key"),
        (("method=glob(cr*)", "method.classifier.epox=1"), "  method.classifier.epox=1: there is no key"),
        (("method=glob(xx*)",), "method=glob(xx*): no config fits this pattern; there are: arpl, "),
    ],
)
def test_a_key_is_looked_for_on_the_swept_configs(ltr_train, arguments, words):
    done = ltr_train("-m", *FAST, *arguments)
    assert done.code in (1, 2)
    assert words in done.err
    assert done.directories == []


@pytest.mark.parametrize(
    "text",
    ["paths.data='a b'", "sampler.x=[1,2]", "loss.map={a: 1}", "paths.outputs=${oc.env:HOME}/x", "trainer.a=null",
     "a.b=", "a.b='x,y'", "a.b=-1e-4", "a.b=/x/y.pth", "+a.b=1", "~a.b", "hydra.x=1", "seed=1"],
)  # fmt: skip
def test_a_value_deferred_to_its_job_is_unchanged(text):
    (override,), _ = parse([text])
    configs, waits = defer_values(["method=crt,lws", text], None)
    (then,), _ = parse([waits])
    assert configs == "method=crt,lws"
    assert then.values == (["${oc.decode:null}"] if text.endswith("=null") else override.values)
    plain = "." in text and not text.startswith(("+", "~", "hydra.")) and text != "a.b="
    assert (waits == text) is not plain
    assert defer_values(["seed=0,1", text], None) == ["seed=0,1", text]


def test_every_swept_config_is_checked_with_the_first_value_of_other_swept_keys():
    swept, _ = parse(["loss=ldam,focal_softmax", "loss@method.teacher.loss=triplet,ldam", "experiment=[a,b],[c]"])
    assert jobs_of(swept) == [
        ["loss=ldam", "loss@method.teacher.loss=triplet", "experiment=[a,b]"],
        ["loss=focal_softmax", "loss@method.teacher.loss=triplet", "experiment=[a,b]"],
        ["loss=ldam", "loss@method.teacher.loss=ldam", "experiment=[a,b]"],
        ["loss=ldam", "loss@method.teacher.loss=triplet", "experiment=[c]"],
    ]


def test_a_failing_job_does_not_stop_the_other_and_the_exit_code_is_1(ltr_train):
    done = ltr_train("-m", *FAST, "trainer.selection=best_val,last")
    assert done.code == 1
    assert len(done.directories) == 1
    assert "has no validation images" in done.err
    assert "job 0 (" in done.err
    assert "Traceback" not in done.err


def test_even_an_unforeseen_error_in_a_job_is_reported_and_the_next_job_runs(ltr_train, monkeypatch):
    import ltr.cli

    seeds = []

    def task(config, line):
        seeds.append(config.seed)
        if config.seed == 0:
            raise RuntimeError("a slip of ours")

    monkeypatch.setattr(ltr.cli, "_train_task", task)
    done = ltr_train("-m", "seed=0,1")
    assert done.code == 1
    assert seeds == [0, 1]
    assert "a slip of ours" in done.err
    assert "failed: job 0 (" in done.out
    assert "Traceback" not in done.err


def test_a_signal_ends_the_whole_sweep(ltr_train, monkeypatch):
    import ltr.cli

    seeds = []

    def task(config, line):
        seeds.append(config.seed)
        raise Interrupted(15, "stopped by SIGTERM")

    monkeypatch.setattr(ltr.cli, "_train_task", task)
    done = ltr_train("-m", "seed=0,1")
    assert done.code == 143
    assert seeds == [0]
    assert done.err == "stopped by SIGTERM\n"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["loss=ldam,nope"], "there is no loss 'nope'"),
        (["seed=0,-1", "epochs=3"], "seed=-1: allowed is int [0, inf)"),
        (["seed=0,1,-1"], "job 2 (seed=-1): seed=-1: allowed is int [0, inf)"),
        (["seed=0,-1", "optimizer.lr=0.1,x"], "job 1 (seed=0 optimizer.lr=x) and 1 more: optimizer.lr=x: allowed is"),
        (["seed=0,1", "optimizer.lr=-1"], "\n  optimizer.lr=-1: allowed is (0, inf)"),  # as of every job
        (["+launcher=local", "seed=0,-1"], "job 1 (seed=-1): seed=-1: allowed is"),
        (["hydra.sweeper.max_batch_size=1", "seed=0,-1"], "job 1 (seed=-1): seed=-1: allowed is"),
        (["hydra/launcher=joblib", "seed=0,-1"], "job 1 (seed=-1): seed=-1: allowed is"),
        (["seed=0,1", "trainer.devices=1,2"], "job 1 (seed=0 trainer.devices=2) and 1 more: trainer.devices=2"),
        (["seed=0,1", "+loss.foo=1"], "loss.foo=1: ltr.losses.classification.CrossEntropy has no such argument"),
        (["sweep=beta", "loss.beta=0.9,2"], "job 1 (loss.beta=2): loss.beta=2: allowed is"),
    ],
)
def test_a_wrong_sweep_is_refused_before_its_first_job(refused, overrides, words):
    done = refused("-m", *overrides)
    assert done.code == 2
    assert words in done.err
    assert not [path for path in done.left if "digits" in path]


def test_jobs_with_new_values_are_checked_first_and_for_a_limited_time(ltr_train, monkeypatch, capsys):
    from ltr import sweep_jobs

    jobs = [[f"seed={seed}", f"loss={loss}"] for seed in (0, 1) for loss in ("a", "b", "c")]
    assert sweep_jobs.new_values_first(jobs) == [0, 1, 2, 3, 4, 5]  # job 3 has the first new seed
    assert sweep_jobs.new_values_first([[job[1], job[0]] for job in [*jobs, ["seed=2", "loss=a"]]]) == [
        *(0, 1, 2, 3, 6, 4, 5),
    ]
    monkeypatch.setattr(sweep_jobs, "MOST_SECONDS", 0.0)
    done = ltr_train("-m", *FAST, "stages=plan", "seed=0,-1")
    assert "1 of 2 jobs were checked in 0 s" in done.out
    assert (done.code, "seed=-1: allowed is" in done.err) == (1, True)  # in its turn


def table_of(done):
    """Return the lines after the output of the last run."""
    (folder,) = (done.outputs / "sweeps").iterdir()
    table = (folder / "table.txt").read_text().splitlines()
    assert done.out.splitlines()[-len(table) :] == table
    return table


def test_a_sweep_ends_with_one_table_a_line_per_setting(ltr_train):
    done = ltr_train(*FAST, "-m", "loss=cross_entropy,balanced_softmax", "seed=0,1", "dataset.val=train_fraction")
    table = table_of(done)
    assert {word for line in table[1:3] for word in line.split() if word.startswith("loss=")} == {
        "loss=cross_entropy",
        "loss=balanced_softmax",
    }
    assert all(line.count("±") == 5 for line in table[1:3])
    # limited runs, as those of debug=fast, are marked; where all are limited alike, one may be the best
    assert sorted(line.split()[0] for line in table[1:3]) == ["*†", "†"]
    assert any(line.startswith("† limited: 2 batches an epoch") for line in table)
    assert "stages: 4 trained or computed, 0 from the cache" in table[3]


def test_the_same_sweep_again_trains_nothing_and_has_the_same_numbers(ltr_train):
    command = (*FAST, "-m", "method=erm,tau_norm")
    first = ltr_train(*command)
    (folder,) = (first.outputs / "sweeps").iterdir()
    before = (folder / "table.txt").read_text().splitlines()
    folder.rename(first.outputs / "first")
    again = table_of(ltr_train(*command))
    assert (
        "stages: 2 trained or computed, 1 from the cache" in before[3]
    )  # representation and tau; the representation again
    assert "stages: 0 trained or computed, 3 from the cache" in again[3]
    assert again[:3] == before[:3]


def test_a_failed_job_has_a_row_in_the_table(ltr_train):
    done = ltr_train("-m", *FAST, "trainer.selection=best_val,last")
    table = table_of(done)
    assert table[-1].startswith("failed: job 0 (")
    assert "has no validation images" in table[-1]
    assert "Error executing" not in done.err


def test_a_second_sweep_in_a_folder_has_a_table_of_its_own(ltr_train, tmp_path):
    folder = tmp_path / "sweep"
    first = ltr_train(*FAST, "-m", "seed=0,1", f"hydra.sweep.dir={folder}")
    second = ltr_train(*FAST, "-m", "seed=2", "trainer.max_epochs=2", f"hydra.sweep.dir={folder}")
    assert (first.code, second.code) == (0, 0)
    assert f"{folder} is the folder of another sweep: the table of this one is in sweep-2" in second.out
    numbers = [sorted(path.name for path in one.glob("jobs/*.json")) for one in (folder, tmp_path / "sweep-2")]
    assert numbers == [["00000.json", "00001.json"], ["00000.json"]]
    assert (tmp_path / "sweep-2" / "table.txt").read_text() != (folder / "table.txt").read_text()


def test_sweeps_that_start_at_once_claim_different_folders(tmp_path):
    wanted = tmp_path / "outputs" / "sweeps" / "now"
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        folders = [folder for folder, _ in pool.map(_claimed, [wanted] * 8)]
    assert sorted(folders, key=str) == [wanted, *(wanted.with_name(f"now-{number}") for number in range(2, 9))]


def test_a_sweep_folder_that_cannot_be_made_is_refused_in_one_line(ltr_train, tmp_path, recwarn):
    (tmp_path / "file").write_text("")
    done = ltr_train(*FAST, "-m", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'file'}")
    assert done.code == 1
    assert "the sweep's folder" in done.err
    assert [str(one.message) for one in recwarn if "Callback" in str(one.message)] == []


def test_a_sweep_that_is_refused_leaves_no_folder(refused, tmp_path):
    refused(*FAST, "-m", "seed=0,x", f"paths.outputs={tmp_path / 'outputs'}")
    refused(*FAST, "-m", "method=erm,nix", f"paths.outputs={tmp_path / 'outputs'}")
    assert not (tmp_path / "outputs").exists()
    (_, made) = _claimed(tmp_path / "outputs" / "sweeps" / "now")
    _remove_empty(made)
    assert not (tmp_path / "outputs").exists()


def test_a_sweep_of_plans_has_no_table(ltr_train):
    done = ltr_train("-m", *FAST, "stages=plan", "seed=0,1")
    assert done.code == 0, done.err
    assert not list((done.outputs / "sweeps").glob("*/table.txt"))
    titles = [line for line in done.out.splitlines() if line.startswith("job ")]
    assert titles == ["job 0 (seed=0):", "job 1 (seed=1):"]


@pytest.mark.parametrize(
    ("config", "more", "swept"),
    [
        ("beta", (), "loss.beta=0.9999"),
        ("tau", (), "method.tau=0.7"),
        ("tau", ("method=posthoc_la",), "method.tau=1.0"),
    ],
)
def test_a_sweep_config_needs_no_multirun_flag(ltr_train, config, more, swept):
    done = ltr_train(*FAST, f"+sweep={config}", *more, "stages=plan")
    assert done.code == 0, done.err
    parameters = yaml.safe_load((CONF / "sweep" / f"{config}.yaml").read_text())["hydra"]["sweeper"]["params"]
    (values,) = parameters.values()
    assert done.out.count("representation") == len(values.split(","))
    assert swept.split("=")[1] in values.split(",")


@pytest.mark.parametrize("config", ["+sweep=two_b0", "sweep=two_b0"])
def test_the_command_line_and_experiments_override_a_sweep_config(ltr_train, tmp_path, config):
    (tmp_path / "experiment").mkdir()
    choices = "defaults:\n  - override /dataset: digits_bg\n  - override /method: background_splitting\n"
    own = f"# @package _global_\n{choices}name: mine\ntrainer:\n  max_epochs: 7\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(own)
    (tmp_path / "sweep").mkdir()
    other = "# @package _global_\ndefaults:\n  - override /dataset: digits_lt\nhydra:\n  mode: MULTIRUN\n"
    (tmp_path / "sweep" / "two_b0.yaml").write_text(f"{other}  sweeper:\n    params:\n      method.b0: 0,1\n")
    done = ltr_train("--config-dir", str(tmp_path), config, "experiment=mine", "stages=plan")
    assert done.code == 0, done.err  # digits_lt has no background
    assert done.out.count("7 epochs") == 2
    done = ltr_train("--config-dir", str(tmp_path), config, "method=background_splitting", "stages=plan")
    assert "needs data with a background class" in done.err


def test_each_job_of_a_sweep_config_is_a_run_with_the_values_of_the_config(ltr_train):
    """The arguments for the processes of a job."""
    line = read(["+sweep=b0", "dataset=digits_bg", "method.b0=0.5"])
    done = ltr_train(*_single_run_arguments(line), "stages=plan")
    assert done.code == 0, done.err
    assert done.out.count("representation") == 1  # one run, and with the config's method


@pytest.mark.parametrize("launcher", ["BasicLauncher", "JoblibLauncher", "ParallelLauncher"])
@pytest.mark.parametrize("asked", [{"devices": 2}, {"strategy": "ddp"}])
def test_several_processes_inside_a_sweep_are_refused_with_advice(launcher, asked):
    config = {"trainer": {"devices": asked.get("devices", 1)}, "strategy": {"name": asked.get("strategy", "auto")}}
    with pytest.raises(ConfigError, match="submitit_slurm"):
        check_processes(config, launcher)
    check_processes(config, "SlurmLauncher")  # starts the processes itself


def test_each_process_of_a_parallel_sweep_uses_another_gpu(monkeypatch):
    for number, name in enumerate(["LokyProcess-1", "LokyProcess-2", "LokyProcess-4", "MainProcess"]):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
        monkeypatch.setattr(multiprocessing.current_process(), "_name", name)
        own_gpu()
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ["4", "5", "4", "4,5,6"][number]
        own_gpu()  # the next job of the same process
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ["4", "5", "4", "4,5,6"][number]


def test_jobs_in_other_processes_share_stages_and_have_rows_in_the_table(ltr_train):
    done = ltr_train(*FAST, "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "method=erm,tau_norm,ncm")
    assert done.code == 0, done.err
    (table,) = (done.outputs / "sweeps").glob("*/table.txt")
    assert "stages: 3 trained or computed, 2 from the cache" in table.read_text()  # one representation, tau, means


def test_local_jobs_share_stages_and_a_wrong_one_is_named(ltr_train):
    selections = "trainer.selection=last,best_val"  # digits_lt has no validation images
    done = ltr_train(*FAST, "-m", "+launcher=local", "method=erm,tau_norm", selections)
    assert done.code == 1
    table = table_of(done)
    assert any("stages: 2 trained or computed, 1 from the cache" in line for line in table)  # one representation, tau
    assert [line for line in table if line.startswith("failed: job ")] == table[-2:]
    assert done.err.count("has no validation images") == 2
    assert "job 1 (method=erm trainer.selection=best_val): error: " in done.err
    assert "job 2 (method=tau_norm trainer.selection=last): finished in " in done.out
    assert "Traceback" not in done.err
    (log,) = (done.outputs / "sweeps").glob("*/jobs/00000.log")
    assert "bACC" in log.read_text()


@pytest.mark.parametrize(
    ("override", "rule"),
    [
        ("n_jobs=0", "n_jobs=0: allowed is int [1, inf) or auto"),
        ("threads=many", "threads=many: allowed is int [1, inf) or auto"),
        ("jobs_per_gpu=auto", "jobs_per_gpu=auto: allowed is int [1, inf)"),
        ("njobs=2", "hydra.launcher.njobs"),
    ],
)
def test_wrong_numbers_of_a_local_sweep_are_refused_before_any_job(ltr_train, override, rule):
    done = ltr_train("-m", "+launcher=local", f"+hydra.launcher.{override}" if "njobs" in override else
                     f"hydra.launcher.{override}", "seed=0,1")  # fmt: skip
    assert done.code == 2
    assert rule in done.err
    assert not done.outputs.exists()


def test_jobs_of_a_queue_have_rows_in_the_table(ltr_train):
    done = ltr_train(*FAST, "-m", "hydra/launcher=submitit_local", "seed=0")
    assert done.code == 0, done.err
    assert "stages: 1 trained or computed" in next((done.outputs / "sweeps").glob("*/table.txt")).read_text()


SEARCH = ("+sweep=optuna", "hydra.sweeper.n_trials=2", "optimizer.lr=interval(0.01,0.3)")


@pytest.mark.parametrize("launcher", [(), ("+launcher=local", "hydra.sweeper.n_jobs=2")])
def test_a_search_maximises_the_metric_on_validation_images(ltr_train, launcher):
    done = ltr_train(*FAST, *SEARCH, *launcher, "dataset.val=train_fraction")
    assert done.code == 0, done.err
    (folder,) = (done.outputs / "sweeps").iterdir()
    search = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    on_val = [
        row["metrics"]["balanced_accuracy"]
        for directory in done.directories
        for row in json.loads((directory / "result.json").read_text())["rows"]
        if row["split"] == "val"
    ]
    assert len(on_val) == 2
    assert search["best_value"] == max(on_val)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((*SEARCH, "dataset.val=none"), "Set dataset.val=train_fraction"),
        (("-m", "hydra/sweeper=optuna", *SEARCH[1:], "dataset.val=train_fraction"), "+sweep=optuna"),
    ],
)
def test_a_search_without_a_validation_metric_is_refused(ltr_train, overrides, words):
    done = ltr_train(*FAST, *overrides)
    assert done.code == (2 if "dataset.val=none" in overrides else 1)
    assert words in done.err
    assert done.directories == []


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("+sweep=tau", "method=erm"), "+sweep=tau sets method.tau, which method=erm does not have. Choose a method"),
        (("+sweep=n_foreground", "dataset=digits_lt"), "dataset=NAME: digits_bg, cifar100_bg"),
        (("-m", "optimizer.lr=interval(0.01,0.3)"), "Add +sweep=optuna"),
        (("optimizer.lr=interval(0.01,0.3)",), "Add +sweep=optuna"),
        (SEARCH, "leave +sweep=optuna out"),
        (("-m", "hydra/sweeper=optuna", "seed=0,1"), "leave hydra/sweeper=optuna out"),
        ((*SEARCH[:2], "dataset.val=train_fraction"), "no key has values to search"),
        ((*SEARCH, "dataset.val=train_fraction", "stages=plan"), "a plan trains nothing"),
    ],
)
def test_a_sweep_whose_jobs_would_all_fail_is_refused_once_before_the_first(ltr_train, overrides, words):
    done = ltr_train(*overrides)
    assert done.code == 2
    assert done.err.count(words) == 1
    assert len(done.err.splitlines()) == 2
    assert not done.outputs.exists()


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "sweep").glob("*.yaml")))
def test_every_shipped_sweep_names_the_configs_that_have_its_keys(refused, name):
    if name in ("optuna", "beta"):  # the first sets no key, the second one that every shipped loss has
        return
    done = refused(f"+sweep={name}", "method=erm", "dataset=digits_lt")
    assert f"+sweep={name} sets " in done.err
    assert re.search(r"Choose a (method|dataset) that has it, \w+=NAME: \w+", done.err)


def test_a_missing_plugin_is_refused_with_the_package_to_install(refused, monkeypatch):
    assert set(_PLUGINS) == {"joblib", "optuna", "submitit_local", "submitit_slurm"}
    monkeypatch.setitem(_PLUGINS, "made_up", "sweep")  # those of the extras are installed here
    assert "pip install 'ltr[sweep]'" in refused("-m", "hydra/launcher=made_up", "seed=0,1").err


def test_a_sweep_over_a_nested_choice_gives_each_job_its_config(ltr_train):
    swept = ["-m", "method=crt", "method.classifier.optimizer=sgd,adamw"]
    done = ltr_train(*swept, "method.classifier.optimizer.lr=0.02", "stages=plan")
    assert done.code == 0, done.err
    plans = [line.split()[1] for line in done.out.splitlines() if line.startswith("classifier")]
    assert len(set(plans)) == 2


def test_a_sweep_for_slurm_off_slurm_is_refused_before_any_job(ltr_train, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    run = ltr_train("-m", "hydra/launcher=submitit_slurm", "seed=0,1")
    assert run.code == 2
    assert "srun and sbatch not found" in run.err
    assert not (tmp_path / "outputs").exists()
