"""Keys: the same for the same thing, another for anything that matters, unmoved by what does not."""

import copy
import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from ltr.configuration.configs import digest
from ltr.data.source import Source
from ltr.data.split import Split
from ltr.former_paths import LATER_OPTIONS
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Stage
from ltr.runs.keys import array_digest, group_hash, run_hash, stage_key, stage_spec, without_unset

SETTINGS = Settings(
    sampler={"_target_": "ltr.data.sampling.samplers.Instance"},
    loss={"_target_": "ltr.losses.classification.CrossEntropy"},
    augment={"pad": 4},
    head={"bias": True},
    backbone={"depth": 32, "weights": None},
    optimizer={"lr": 0.1},
    scheduler={"gamma": 0.1},
    epochs=10,
    batch_size=128,
    precision="fp32",
    selection="last",
)
DATASET_INFO = DatasetInfo((1, 2, 2), (0.5,), (0.25,), ("a", "b"), (2, 2))
OTHER = {
    "epochs": 11,
    "batch_size": 64,
    "precision": "bf16",
    "selection": "best_val",
    "accumulate": 2,
    "gradient_clip": 1.0,
    "ema_decay": 0.999,
    "ema_warmup": True,
    "limit_train_batches": 2,
    "extras": ({"_target_": "ltr.methods.distillation.terms.Any"},),
    "features": {"name": "stored", "views": 0, "standardize": True, "solver": "minibatch"},
    "tune": {"_target_": "ltr.models.tuning.TuneNorm"},
    "sharpness": {"_target_": "ltr.optim.sharpness.SAM", "rho": 0.1},
    "views": ({"_target_": "ltr.data.augmentation.augment.Augmentation", "flip": True},),
}


def source():
    return Source("tiny", np.zeros((6, 2, 2, 1), np.uint8), np.arange(6) % 2, ("a", "b"), {"train": range(6)})


def split(**changes):
    nothing = np.empty(0, np.int64)
    fields = {"train": np.arange(4), "val": nothing, "test": np.arange(4, 6), "unknown": nothing}
    fields |= {"label_map": np.arange(2), "class_names": ("a", "b"), "class_counts": np.array([2, 2]), "name": "s"}
    return Split(**{**fields, **changes})


def key(settings=SETTINGS, *, seed=0, role="representation", options=None, parents=None, one_split=None, **more):
    stage = Stage("s", role, settings, ImageClassifier, parents=tuple(parents or ()), options=options or {})
    dataset_info, world = more.get("facts", DATASET_INFO), more.get("world", 1)
    return stage_key(
        stage_spec(stage, seed, source(), one_split or split(), dataset_info, parents or {}, {"world_size": world})
    )


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Settings)])
def test_every_setting_changes_the_key(field):
    value = getattr(SETTINGS, field)
    other = {**value, "another": 1} if isinstance(value, dict) else OTHER[field]
    assert key(SETTINGS.replaced(**{field: other})) != key()


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"role": "another"},
        {"options": {"trainable": "head"}},
        {"parents": {"representation": "0" * 64}},
        {"one_split": split(train=np.arange(3))},
        {"one_split": split(label_map=np.array([1, 0]))},
        {"world": 2},
        {"facts": dataclasses.replace(DATASET_INFO, mean=(0.4,))},
        {"facts": dataclasses.replace(DATASET_INFO, std=(0.3,))},
        {"facts": dataclasses.replace(DATASET_INFO, image_shape=(1, 4, 4))},
        {"facts": dataclasses.replace(DATASET_INFO, image_resize=256)},
    ],
)
def test_everything_else_that_determines_a_stage_changes_the_key(changes):
    assert key(**changes) != key()


@pytest.mark.parametrize(
    "changes", [{"test": np.arange(5, 6)}, {"val": np.arange(4, 5)}, {"name": "renamed"}, {"unknown": np.arange(5, 6)}]
)
def test_images_outside_the_training_set_do_not_change_the_key(changes):
    assert key(one_split=split(**changes)) == key()


def test_validation_images_count_where_they_select_the_weights():
    selecting = SETTINGS.replaced(selection="best_val")
    assert key(selecting, one_split=split(val=np.arange(4, 5))) != key(selecting)


def test_the_order_of_keys_does_not_matter():
    assert digest({"a": 1, "b": [1.5, None]}) == digest({"b": [1.5, None], "a": 1})


def test_rules_of_a_config_do_not_change_the_key():
    config = {**SETTINGS.loss, "_allowed_": {"beta": "[0, 1)"}}
    assert key(SETTINGS.replaced(loss=config)) == key()


def test_a_weights_file_counts_by_its_content_not_its_path(tmp_path):
    for name, content in (("a.pth", b"1"), ("b.pth", b"1"), ("c.pth", b"2")):
        (tmp_path / name).write_bytes(content)
    keys = [key(SETTINGS.replaced(backbone={"depth": 32, "weights": str(tmp_path / f"{n}.pth")})) for n in "abc"]
    assert keys[0] == keys[1] != keys[2]


def test_what_only_several_processes_compute_differently_leaves_the_keys_of_one(monkeypatch):
    before = [key(world=world) for world in (1, 2)]
    monkeypatch.setattr(ImageClassifier, "distributed_numerics_version", 2)
    after = [key(world=world) for world in (1, 2)]
    assert [one == other for one, other in zip(before, after)] == [True, False]


