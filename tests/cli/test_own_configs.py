"""A user's own configs, code and splits: from a folder, a package, a file that the command names, never otherwise."""

from __future__ import annotations

import pytest

PLAN = "stages=plan"


@pytest.fixture
def own_configs(tmp_path, own_code):
    """A folder of configs with a user loss; returns the flag that names it."""
    folder = tmp_path / "my_conf"
    for group, config in {
        "loss/mine": f"_target_: {own_code}.losses.Mine\nwidth: 3\n_allowed_:\n  width: 'int [1, inf)'\n",
        "loss/broken": f"_target_: {own_code}.broken.Mine\n",
        "loss/open": f"_target_: {own_code}.losses.Mine\nwidth: ???\n",
        "loss/torn": "_target_: [\n",
        "recipe/mine": "# @package _global_\ntrainer:\n  max_epochs: 7\n",
        "trainer/short": "accelerator: cpu\nmax_epoch: 3\n",
    }.items():
        path = folder / f"{group}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(config)
    return f"--config-dir={folder}"


def test_a_user_loss_is_trained_with_if_its_package_is_allowed(ltr_train, own_configs):
    done = ltr_train(own_configs, "--allow", "my_project", "loss=mine", "recipe=mine", "debug=fast")
    assert done.code == 0, done.err
    assert done.result["config"]["loss._target_"] == "my_project.losses.Mine"
    assert f"predict: ltr-predict {done.directory} IMAGES --allow my_project\n" in done.out


def test_a_run_of_own_code_is_named_once_where_its_package_is_not_allowed(ltr_train, ltr_eval, own_configs):
    done = ltr_train(own_configs, "--allow", "my_project", "loss=mine", "debug=fast")
    code, _, err = ltr_eval(done.directory)
    assert code == 1
    assert "_target_=my_project.losses.Mine: not in an allowed package" in err
    assert err.count("final.ckpt") <= 1


def test_a_user_recipe_is_applied(ltr_train, own_configs):
    assert "7 epochs" in ltr_train(own_configs, "recipe=mine", PLAN).out


def test_a_user_loss_is_refused_without_allow(refused, own_configs):
    done = refused(own_configs, "loss=mine", PLAN)
    assert "loss._target_=my_project.losses.Mine: not in an allowed package" in done.err
    assert "--allow PREFIX" in done.err


def test_an_allowed_package_is_not_allowed_in_the_next_command(ltr_train, refused, own_configs):
    assert ltr_train(own_configs, "--allow", "my_project", "loss=mine", PLAN).code == 0
    refused(own_configs, "loss=mine", PLAN)


def test_the_environment_can_allow_a_package(ltr_train, own_configs, monkeypatch):
    monkeypatch.setenv("LTR_ALLOW", "my_project")
    assert ltr_train(own_configs, "loss=mine", PLAN).code == 0


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["loss=mien", "recipe=mine"], "there is no loss 'mien'"),
        (["loss=mine", "loss.widht=1"], "Did you mean 'loss.width'?"),
        (["loss=mine", "epochs=1", "loss.width=0"], "loss.width=0: allowed is int [1, inf)"),
        (["loss=open"], "loss.width=???: its config leaves it open; give it a value"),
        (["loss=broken"], "importing my_project.broken fails: RuntimeError: half of a sentence"),
        (["loss=torn"], "torn.yaml"),
        (["recipe=mien"], "Did you mean 'mine'?"),
        (["trainer=short"], "trainer.max_epoch=3: nothing reads it"),
    ],
)
def test_mistakes_in_user_configs_are_explained(refused, own_configs, overrides, words):
    assert words in refused(own_configs, "--allow", "my_project", *overrides, PLAN).err


def test_a_target_in_a_missing_package_is_refused(refused):
    done = refused("--allow", "no_such_package", "loss._target_=no_such_package.Loss", PLAN)
    assert "no_such_package" in done.err


def test_a_run_with_the_split_file_of_another_run_shares_its_stages(ltr_train, tmp_path):
    ltr_train("trainer.max_epochs=1", "dataset.imbalance_factor=30")
    file = next(tmp_path.glob("outputs/*/*/*/split.npz"))
    again = ltr_train("trainer.max_epochs=1", f"+dataset.split_file={file}", PLAN)
    assert again.code == 0, again.err
    assert "cached" in again.out
    assert "to train" not in again.out


def test_a_missing_split_file_is_named(ltr_train, tmp_path):
    done = ltr_train("+dataset.split_file=nowhere.npz", PLAN)
    assert done.code == 1
    assert done.err.strip() == "error: there is no split file nowhere.npz"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"\xff\xfe", "is not text in UTF-8"),
        (b"a: &x [*x]\n", "refer to each other in a circle"),
        (b"defaults:\n  - other\n", "refer to each other in a circle"),
    ],
)
def test_a_config_file_that_cannot_be_read_is_explained(ltr_train, tmp_path, text, reason):
    folder = tmp_path / "configs" / "method"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_bytes(text)
    (folder / "other.yaml").write_text("defaults:\n  - mine\n")
    finished = ltr_train(f"--config-dir={tmp_path / 'configs'}", "method=mine", "stages=plan")
    assert finished.code == 2
    assert reason in finished.err
