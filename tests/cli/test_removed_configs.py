"""Commands that name a config of an earlier version: each is answered with what replaces it."""

from __future__ import annotations

import pytest

from ltr.configuration.configs import conf_directory

TRIAL = "there is no dataset 'inat_bg_1_3' any more. Write dataset=inat_bg_1 dataset.trial=3 instead"


@pytest.mark.parametrize(
    "arguments",
    [["dataset=inat_bg_1_3"], ["-m", "dataset=inat_bg_1_3", "seed=0,1"], ["-m", "dataset=digits,inat_bg_1_3"]],
)
def test_a_removed_data_set_is_refused_with_the_new_command(refused, arguments):
    assert TRIAL in refused(*arguments).err


def test_ltr_data_refuses_a_removed_data_set_with_the_new_command(capsys, monkeypatch, tmp_path):
    from ltr.commands.data import main

    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match=r"Write dataset=inat_bg_1 dataset\.trial=3 instead"):
        main(["describe", "inat_bg_1_3"])


@pytest.mark.parametrize(("name", "shared"), [("cifar10_lt", "cifar"), ("imagenet_lt_open", "imagenet_lt")])
def test_a_removed_recipe_is_refused_with_the_shared_one(refused, name, shared):
    message = f"there is no recipe '{name}' any more. Write recipe/shared={shared} instead"
    assert message in refused(f"recipe={name}").err


def test_an_unknown_shared_recipe_is_refused_with_the_list_of_recipes(refused):
    done = refused("recipe/shared=cifr")
    assert "there is no recipe/shared 'cifr'. Did you mean 'cifar'? There are: cifar," in done.err
    assert "Did you mean 'cifar'?" in done.err


def test_a_primary_config_without_shared_recipes_is_refused_with_the_line_to_add(refused, tmp_path):
    text = (conf_directory() / "train.yaml").read_text()
    kept = [line for line in text.splitlines() if "recipe/shared" not in line]
    (tmp_path / "mine.yaml").write_text("\n".join(kept) + "\n")
    done = refused(f"--config-dir={tmp_path}", "--config-name=mine", "dataset=cifar10_lt")
    assert "Add '- recipe/shared: null' to its defaults list, before the data set" in done.err