def test_keys_are_the_same_in_another_process():
    code = (
        "from ltr.configuration import configs; print(configs.digest({'z': 0.1, 'a': [1, None, True], 'm': {'y': 2}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest({"m": {"y": 2}, "a": [1, None, True], "z": 0.1})


def test_arrays_of_other_widths_have_the_same_digest():
    assert array_digest(np.arange(5, dtype=np.int32)) == array_digest(np.arange(5))


CONFIG = {
    "seed": 0,
    "name": "erm",
    "trainer": {"max_epochs": 3, "num_workers": 2, "log_every": 50, "profiler": None},
    "dataset": {"name": "d", "source": {"root": "data", "download": False, "_target_": "x"}},
    "paths": {"data": "data"},
    "logger": {"name": "csv"},
    "evaluation": {"batch_size": 1000, "many_above": 100},
    "figures": "two",
    "callbacks": {},
    "checkpoint": {},
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("paths", "data"), "/elsewhere"),
        (("dataset", "source", "root"), "/elsewhere"),
        (("logger", "name"), "wandb"),
        (("figures",), "none"),
        (("trainer", "num_workers"), 8),
        (("evaluation", "batch_size"), 10),
    ],
)
def test_paths_and_display_options_do_not_change_the_run_hash(path, value):
    assert run_hash(changed(path, value)) == run_hash(CONFIG)


@pytest.mark.parametrize(
    ("path", "value"), [(("seed",), 1), (("trainer", "max_epochs"), 4), (("dataset", "name"), "e")]
)
def test_options_that_change_the_result_change_the_run_hash(path, value):
    assert run_hash(changed(path, value)) != run_hash(CONFIG)


def test_a_group_is_a_run_without_its_seed():
    assert group_hash(changed(("seed",), 1)) == group_hash(CONFIG)
    assert group_hash(changed(("name",), "x")) != group_hash(CONFIG)


def changed(path, value):
    config = copy.deepcopy(CONFIG)
    node = config
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return config


def test_a_learning_rate_option_added_later_is_in_the_key_only_if_set():
    old = {**CONFIG, "optimizer": {"lr": 0.1}, "method": {"classifier": {"optimizer": {"lr": 0.1}}}}
    unset = {"optimizer": {"lr": 0.1, "extra_lr": None}}
    assert run_hash({**old, **unset, "method": {"classifier": unset}}) == run_hash(old)
    assert run_hash({**old, "optimizer": {"lr": 0.1, "extra_lr": 1e-6}}) != run_hash(old)
    assert key(dataclasses.replace(SETTINGS, **unset)) == key()
    assert key(dataclasses.replace(SETTINGS, optimizer={"lr": 0.1, "extra_lr": 1e-6})) != key()


def test_matte_and_white_level_are_in_the_key_only_if_set():
    target = "ltr.data.sources.table.image_table"
    config = {"name": "own", "source": {"_target_": target}}
    unset = {**config, "matte": None, "source": {"_target_": target, "matte": None, "white_level": None}}
    assert run_hash({**CONFIG, "dataset": unset}) == run_hash({**CONFIG, "dataset": config})
    assert run_hash({**CONFIG, "dataset": {**config, "matte": "white"}}) != run_hash({**CONFIG, "dataset": config})


def test_a_checkpoint_describes_the_matte_where_there_is_one():
    plain = DATASET_INFO.to_dict()
    assert not {"matte", "white_level"} & set(plain)
    assert DatasetInfo.from_dict(plain) == DATASET_INFO
    white = dataclasses.replace(DATASET_INFO, matte=(255, 255, 255), white_level=4095)
    assert DatasetInfo.from_dict(json.loads(json.dumps(white.to_dict()))) == white


def test_a_weights_map_is_in_the_key_only_if_set(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"weights")
    config = {"depth": 32, "weights": str(tmp_path / "a.pth")}
    unset, named = {**config, "weights_map": None}, {**config, "weights_map": "m2m"}
    assert key(SETTINGS.replaced(backbone=unset)) == key(SETTINGS.replaced(backbone=config))
    assert key(SETTINGS.replaced(backbone=named)) != key(SETTINGS.replaced(backbone=config))
    assert run_hash({**CONFIG, "backbone": unset}) == run_hash({**CONFIG, "backbone": config})


@pytest.mark.parametrize(("name", "value"), [(name, values[0]) for name, values in LATER_OPTIONS.items()])
def test_options_of_other_code_count_even_under_the_name_of_a_later_option(name, value):
    own = {"_target_": "mine.Loss", name: value, "inner": {name: value}}
    assert without_unset({"loss": own}) == {"loss": own}
    part = {"_target_": "ltr.losses.classification.CrossEntropy", name: value}
    assert without_unset({**own, "part": part})["part"] == {"_target_": part["_target_"]}
    for target in ("ltr.losses.classification.CrossEntropy", "loss/cross_entropy"):
        assert without_unset({"_target_": target, name: value, "inner": {name: value}}) == {
            "_target_": target,
            "inner": {},
        }
    assert without_unset({"evaluation": {name: value}}) == {"evaluation": {}}
