"""Runs on stored feature maps and tokens: the pool is a part of the network, which takes images afterwards."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

import ltr
from killed_extraction import killed_extraction
from ltr.data.loaders import feature_table
from ltr.data.sources.digits import digits
from ltr.methods.core.checkpoint import load_network
from ltr.models.backbone_output import local_features
from ltr.runs import features as features_stage
from ltr.runs.store import StageStore
from resuming import weights

DIGITS = ["trainer.precision=fp32", "trainer.max_epochs=2", "features=stored"]
MAPS = [*DIGITS, "features.output=map"]
ATTENTIVE = [*MAPS, "features.pool=attentive"]
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*(at random values|of a random backbone).*"),
    pytest.mark.filterwarnings("ignore:.*tau=.* is the best.*"),
]
RUNS = {
    "attentive": ATTENTIVE,
    "average": [*MAPS, "features.pool=average"],
    "average_max": [*MAPS, "features.pool=average_max"],
    "gem": [*MAPS, "features.pool=gem"],
    "crt": [*ATTENTIVE, "method=crt", "method.classifier.epochs=1"],
    "lws": [*ATTENTIVE, "method=lws", "method.classifier.epochs=1"],
    "mislas": [*ATTENTIVE, "method=mislas", "method.classifier.epochs=1"],
    "ncm": [*ATTENTIVE, "method=ncm"],
    "posthoc_la": [*MAPS, "features.pool=average_max", "method=posthoc_la"],
    "smote": [*ATTENTIVE, "method=smote", "method.space=feature", "method.classifier.epochs=1"],
    "rpl": [*MAPS, "features.pool=average_max", "dataset=digits_open", "method=rpl"],
    "triplet": [*ATTENTIVE, "dataset=digits_retrieval", "method=triplet"],
}  # fmt: skip


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS.keys())
def test_a_head_trained_on_maps_or_tokens_predicts_images(ltr_train, options):
    run = ltr_train(*options)
    assert run.code == 0, run.err
    network = load_network(run.directory / "checkpoints" / "final.ckpt")
    images = torch.from_numpy(digits().images[:4]).permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        stored = local_features(network.output(network.backbone, network.normalise(network.to_unit(images))))
        of_stored, of_images = network.predict_headline(stored), network.predict_headline(images)
    assert torch.allclose(of_images.features, of_stored.features, atol=1e-5)
    assert torch.allclose(of_images.logits, of_stored.logits, atol=1e-5)


@pytest.mark.parametrize("prefix", [False, True])
def test_tokens_are_stored_with_or_without_their_prefix(ltr_train, plain, tmp_path, prefix):
    (tmp_path / "configs" / "backbone" / "vit.yaml").write_text("_target_: plain_network.TokenNet\n")
    run = ltr_train(plain[0], "backbone=vit", *DIGITS, "features.output=tokens", "features.pool=attentive",
                    f"features.prefix_tokens={prefix}".lower())  # fmt: skip
    assert run.code == 0, run.err
    network = load_network(run.directory / "checkpoints" / "final.ckpt")
    images = torch.from_numpy(digits().images[:4]).permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        tokens = network.backbone.tokens(network.normalise(network.to_unit(images)))[:, 0 if prefix else 1 :]
        expected = network.predict_headline(tokens)
        assert torch.allclose(network.predict_headline(images).logits, expected.logits, atol=1e-5)
    table = next((tmp_path / "outputs" / "stages").rglob("*.f32"))
    assert table.stat().st_size == 900 * 16 * (4 + prefix) * 4


@pytest.fixture
def backbone_file(ltr_train, tmp_path):
    path = tmp_path / "backbone.ckpt"
    first = ltr_train("trainer.max_epochs=1", "trainer.precision=fp32", outputs=tmp_path / "first")
    shutil.copy(first.directory / "checkpoints" / "final.ckpt", path)
    return f"backbone.weights={path}"


@pytest.mark.parametrize("solver", [["trainer.max_epochs=3"], ["features.solver=lbfgs", "features.l2=0.01"]])
def test_the_average_of_stored_maps_gives_the_head_of_stored_vectors(ltr_train, backbone_file, tmp_path, solver):
    of_vectors = ltr_train(*DIGITS, backbone_file, *solver, outputs=tmp_path / "vectors")
    of_maps = ltr_train(*MAPS, "features.pool=average", backbone_file, *solver, outputs=tmp_path / "maps")
    assert (of_vectors.code, of_maps.code) == (0, 0), of_maps.err
    actual, expected = weights(of_maps.directory), weights(of_vectors.directory)
    assert actual.keys() == expected.keys()
    for name in expected:
        assert torch.allclose(actual[name], expected[name], atol=2e-4, rtol=1e-3), name
    assert of_maps.headline["nll"] == pytest.approx(of_vectors.headline["nll"], abs=1e-4)


def test_evaluation_and_prediction_on_images_give_the_rows_of_stored_maps(ltr_train, ltr_eval, backbone_file):
    run = ltr_train(*ATTENTIVE, backbone_file)
    code, out, err = ltr_eval(run.directory)
    assert code == 0, out + err
    assert f"{100 * run.headline['balanced_accuracy']:.1f}" in out
    images = digits().images[:20]
    network = load_network(run.directory / "checkpoints" / "final.ckpt")
    with torch.no_grad():
        unit = network.to_unit(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())
        stored = network(local_features(network.output(network.backbone, network.normalise(unit))))
    predicted = ltr.load(run.directory, precision="fp32").predict(images)
    assert np.allclose(predicted, stored.softmax(1).numpy(), atol=1e-5)


def test_the_pool_is_trained_with_the_head_and_frozen_in_a_second_stage(ltr_train, backbone_file, tmp_path):
    stages = f"paths.stages={tmp_path / 'stages'}"
    erm = ltr_train(*ATTENTIVE, backbone_file, stages, outputs=tmp_path / "erm")
    crt = ltr_train(*ATTENTIVE, backbone_file, stages, "method=crt", "method.classifier.epochs=1",
                    outputs=tmp_path / "crt")  # fmt: skip
    untrained = ltr_train(*ATTENTIVE, backbone_file, "trainer.limit_train_batches=1", "optimizer.lr=1e-9",
                          outputs=tmp_path / "untrained")  # fmt: skip
    assert "representation: cached stage" in crt.out
    trained, second, start = weights(erm.directory), weights(crt.directory), weights(untrained.directory)
    names = [name for name in trained if name.startswith("pool.")]
    assert names == ["pool.query", "pool.key.weight", "pool.value.weight"]
    for name in names:
        assert torch.equal(second[name], trained[name]), name
        assert not torch.allclose(trained[name], start[name], atol=1e-5), name
    assert not torch.equal(second["head.weight"], trained["head.weight"])


def test_pools_heads_and_seeds_share_the_maps_and_vectors_have_another_table(ltr_train, backbone_file):
    runs = [
        ltr_train(*options, backbone_file)
        for options in (ATTENTIVE, [*MAPS, "features.pool=gem"], [*ATTENTIVE, "seed=1"], DIGITS)
    ]
    assert [run.code for run in runs] == [0] * 4, runs[-1].err
    assert ["images to compute" in run.out for run in runs] == [True, False, False, True]
    assert len(runs[-1].directories) == 4


def test_the_size_is_reported_and_a_full_disk_is_refused_before_the_extraction(ltr_train, monkeypatch):
    run = ltr_train(*ATTENTIVE)
    assert "900 images to compute" in run.out
    assert "0.92 MB" in run.out  # 900 maps of 64 x 2 x 2 numbers
    monkeypatch.setattr(
        features_stage.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 900_000)
    )
    monkeypatch.setattr(features_stage, "fill", lambda *arguments: pytest.fail("features are computed"))
    refused = ltr_train(*ATTENTIVE, "seed=1")
    assert refused.code == 1
    assert "0.92 MB, and" in refused.err
    assert "paths.stages=FOLDER" in refused.err
    assert "features.output=vector" in refused.err


def test_views_of_maps_are_stored_one_by_one(ltr_train):
    run = ltr_train(*ATTENTIVE, "features.views=2", "augment=cifar", "augment.flip=false")
    assert run.code == 0, run.err
    assert "view 2 of 2" in run.out


def test_an_extraction_of_maps_that_is_killed_resumes_with_the_same_bytes(ltr_train, tmp_path, monkeypatch):
    monkeypatch.setattr(features_stage, "_CPU_BATCH", 50)
    monkeypatch.setattr(feature_table, "BLOCK_BYTES", 100 * 4 * 256)
    monkeypatch.setattr(feature_table, "SHARD_BYTES", 300 * 4 * 256)
    whole = tables(ltr_train, tmp_path / "whole")
    with killed_extraction():
        assert ltr_train(*ATTENTIVE, outputs=tmp_path / "killed").code != 0
    resumed = tables(ltr_train, tmp_path / "killed")
    assert len(whole) == 3
    assert resumed == whole


def tables(ltr_train, outputs):
    run = ltr_train(*ATTENTIVE, outputs=outputs)
    assert run.code == 0, run.err
    return {path.name: path.read_bytes() for path in sorted((outputs / "stages").rglob("*.f32"))}


REFUSED = {
    "maps without a pool": (MAPS, "Choose features.pool=attentive, average"),
    "a pool of vectors": ([*DIGITS, "features.pool=max"], "Use features.output=map"),
    "a prefix of maps": ([*ATTENTIVE, "features.prefix_tokens=true"], "Use features.output=tokens"),
    "tokens of a convolutional network": ([*DIGITS, "features.output=tokens", "features.pool=max"],
                                          "has no tokens. Use features.output=map"),
    "heads that do not divide": ([*ATTENTIVE, "features.pool.num_heads=7"], "does not divide"),
    "a trained pool with lbfgs": ([*ATTENTIVE, "features.solver=lbfgs", "features.l2=1"],
                                  "Use features.solver=minibatch, or features.pool=average"),
    "a pool that is unknown": ([*MAPS, "features.pool=mean"], "there is no pool 'mean'"),
    "images": (["features.output=map"], "it is a key of features=stored"),
    "a method that works on images": ([*ATTENTIVE, "method=sla"], "for others use features=images"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_incompatible_options_are_refused_with_alternatives_before_the_extraction(ltr_train, case):
    options, message = REFUSED[case]
    refused = ltr_train(*options)
    assert refused.code == 2, refused.out
    assert message in " ".join(refused.err.split())
    assert "images to compute" not in refused.out


def test_tables_of_maps_are_listed(ltr_train, tmp_path):
    run = ltr_train(*ATTENTIVE, outputs=tmp_path / "out")
    assert run.code == 0, run.err
    records = [r for r in StageStore(tmp_path / "out" / "stages").finished() if r["name"] == "features"]
    assert [(record["images"], record["width"], record["spec"]["output"]) for record in records] == [(900, 256, "map")]
