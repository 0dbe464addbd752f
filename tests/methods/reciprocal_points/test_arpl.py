"""RPL, RPL++, ARPL and GCPL: what a step does, what they answer, what they refuse, and what a resume keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from method_plans import planned, state, step

from ltr.data.batch import Mix
from ltr.errors import ConfigError
from ltr.methods.reciprocal_points import losses as open_set
from resuming import same_bits

OPEN = "dataset=digits_open"
METHODS = ("rpl", "rpl_pp", "arpl", "gcpl", "rpl_official", "rpl_confirmed")
methods = pytest.mark.parametrize("method", METHODS)


def network(*overrides: str, seed: int = 0):
    """The untrained network of a plan on the open digits, in training mode, and a batch."""
    plan = planned(OPEN, *overrides)
    stage = plan.stages["representation"]
    built = stage.network(plan.dataset_info, seed)
    built.start_epoch(0)
    return built.train(), plan.batch()


def test_the_loss_of_rpl_is_its_class_term_and_lambda_times_its_open_space_term():
    built, batch = network("method=rpl", "method.num_points=2", "method.open_weight=0.3", "method.radius_init=0.5")
    actual = built.training_step(batch, 0)
    with torch.no_grad():
        features = built.features(built.to_unit(batch.images))
        squares = (features[:, None, None] - built.head.points).square().mean(3)  # over the width
        own = torch.stack([squares[row, label] for row, label in enumerate(batch.labels)])
        class_term = F.cross_entropy(squares.mean(2), batch.labels)
        open_term = (own - 0.5).square().mean()
    torch.testing.assert_close(actual["logs"]["class_term"], class_term, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(actual["logs"]["open_space_term"], open_term, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(actual["loss"].detach(), class_term + 0.3 * open_term, rtol=1e-4, atol=1e-5)


@methods
def test_every_parameter_has_a_gradient_and_every_term_is_logged(method):
    built, batch = network(f"method={method}")
    actual = built.training_step(batch, 0)
    actual["loss"].backward()
    assert [name for name, p in built.named_parameters() if p.grad is None] == []
    assert set(actual["logs"]) == set(built.weights)
    assert all(not value.requires_grad for value in actual["logs"].values())


@methods
def test_a_few_steps_reduce_the_class_term(method):
    built, batch = network(f"method={method}", "optimizer=adamw", "optimizer.lr=0.01")
    before = float(built.training_step(batch, 0)["logs"]["class_term"])
    step(built, batch, steps=8)
    assert float(built.training_step(batch, 1)["logs"]["class_term"]) < before


def test_without_lambda_the_loss_is_the_class_term_and_the_radius_gets_no_gradient():
    built, batch = network("method=rpl", "method.open_weight=0")
    actual = built.training_step(batch, 0)
    actual["loss"].backward()
    torch.testing.assert_close(actual["loss"].detach(), actual["logs"]["class_term"])
    assert not built.head.radius.grad.any()


def test_the_radius_is_initialised_once_with_the_mean_distance_of_the_first_batch():
    built, batch = network("method=rpl")
    assert not built.head.radius.any()
    built.training_step(batch, 0)
    with torch.no_grad():
        measured = built.head.measure(built.features(built.to_unit(batch.images)))
        expected = open_set.label_distances(built.head.open_space_distances(measured), batch.labels).mean()
    torch.testing.assert_close(built.head.radius.detach(), expected.expand(6))
    before = built.head.radius.detach().clone()
    with torch.no_grad():
        built.head.points.mul_(2)
    built.training_step(batch, 1)
    assert torch.equal(built.head.radius.detach(), before)


@pytest.mark.parametrize("method", ["arpl", "rpl_official", "rpl_confirmed"])
def test_the_published_radius_starts_at_zero(method):
    built, batch = network(f"method={method}")
    built.training_step(batch, 0)
    assert not built.head.radius.any()


def test_the_confirmed_loss_is_a_sum_of_undivided_class_terms_and_divided_open_space_terms():
    built, batch = network("method=rpl_confirmed")
    actual = built.training_step(batch, 0)
    with torch.no_grad():
        squares = (built.features(built.to_unit(batch.images))[:, None] - built.head.points[:, 0]).square().sum(2)
        own = squares.gather(1, batch.labels[:, None]).squeeze(1)
        expected = F.cross_entropy(squares, batch.labels, reduction="sum") + 0.1 * (own / 64).square().sum()
    torch.testing.assert_close(actual["loss"].detach(), expected, rtol=1e-4, atol=1e-3)


def test_the_official_loss_has_one_radius_and_divides_every_distance():
    built, batch = network("method=rpl_official")
    assert built.head.radius.shape == (1,)
    with torch.no_grad():
        built.head.radius.fill_(0.2)
        distances = (built.features(built.to_unit(batch.images))[:, None] - built.head.points[:, 0]).square().mean(2)
        own = distances.gather(1, batch.labels[:, None]).squeeze(1)
        expected = F.cross_entropy(distances, batch.labels) + 0.1 * F.mse_loss(own, torch.full_like(own, 0.2))
    actual = built.training_step(batch, 0)
    torch.testing.assert_close(actual["loss"].detach(), expected, rtol=1e-4, atol=1e-5)


def test_the_margin_of_arpl_is_torchs_ranking_loss_of_radius_and_distance():
    built, batch = network("method=arpl")
    with torch.no_grad():
        built.head.radius.fill_(1.3)
        distances = (built.features(built.to_unit(batch.images))[:, None] - built.head.points[:, 0]).square().mean(2)
        own = distances.gather(1, batch.labels[:, None]).squeeze(1)
    ranking = F.margin_ranking_loss(torch.full_like(own, 1.3), own, torch.ones_like(own), margin=1.0)
    actual = built.training_step(batch, 0)["logs"]["margin_term"]
    torch.testing.assert_close(actual, ranking, rtol=1e-4, atol=1e-5)


def test_mixed_labels_mix_the_terms():
    built, batch = network("method=rpl", "method.radius_init=0.5")
    built.eval()  # the same features in each pass
    other, share = batch.labels.flip(0), torch.full((len(batch.labels),), 0.25)
    mixed = built.training_step(batch._replace(mix=Mix(other, share)), 1)["loss"]
    apart = [built.training_step(batch._replace(labels=labels), 1)["loss"] for labels in (batch.labels, other)]
    torch.testing.assert_close(mixed, 0.25 * apart[0] + 0.75 * apart[1])


@methods
def test_predictions_hold_logits_features_and_the_distance_score(method):
    built, batch = network(f"method={method}")
    scores = built.eval().predict(batch.images)["default"]
    assert scores.logits.shape == (len(batch.labels), 6)
    assert scores.features.shape == (len(batch.labels), 64)
    assert scores.knownness.shape == (len(batch.labels),)
    with torch.no_grad():
        torch.testing.assert_close(scores.logits, built(built.to_unit(batch.images)))


def test_the_distance_score_of_rpl_pp_is_lower_far_from_the_prototypes():
    built, batch = network("method=rpl_pp")
    near = built.eval().predict(batch.images)["default"]
    with torch.no_grad():
        built.prototypes.points.add_(5)
    far = built.predict(batch.images)["default"]
    torch.testing.assert_close(near.logits, far.logits)
    assert (far.knownness < near.knownness).all()


def test_the_backbone_starts_as_that_of_erm():
    built, _ = network("method=rpl")
    erm = planned(OPEN).stages["representation"]
    plain = erm.network(built.dataset_info, 0)
    assert same_bits(state(built.backbone), state(plain.backbone))


def test_the_points_depend_on_the_seed():
    first, again, other = (network("method=rpl", seed=seed)[0] for seed in (0, 0, 1))
    assert same_bits(state(first.head), state(again.head))
    assert not torch.equal(first.head.points, other.head.points)


@pytest.mark.parametrize("method", ["rpl", "arpl", "gcpl"])
@pytest.mark.parametrize("feature_dim", ["null", "3"])
def test_a_decoupled_method_starts_from_the_linear_classifier_of_the_same_softmax(method, feature_dim):
    built, batch = network(f"method={method}", f"method.feature_dim={feature_dim}")
    step(built, batch, steps=2)
    unit = built.eval().to_unit(batch.images)
    with torch.no_grad():
        torch.testing.assert_close(built.as_classifier()(unit).softmax(1), built(unit).softmax(1), rtol=1e-3, atol=1e-4)


def test_several_prototypes_cannot_be_a_representation():
    built, _ = network("method=gcpl", "method.num_points=2")
    with pytest.raises(ConfigError, match="linear classifier"):
        built.as_classifier()


def test_further_loss_terms_are_added():
    plan = planned(OPEN, "method=rpl")
    assert plan.method.accepts_extras


def test_two_dimensional_features_are_recorded_after_training():
    plan = planned(OPEN, "method=rpl", "method.feature_dim=2")
    assert list(plan.stages) == ["representation", "embedding"]
    assert plan.stages["embedding"].reads == ("test", "unknown")
    built, _ = network("method=rpl", "method.feature_dim=2")
    arrays = plan.compute("embedding", built.eval())
    assert arrays["test_features"].shape == (len(plan.data.split.test), 2)
    assert arrays["unknown_features"].shape == (len(plan.data.split.unknown), 2)
    assert (arrays["unknown_labels"] == -1).all()


def test_snapshots_are_of_the_first_and_last_epochs_and_survive_a_checkpoint():
    built, batch = network("method=rpl", "method.feature_dim=2", "trainer.max_epochs=7")
    assert built.history.snapshot_epochs == [0, 2, 4, 6]
    built.training_step(batch, 0)
    arrays = built.artifacts()
    rows = len(batch.labels)
    assert np.array_equal(arrays["history_labels"][0, :rows], batch.labels.numpy())
    assert np.abs(arrays["history_features"][0, :rows]).sum() > 0
    assert (arrays["history_labels"][0, rows:] == -1).all()
    other, _ = network("method=rpl", "method.feature_dim=2", "trainer.max_epochs=7", seed=3)
    other.load_state_dict(built.state_dict())
    assert np.array_equal(other.artifacts()["history_features"], arrays["history_features"])


def test_wider_features_have_no_snapshots():
    built, _ = network("method=rpl")
    assert built.history is None
    assert set(built.artifacts()) == {"points", "radius", "radius_divisor"}


@pytest.mark.parametrize("loss", ["ldam", "focal_softmax", "class_balanced", "balanced_softmax"])
@pytest.mark.parametrize("method", ["rpl", "gcpl"])
def test_losses_that_do_not_apply_to_distances_are_refused_by_name(method, loss):
    with pytest.raises(ConfigError, match=r"loss=.*cross_entropy"):
        planned(OPEN, f"method={method}", f"loss={loss}")


def test_another_head_is_refused_by_name():
    with pytest.raises(ConfigError, match="head=CosineHead"):
        planned(OPEN, "method=rpl", "head=cosine")


@pytest.mark.parametrize("override", ["method.open_weight=0.5", "method.num_points=2", "method.radius=scalar"])
def test_options_that_change_the_training_change_the_key(override):
    keys = [planned(OPEN, "method=rpl", *more).keys["representation"] for more in ([], [override])]
    assert keys[0] != keys[1]
