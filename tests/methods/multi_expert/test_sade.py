"""SADE: its experts' losses in a network, and the weights that are learned at test time."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from method_plans import planned

from ltr.configuration.configs import read_config, without_private
from ltr.errors import ConfigError
from ltr.evaluation.label_shift import COMPOSITIONS
from ltr.methods.core.stage import StageOutput
from ltr.methods.multi_expert import aggregation
from ltr.methods.multi_expert.aggregation import ViewFile, Views, ViewTable, augmentation, learned_weights
from ltr.methods.multi_expert.losses import expertise_losses, prediction_stability
from ltr.methods.multi_expert.options import AggregationOptions

SADE = ("method=sade", "augment=digits")
AUGMENT = without_private(read_config("augment/test_time"))


def settings(**changes) -> AggregationOptions:
    return AggregationOptions(**{"augment": AUGMENT, **changes})


@pytest.fixture(scope="module")
def plan():
    return planned(*SADE)


@pytest.fixture(scope="module")
def network(plan):
    representation = plan.representation()
    return plan.method.predictor({"representation": StageOutput("representation", "key", lambda: representation)})


def test_the_loss_is_the_sum_of_the_experts_losses(plan):
    network, batch = plan.representation().train(), plan.batch()
    logits = network.head.each(network.features(network.to_unit(batch.images)))
    losses = expertise_losses(logits, batch.labels, network.log_priors, network.inverse_log_priors, 2.0)
    torch.testing.assert_close(network.training_step(batch, 0)["loss"], losses.mean(0).sum())


def views_of(stable: int, images: int = 300, seed: int = 0) -> np.ndarray:
    """Views [N, 2, 2, 3, 5] for which one expert is confident and stable, and the others vary."""
    random = np.random.default_rng(seed)
    views = random.normal(0, 2, (images, 2, 2, 3, 5))
    views[:, :, :, stable] = 4 * np.eye(5)[random.integers(0, 5, images)][:, None, None]
    return views.astype(np.float32)


@pytest.mark.parametrize("stable", [0, 1, 2])
def test_the_expert_of_stable_predictions_gains_weight(stable):
    weights, epochs = learned_weights(views_of(stable), settings(batch_size=32), 0)
    assert weights.argmax() == stable
    assert weights.sum() == pytest.approx(1)
    assert 1 <= epochs <= 5


def test_training_increases_the_stability():
    views = views_of(1)
    weights, _ = learned_weights(views, settings(batch_size=32), 0)
    first, second = torch.from_numpy(views[:, 0]).unbind(1)
    before, after = (
        prediction_stability(first, second, torch.as_tensor(one, dtype=torch.float32)).mean()
        for one in (np.full(3, 1 / 3), weights)
    )
    assert after > before


def test_training_stops_after_the_epoch_in_which_a_weight_falls_below_the_minimum():
    views, fast = views_of(2), {"batch_size": 32, "lr": 3.0}
    stopped, epochs = learned_weights(views, settings(**fast), 0)
    assert epochs < 5
    assert stopped.round(2).min() < 0.05
    assert learned_weights(views, settings(**fast, least_weight=0.0), 0)[1] == 5


def test_equal_experts_have_equal_weights():
    views = np.repeat(views_of(0)[:, :, :, :1], 3, axis=3)
    weights, _ = learned_weights(views, settings(), 0)
    np.testing.assert_allclose(weights, 1 / 3, atol=1e-6)


def test_weights_depend_on_the_seed():
    views = views_of(1)
    assert np.array_equal(learned_weights(views, settings(), 0)[0], learned_weights(views, settings(), 0)[0])
    assert not np.array_equal(learned_weights(views, settings(), 0)[0], learned_weights(views, settings(), 1)[0])


def pairs(views: Views) -> np.ndarray:
    """The logits of all pairs of views, [N, V, 2, K, C]."""
    return np.stack([views[np.arange(len(views)), pair] for pair in range(views.shape[1])], axis=1)


def test_many_views_are_read_from_a_file_and_give_the_same_bits(plan, network, monkeypatch):
    batch = plan.batch("test")
    tables = []
    for limit in (10**9, 0):
        monkeypatch.setattr(aggregation, "_IN_MEMORY", limit)
        table = ViewTable(network, settings(views=2), torch.device("cpu"), images=len(batch.labels))
        for rows in (slice(70, None), slice(0, 70)):
            table.add(batch.images[rows], batch.labels[rows], batch.indices[rows])
        tables.append(table)
    in_memory, in_file = (table.all()[0] for table in tables)
    assert isinstance(in_file._array, np.memmap)
    assert np.array_equal(pairs(in_memory), pairs(in_file))
    chosen = np.array([5, 3, 90])
    assert np.array_equal(pairs(in_file.of(chosen)), pairs(in_memory)[chosen])
    weights = [learned_weights(views, settings(views=2), 0)[0] for views in (pairs(in_memory), in_file)]
    assert np.array_equal(*weights)


def test_too_little_space_for_the_file_is_an_error(monkeypatch):
    monkeypatch.setattr(aggregation.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**9))
    with pytest.raises(ConfigError, match=r"take 6\.0 GB.*1\.0 GB left.*TMPDIR.*1 takes 1\.2 GB"):
        ViewFile((5, 2, 3, 1000), 50_000)


def test_views_depend_on_the_image_and_not_on_its_batch(plan, network):
    batch = plan.batch("test")
    table, parts = (ViewTable(network, settings(views=2), torch.device("cpu")) for _ in range(2))
    table.add(batch.images, batch.labels, batch.indices)
    for rows in (slice(70, None), slice(0, 70)):
        parts.add(batch.images[rows], batch.labels[rows], batch.indices[rows])
    (views, *rest), (views_of_parts, *rest_of_parts) = table.all(), parts.all()
    for whole, joined in zip([pairs(views), *rest], [pairs(views_of_parts), *rest_of_parts]):
        np.testing.assert_allclose(whole, joined, rtol=1e-4, atol=1e-4)
    views = pairs(views)
    assert views.shape[1:] == (2, 2, 3, 10)
    assert not np.array_equal(views[:, 0, 0], views[:, 0, 1])
    assert not np.array_equal(views[:, 0], views[:, 1])


def test_augmentations_that_mix_images_are_refused():
    with pytest.raises(ConfigError, match="test_time"):
        augmentation(settings(augment={**AUGMENT, "mix": "mixup"}), (3, 8, 8))


def test_experts_cannot_be_a_representation(ltr_train):
    done = ltr_train("method=crt", "method.representation=sade", "stages=plan")
    assert done.code == 2
    assert "trains no network" in done.err


def test_settings_of_the_aggregation_do_not_change_the_stages(plan):
    assert planned(*SADE, "method.aggregation.lr=0.2").keys == plan.keys


def test_a_run_has_a_row_per_composition_and_its_checkpoint_gives_the_same_rows(ltr_train, ltr_eval, tmp_path):
    from ltr.apply.export import export

    done = ltr_train(
        *SADE, "trainer.max_epochs=1", "trainer.precision=fp32", "trainer.limit_train_batches=3",
        "method.aggregation.views=1",
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = done.result["rows"]
    assert [row["variant"] for row in rows if row["headline"]] == ["ensemble"]
    learned = {row["scorer"]: row["metrics"] for row in rows if row["protocol"] == "test_time_aggregation"}
    assert list(learned) == list(COMPOSITIONS)
    headline = next(row["metrics"] for row in rows if row["headline"])
    assert learned["test"]["equal_weights_accuracy"] == pytest.approx(headline["accuracy"])
    assert all(sum(one[f"weight_{k}"] for k in (1, 2, 3)) == pytest.approx(1) for one in learned.values())
    code, _, err = ltr_eval(done.directory, "--json", tmp_path / "again.json", "trainer.precision=fp32")
    assert code == 0, err
    assert json.loads((tmp_path / "again.json").read_text())["rows"] == rows
    assert export(done.directory / "checkpoints" / "final.ckpt", tmp_path / "export").difference == 0
