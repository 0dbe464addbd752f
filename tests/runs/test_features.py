"""Runs on stored features: extracted once, never those of others, and the same classifier as on images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from killed_extraction import killed_extraction
from ltr.configuration.targets import locate
from ltr.data.loaders import feature_table
from ltr.data.sources.digits import digits
from ltr.methods.core.checkpoint import load_network
from ltr.runs import features as features_stage
from ltr.runs.check_features import METHODS as METHODS_OF_MESSAGE
from ltr.runs.store import RECORD, StageStore
from resuming import weights

DIGITS = ["trainer.precision=fp32", "trainer.max_epochs=2", "features=stored"]
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*(at random values|of a random backbone).*"),
    pytest.mark.filterwarnings("ignore:.*tau=.* is the best.*"),
]
METHODS = {
    "erm": [],
    "balanced softmax": ["loss=balanced_softmax"],
    "ldam": ["loss=ldam"],
    "crt": ["method=crt", "method.classifier.epochs=1"],
    "lws": ["method=lws", "method.classifier.epochs=1"],
    "tau_norm": ["method=tau_norm"],
    "ncm": ["method=ncm"],
    "posthoc_la": ["method=posthoc_la"],
    "smote": ["method=smote", "method.space=feature", "method.classifier.epochs=1"],
    "arpl": ["dataset=digits_open", "method=arpl"],
    "rpl": ["dataset=digits_open", "method=rpl"],
    "gcpl": ["dataset=digits_open", "method=gcpl"],
    "triplet": ["dataset=digits_retrieval", "method=triplet"],
    "background_splitting": ["dataset=digits_bg", "method=background_splitting", "method.aux.partition=kmeans",
                             "method.aux.features=pixels", "method.aux.groups=10"],
}  # fmt: skip


@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS.keys())
def test_a_checkpoint_trained_on_stored_features_predicts_images(ltr_train, ltr_eval, options):
    run = ltr_train(*DIGITS, *options)
    assert run.code == 0, run.err
    assert "images to compute" in run.out
    code, _, err = ltr_eval(run.directory)
    assert code == 0, err
    network = load_network(run.directory / "checkpoints" / "final.ckpt")
    images = torch.zeros(2, *network.dataset_info.image_shape, dtype=torch.uint8)
    unit = network.to_unit(images)
    with torch.no_grad():
        of_features = network.predict_headline(network.backbone(network.normalise(unit)))
        of_images = network.predict_headline(images)
    assert torch.allclose(of_images.features, of_features.features)
    assert torch.allclose(of_images.logits, of_features.logits)


def test_methods_seeds_and_losses_share_one_feature_extraction(ltr_train, tmp_path):
    weights_file = tmp_path / "backbone.ckpt"
    first = ltr_train("trainer.max_epochs=1", "trainer.precision=fp32", outputs=tmp_path / "first")
    shutil.copy(first.directory / "checkpoints" / "final.ckpt", weights_file)
    command = [*DIGITS, f"backbone.weights={weights_file}"]
    runs = [
        ltr_train(*command, *options)
        for options in ([], ["seed=1"], ["loss=balanced_softmax"], ["method=ncm"], ["method=posthoc_la"])
    ]
    assert [run.code for run in runs] == [0] * 5, runs[-1].err
    assert ["images to compute" in run.out for run in runs] == [True, False, False, False, False]
    assert "cached stage" in runs[1].out


def test_another_split_of_the_source_computes_only_missing_features(ltr_train, tmp_path):
    command = [*DIGITS, "seed=3"]
    assert "900 images to compute" in ltr_train(*command).out
    out = ltr_train(*command, "dataset.imbalance_factor=10").out
    assert "images to compute, 900 are stored" in out


def test_features_of_other_weights_or_pixels_are_not_used(ltr_train):
    ltr_train(*DIGITS)
    for change in ("seed=1", "dataset.mean=[0.4]", "trainer.precision=bf16"):  # random weights follow the seed
        run = ltr_train(*DIGITS, change)
        assert "900 images to compute (" in run.out, change


def test_a_head_on_stored_features_equals_a_head_on_images_with_a_frozen_backbone(ltr_train, plain, tmp_path):
    (tmp_path / "configs" / "backbone" / "frozen.yaml").write_text("_target_: plain_network.FrozenNet\n")
    command = [plain[0], "backbone=frozen", "augment=none", "trainer.precision=fp32", "trainer.max_epochs=3"]
    frozen = ltr_train(*command, outputs=tmp_path / "images")
    stored = ltr_train(*command, "features=stored", "features.standardize=false", outputs=tmp_path / "stored")
    assert (frozen.code, stored.code) == (0, 0), stored.err
    actual, expected = weights(stored.directory), weights(frozen.directory)
    assert actual.keys() == expected.keys()
    for name in expected:
        assert torch.allclose(actual[name], expected[name], atol=1e-5), name
    assert stored.headline["nll"] == pytest.approx(frozen.headline["nll"], abs=1e-5)


def test_evaluation_on_images_gives_the_rows_of_stored_features(ltr_train, ltr_eval):
    run = ltr_train(*DIGITS)
    code, out, err = ltr_eval(run.directory)
    assert code == 0, err
    shown = run.headline["balanced_accuracy"]
    assert f"{100 * shown:.1f}" in out


def test_views_are_stored_one_by_one(ltr_train):
    two = ltr_train(*DIGITS, "augment=digits", "features.views=2")
    assert two.code == 0, two.err
    assert "500 images to compute, view 2 of 2" in two.out
    three = ltr_train(*DIGITS, "augment=digits", "features.views=3")
    assert three.out.count("to compute") == 1
    assert "view 3 of 3" in three.out


def test_an_extraction_that_is_killed_resumes_with_the_same_bytes(ltr_train, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_table, "BLOCK_BYTES", 64 * 64 * 4)

    def tables(outputs):
        return [path.read_bytes() for path in sorted(outputs.glob("stages/*/features-*.f32"))]

    whole = ltr_train(*DIGITS, outputs=tmp_path / "whole")
    with killed_extraction():
        stopped = ltr_train(*DIGITS, outputs=tmp_path / "stopped")
    assert stopped.code != 0
    assert tables(tmp_path / "stopped") != tables(tmp_path / "whole")
    again = ltr_train(*DIGITS, outputs=tmp_path / "stopped")
    assert again.code == 0
    assert "are stored" in again.out
    assert tables(tmp_path / "stopped") == tables(tmp_path / "whole")
    assert again.result["rows"] == whole.result["rows"]


REFUSED = {
    "an augmentation of the second stage": (
        ["method=crt", "method.classifier.augment=digits"],
        "method.classifier.augment: all stages",
    ),
    "a method of images": (["method=sla"], "features=stored: method=sla works on images"),
    "augmentation": (["augment=digits"], "features.views=4"),
    "views of nothing": (["features.views=3"], "without augmentation all views are the same"),
    "a part of the backbone": (["backbone.trainable=last_block"], "features=images to train a part of it"),
    "crt's last block": (["method=crt", "method.trainable=last_block"], "method.trainable=classifier"),
    "interpolated pixels": (["method=smote", "method.space=pixel"], "smote with method.space=feature"),
    "a representation": (["method=ncm", "method.start_from=x"], "backbone.weights=FILE"),
    "a solver": (["features.solver=newton"], "features.solver=newton"),
    "a key": (["+features.view=3"], "views"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_options_that_need_images_are_refused_with_alternatives(ltr_train, case):
    options, advice = case
    run = ltr_train(*DIGITS, *options)
    assert run.code not in (0, None)
    assert advice in run.err
    assert "Traceback" not in run.err
    assert not list(run.outputs.glob("*/*/*/result.json"))


def test_the_list_of_methods_for_stored_features_is_complete():
    declared = set()
    for path in (Path(__file__).parents[2] / "conf" / "method").glob("*.yaml"):
        config = yaml.safe_load(path.read_text())
        if "_target_" in config:  # variants of another config inherit its class
            takes = locate(config["_target_"], "method").takes_stored_features
            declared |= {path.stem} if takes is not False else set()  # a property: it depends on the options
    assert set(METHODS_OF_MESSAGE) | {"smote"} == declared


def test_a_network_with_another_backbone_is_refused(ltr_train, monkeypatch):
    count = iter(range(9))
    monkeypatch.setattr(features_stage, "backbone_digest", lambda backbone: str(next(count)))
    run = ltr_train(*DIGITS)
    assert run.code != 0
    assert "other weights in its backbone than the stored features" in run.err


def made_files(folder, images_by_class):
    """Write digits as image files, one folder for each class; return the folder."""
    for label, numbers in images_by_class.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            Image.fromarray(digits().images[number, :, :, 0]).save(folder / label / f"{number}.png")
    return folder


def test_sources_share_the_rows_of_their_common_files(ltr_train, tmp_path, monkeypatch):
    folder = made_files(tmp_path / "images", {"a": range(12), "b": range(12, 24)})
    rows = [f"images/{'a' if number < 12 else 'b'}/{number}.png,{'a' if number < 12 else 'b'}" for number in range(24)]
    (tmp_path / "some.csv").write_text("path,label\n" + "\n".join([*rows[:8], *rows[12:20]]) + "\n")
    common = [*DIGITS, "dataset=table", "dataset.image_size=8", "dataset.name=few", "seed=4", "trainer.max_epochs=1",
              "trainer.num_workers=0", "batch_size=8", f"dataset.roots=[{folder}]"]  # fmt: skip
    stages = f"paths.stages={tmp_path / 'stages'}"
    some = ltr_train(*common, stages, f"dataset.file={tmp_path / 'some.csv'}")
    assert some.code == 0, some.err
    (tmp_path / "all.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    computed = []
    compute = features_stage.backbone_features
    monkeypatch.setattr(
        features_stage, "backbone_features", lambda *args: computed.append(len(args[1])) or compute(*args)
    )
    shared = ltr_train(*common, stages, f"dataset.file={tmp_path / 'all.csv'}", outputs=tmp_path / "shared")
    assert shared.code == 0, shared.err
    assert "16 images have stored features in tables of other data" in shared.out
    assert sum(computed) == 8
    alone = ltr_train(*common, f"dataset.file={tmp_path / 'all.csv'}", outputs=tmp_path / "alone")
    assert "tables of other data" not in alone.out
    assert alone.result["rows"] == shared.result["rows"]


def test_a_table_is_listed_from_its_first_block_on(ltr_train, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(features_stage, "fill", killed_after_a_block)
        assert ltr_train(*DIGITS).code != 0
    store = StageStore(tmp_path / "outputs" / "stages")
    assert [record["images"] for record in store.finished() if record["name"] == "features"] == [0]
    assert ltr_train(*DIGITS).code == 0
    assert [record["images"] for record in store.finished() if record["name"] == "features"] == [900]


def killed_after_a_block(table, indices, batches, batch_size, advance):
    """Add a block, and die before its record is written."""
    part = indices[:batch_size]
    table.append(part, np.concatenate(list(batches(part))))
    raise KeyboardInterrupt


def test_a_missing_record_of_a_whole_table_is_written(ltr_train, tmp_path):
    assert ltr_train(*DIGITS).code == 0
    store = StageStore(tmp_path / "outputs" / "stages")
    (key,) = (record["key"] for record in store.finished() if record["name"] == "features")
    (store.folder(key) / RECORD).unlink()
    assert "cached stage" in ltr_train(*DIGITS, "loss=balanced_softmax").out
    assert [record["images"] for record in store.finished() if record["name"] == "features"] == [900]
