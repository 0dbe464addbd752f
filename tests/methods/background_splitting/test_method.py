"""Background splitting: the two losses, what goes into them, and what is refused."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from method_plans import planned, state, step
from splitting import NO_AUX, network_of, parents_of, plan_of

from ltr.data.batch import Batch, Mix
from ltr.errors import ConfigError
from ltr.methods.background_splitting.network import soft_cross_entropy
from ltr.methods.background_splitting.pseudo_labels import by_taxonomy
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.stage import Stage
from ltr.runs.keys import stage_key, stage_spec
from resuming import same_bits

NO_THRESHOLD = "method.thresholding=false"


def terms(network, batch, weight=0.1):
    """The two terms of the loss from the definition."""
    with torch.no_grad():
        features = network.features(network.to_unit(batch.images))
        logits, aux = network.head(features), network.aux_head(features)
        main = F.cross_entropy(logits, batch.labels)
        return main, F.cross_entropy(aux, network._labels[batch.indices].long())


# -- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.1, 1.0])
def test_the_loss_is_the_main_term_plus_the_weighted_auxiliary_term(weight):
    plan = plan_of(f"method.aux.weight={weight}")
    network, batch = network_of(plan).eval(), plan.batch()
    main, aux = terms(network, batch)
    actual = network.training_step(batch, 0)
    torch.testing.assert_close(actual["loss"], main + weight * aux)
    torch.testing.assert_close(actual["logs"]["main_loss"], main)
    torch.testing.assert_close(actual["logs"]["aux_loss"], aux)


def test_the_auxiliary_loss_includes_the_foreground():
    plan = plan_of()
    network = network_of(plan)
    assert (network._labels[plan.data.split.train] >= 0).all()
    assert (plan.data.split.labels(plan.data.source)[plan.data.split.train] > 0).any()


@pytest.mark.parametrize("b0", [-1.0, 0.0, 0.1, 2.0])
def test_every_b0_is_the_background_logit_of_training_and_of_prediction(b0):
    plan = plan_of(NO_AUX, f"method.b0={b0}")
    network, batch = network_of(plan).eval(), plan.batch()
    logits = network.predict(batch.images)["default"].logits
    assert logits.shape[1] == 3
    assert (logits[:, 0] == torch.tensor(b0)).all()
    expected = F.cross_entropy(logits, batch.labels)
    torch.testing.assert_close(network.training_step(batch, 0)["loss"].detach(), expected)


def test_a_b0_of_zero_differs_from_a_learned_background_logit():
    assert network_of(plan_of(NO_AUX, "method.b0=0.0")).head.weight.shape[0] == 2
    assert network_of(plan_of(NO_AUX, "method.b0=null")).head.weight.shape[0] == 3


@pytest.mark.parametrize("override", ["method.b0=null", NO_THRESHOLD])
def test_with_a_learned_row_and_no_auxiliary_task_it_is_erm_to_the_bit(override):
    plan, erm = plan_of(NO_AUX, override), planned("dataset=digits_bg", "method=erm")
    stage = erm.stages["representation"]
    plain = stage.network(erm.dataset_info, 0)
    plain.start_epoch(0)
    network = network_of(plan)
    assert same_bits(state(network), state(plain))
    for one in (network, plain):
        step(one, plan.batch(), steps=2)
    assert same_bits(state(network), state(plain))


def test_no_thresholding_and_a_null_b0_are_one_stage():
    keys = [
        plan_of(*overrides).keys for overrides in ((NO_THRESHOLD,), ("method.b0=null",), (NO_THRESHOLD, "method.b0=2"))
    ]
    assert keys[0] == keys[1] == keys[2]
    assert plan_of().keys["representation"] != keys[0]["representation"]


def test_the_backbone_starts_as_erms_does():
    stage = planned("dataset=digits_bg", "method=erm").stages["representation"]
    plain = stage.network(plan_of().dataset_info, 0)
    assert same_bits(state(network_of(plan_of()).backbone), state(plain.backbone))


def test_no_parameter_belongs_to_a_constant_background():
    network = network_of(plan_of())
    optimizer, _ = network.optimisation(8)
    rows = [p for group in optimizer.param_groups for p in group["params"]]
    assert sum(p.shape[0] == 2 for p in rows) == 2  # weight and bias of two foreground rows
    assert not any(p.shape[:1] == (3,) for p in rows)
    assert sum(p is network.aux_head.weight for p in rows) == 1


# -- bugs of the official code ----------------------------------------------------------------------------------------


def test_prediction_uses_the_main_head_on_unaugmented_images():
    plan = plan_of()
    network, batch = network_of(plan).eval(), plan.batch("test")
    actual = network.validation_step(batch, 0)["scores"]
    with torch.no_grad():
        expected = network.head(network.features(batch.images.float() / 255))
    torch.testing.assert_close(actual.logits, expected)
    pixels = torch.tensor(plan.data.source.images[batch.indices]).permute(0, 3, 1, 2)
    assert torch.equal(batch.images, pixels)


def test_the_auxiliary_accuracy_is_of_the_auxiliary_head():
    plan = plan_of()
    network, batch = network_of(plan).eval(), plan.batch()
    with torch.no_grad():
        aux = network.aux_head(network.features(network.to_unit(batch.images))).argmax(1)
    expected = (aux == network._labels[batch.indices]).float().mean()
    assert network.training_step(batch, 0)["logs"]["aux_accuracy"] == expected


def test_only_labelled_images_have_the_main_loss():
    plan = plan_of("method.labelled_fraction=0.3", "method.aux.weight=0.5")
    network, batch = network_of(plan).eval(), plan.batch()
    labelled = network._labelled[batch.indices]
    assert 0 < labelled.sum() < len(labelled)
    with torch.no_grad():
        features = network.features(network.to_unit(batch.images))
        main = F.cross_entropy(network.head(features)[labelled], batch.labels[labelled])
        aux = F.cross_entropy(network.aux_head(features), network._labels[batch.indices].long())
    torch.testing.assert_close(network.training_step(batch, 0)["loss"].detach(), main + 0.5 * aux)


@pytest.mark.parametrize("more", [[], ["loss=class_balanced", "loss.reduction=weight_sum"], ["loss=ldam"]])
def test_the_label_of_an_unlabelled_image_is_not_read(more):
    plan = plan_of("method.labelled_fraction=0.3", *more)
    network, batch = network_of(plan).eval(), plan.batch()
    labels = torch.where(network._labelled[batch.indices], batch.labels, (batch.labels + 1) % 3)
    actual = [network.training_step(one, 0)["loss"] for one in (batch, batch._replace(labels=labels))]
    assert torch.equal(*actual)


def test_a_weighted_mean_is_over_the_labelled_images():
    plan = plan_of("method.labelled_fraction=0.3", NO_AUX, "loss=class_balanced", "loss.reduction=weight_sum")
    network, batch = network_of(plan).eval(), plan.batch()
    labelled = network._labelled[batch.indices]
    with torch.no_grad():
        logits = network(network.to_unit(batch.images))[labelled]
        expected = F.cross_entropy(logits, batch.labels[labelled], network.loss.weights)
    torch.testing.assert_close(network.training_step(batch, 0)["loss"].detach(), expected)


@pytest.mark.parametrize("more", [[], ["loss=class_balanced", "loss.reduction=weight_sum"]])
def test_the_main_loss_of_several_processes_is_that_of_one(more, monkeypatch):
    plan = plan_of("method.labelled_fraction=0.3", NO_AUX, *more)
    network, batch = network_of(plan).train(), plan.batch()
    logits = torch.randn(len(batch.labels), 3, generator=torch.Generator().manual_seed(0))
    whole = network.main_loss(logits, batch)
    # sums of the labelled images' weights differ between the processes
    order = (~network._labelled[batch.indices]).long().argsort(stable=True)
    shares = [(logits[rows], Batch(*(field[rows] for field in batch[:3]))) for rows in order.chunk(2)]
    sums: list[torch.Tensor] = []
    monkeypatch.setattr("ltr.methods.background_splitting.network.world_size", lambda: 2)
    monkeypatch.setattr("ltr.methods.background_splitting.network.all_reduce_sum", lambda total: sums.append(total + 0))
    for share in shares:
        network.main_loss(*share)
    assert sums[0] > sums[1]
    monkeypatch.setattr(
        "ltr.methods.background_splitting.network.all_reduce_sum", lambda total: total.copy_(sums[0] + sums[1])
    )
    mean = sum(network.main_loss(*share) for share in shares) / 2
    torch.testing.assert_close(mean, whole)


def test_a_batch_without_labelled_images_has_only_the_auxiliary_loss():
    plan = plan_of("method.labelled_fraction=0.3")
    network, batch = network_of(plan), plan.batch()
    rest = ~network._labelled[batch.indices]
    batch = Batch(batch.images[rest], batch.labels[rest], batch.indices[rest])
    actual = network.training_step(batch, 0)
    assert actual["logs"]["main_loss"] == 0
    actual["loss"].backward()
    assert not network.head.weight.grad.any()
    assert network.backbone.parameters().__next__().grad.isfinite().all()


def test_the_loss_counts_the_labelled_images_only():
    plan = plan_of("method.labelled_fraction=0.3")
    counts = np.asarray(plan.dataset_info.class_counts)
    assert network_of(plan).loss.class_counts.tolist() == np.round(0.3 * counts).tolist()
    assert network_of(plan_of()).loss.class_counts.tolist() == counts.tolist()


# -- losses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["balanced_softmax", "logit_adjusted", "vs"])
def test_losses_that_do_not_apply_to_a_constant_logit_are_refused_by_name(loss):
    name = {"balanced_softmax": "BalancedSoftmax", "logit_adjusted": "LogitAdjusted", "vs": "VS"}[loss]
    with pytest.raises(ConfigError, match=rf"{name} is not defined for a constant.*cross_entropy.*method\.b0=null"):
        plan_of(f"loss={loss}")
    assert "representation" in plan_of(f"loss={loss}", "method.b0=null").stages


LOSSES = [
    ["loss=cross_entropy"],
    ["loss=focal_softmax", "loss.gamma=2"],
    ["loss=focal_sigmoid"],
    ["loss=class_balanced"],
    ["loss=class_balanced", "loss.base=sigmoid"],
    ["loss=class_balanced", "loss.base=focal"],
    ["loss=ldam", "loss.beta=0.999", "loss.defer_from=0"],
]


@pytest.mark.parametrize("loss", LOSSES, ids="-".join)
@pytest.mark.parametrize("b0", ["0.1", "null"])
def test_losses_of_the_library_train_the_main_head(loss, b0):
    plan = plan_of(*loss, f"method.b0={b0}", "method.background_weight=0.5", "optimizer.lr=0.01")
    network, batch = network_of(plan), plan.batch()
    before = network.training_step(batch, 0)["loss"].item()
    step(network, batch, steps=10)
    after = network.training_step(batch, 0)["loss"].item()
    assert math.isfinite(after)
    assert after < before


def test_b0_is_excluded_from_the_margins_of_ldam():
    network = network_of(plan_of("loss=ldam"))
    assert network.loss.margins[0] == 0
    assert network.loss.margins[1:].max() == pytest.approx(0.5)


def test_b0_is_excluded_from_the_sum_of_sigmoids():
    plan, other = (plan_of("loss=focal_sigmoid", NO_AUX, f"method.b0={b0}") for b0 in (0.1, 5))
    batch = plan.batch()
    first, second = (network_of(one).eval().training_step(batch, 0)["loss"] for one in (plan, other))
    assert torch.equal(first, second)


@pytest.mark.parametrize("b0", ["0.1", "null"])
def test_the_background_weight_is_the_class_weight_of_the_background_alone(b0):
    plain, weighted = (
        network_of(plan_of(NO_AUX, f"method.b0={b0}", f"method.background_weight={w}")).eval() for w in ("null", 0.25)
    )
    batch = plan_of().batch()
    with torch.no_grad():
        logits = plain(plain.to_unit(batch.images))
        losses = F.cross_entropy(logits, batch.labels, reduction="none")
    expected = torch.where(batch.labels == 0, 0.25 * losses, losses).mean()
    torch.testing.assert_close(weighted.training_step(batch, 0)["loss"].detach(), expected)


def test_the_background_weight_replaces_only_that_of_the_background():
    plain, fixed = (
        network_of(plan_of("loss=class_balanced", f"method.background_weight={w}")).loss.weights for w in ("null", 0.7)
    )
    assert fixed[0] == pytest.approx(0.7)
    assert torch.equal(fixed[1:], plain[1:])


def test_a_background_weight_of_a_loss_without_class_weights_is_refused():
    with pytest.raises(ConfigError, match="BalancedSoftmax has no class weights"):
        plan_of("loss=balanced_softmax", "method.b0=null", "method.background_weight=0.5")


@pytest.mark.parametrize("b0", ["0.1", "null"])
def test_a_prior_bias_predicts_the_class_frequencies_and_does_not_decay(b0):
    plan = plan_of("method.bias_init=prior", f"method.b0={b0}")
    network = network_of(plan)
    with torch.no_grad():
        network.head.weight.zero_()
        actual = network.head(torch.zeros(1, network.backbone.num_features)).softmax(1)[0]
    counts = torch.tensor(plan.dataset_info.class_counts)
    torch.testing.assert_close(actual, counts / counts.sum())
    optimizer, _ = network.optimisation(8)
    bias = network.head.bias
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay[id(bias)] == 0
    assert decay[id(network.head.weight)] > 0


@pytest.mark.parametrize("head", [["head.bias=false"], ["head=cosine"]])
def test_a_prior_bias_needs_a_bias(head):
    with pytest.raises(ConfigError, match="needs a head with a bias"):
        plan_of("method.bias_init=prior", *head)


def test_a_head_without_bias_trains():
    plan = plan_of("head.bias=false")
    network = network_of(plan)
    assert network.head.bias is None
    step(network, plan.batch())


# -- the auxiliary head -----------------------------------------------------------------------------------------------


def pseudo_of(plan, width, groups=10, seed=0):
    """Pseudo-labels with a teacher's last layer of this width."""
    random = np.random.default_rng(seed)
    arrays = dict(parents_of(plan)["pseudo_labels"].arrays)
    layer = {"weight": (groups, width), "bias": (groups,)}
    return arrays | {name: random.standard_normal(shape).astype(np.float32) for name, shape in layer.items()}


@pytest.mark.parametrize("init", ["auto", "teacher"])
def test_the_auxiliary_head_starts_as_a_copy_of_the_teachers_last_layer_if_it_fits(init):
    plan = plan_of(f"method.aux.init={init}")
    pseudo = pseudo_of(plan, 64)
    network = network_of(plan, pseudo_labels=pseudo)
    assert np.array_equal(network.aux_head.weight.detach().numpy(), pseudo["weight"])
    kept = pseudo["weight"].copy()
    step(network, plan.batch())
    assert not np.array_equal(network.aux_head.weight.detach().numpy(), kept)
    assert np.array_equal(pseudo["weight"], kept)  # nothing is shared with the teacher


def test_a_new_auxiliary_head_depends_on_the_seed():
    plan = plan_of("method.aux.init=fresh")
    first, again, other = (network_of(plan, seed, pseudo_labels=pseudo_of(plan, 64)) for seed in (0, 0, 1))
    assert torch.equal(first.aux_head.weight, again.aux_head.weight)
    assert not torch.equal(first.aux_head.weight, other.aux_head.weight)


def test_a_teacher_of_another_width_is_ignored_or_refused_by_the_option():
    network_of(plan_of(), pseudo_labels=pseudo_of(plan_of(), 32))
    plan = plan_of("method.aux.init=teacher")
    with pytest.raises(ConfigError, match=r"auxiliary head is \[10, 64\].*the teacher's is \[10, 32\]"):
        network_of(plan, pseudo_labels=pseudo_of(plan, 32))
    with pytest.raises(ConfigError, match="these pseudo-labels have none"):
        network_of(plan)


def test_soft_labels_are_weighted_by_their_probabilities():
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0, 3], [1, 2], [5, 4], [2, 0]])
    shares = torch.tensor([[0.7, 0.3]] * 4).half()
    whole = torch.zeros(4, 6).scatter(1, labels, shares.float())
    torch.testing.assert_close(soft_cross_entropy(logits, labels, shares), -(whole * logits.log_softmax(1)).sum(1))


def test_one_soft_label_is_a_hard_label():
    logits, labels = torch.randn(4, 6), torch.tensor([[0], [1], [5], [2]])
    actual = soft_cross_entropy(logits, labels, torch.ones(4, 1).half())
    torch.testing.assert_close(actual, F.cross_entropy(logits, labels[:, 0], reduction="none"))


def test_soft_labels_train():
    plan = plan_of()
    hard = parents_of(plan)["pseudo_labels"].arrays
    labels = np.stack([hard["labels"], (hard["labels"] + 1) % 10], axis=1)
    shares = np.tile(np.array([0.75, 0.25], dtype=np.float16), (len(labels), 1))
    network = network_of(plan, pseudo_labels={**hard, "labels": labels, "shares": shares}).eval()
    batch = plan.batch()
    with torch.no_grad():
        aux = network.aux_head(network.features(network.to_unit(batch.images)))
    first, second = (F.cross_entropy(aux, torch.tensor(labels)[batch.indices, k].long()) for k in (0, 1))
    actual = network.training_step(batch, 0)["logs"]["aux_loss"]
    torch.testing.assert_close(actual, 0.75 * first + 0.25 * second)


def test_shuffled_pseudo_labels_train_with_permuted_targets():
    plan, shuffled = plan_of(), plan_of("method.aux.shuffled=true")
    parents = parents_of(shuffled)
    actual, own = network_of(shuffled)._labels, network_of(plan)._labels
    assert torch.equal(actual, own[torch.tensor(parents["partition"].arrays["taken_from"])])
    assert not torch.equal(actual, own)


def test_without_an_auxiliary_weight_there_is_no_auxiliary_head():
    plan = plan_of(NO_AUX)
    assert list(plan.stages) == ["representation"]
    network = network_of(plan)
    assert network.aux_head is None
    assert network.training_step(plan.batch(), 0)["logs"] == {}


def test_the_network_is_rebuilt_from_its_checkpoint():
    plan = plan_of("method.background_weight=0.5", "method.bias_init=prior")
    network = network_of(plan)
    step(network, plan.batch())
    again = type(network)(network.spec, **copy.deepcopy(network.options))
    again.load_state_dict(network.state_dict())
    images = plan.batch("test").images
    first, second = (one.eval().predict(images)["default"].logits for one in (network, again))
    assert torch.equal(first, second)


@pytest.mark.parametrize("override", ["method.b0=0.7", "method.b0=null"])
def test_decoupled_methods_start_from_a_classifier_of_the_same_logits(override):
    plan = plan_of(override)
    network = network_of(plan)
    step(network, plan.batch())
    images = plan.batch("test").images
    first, second = (one.eval().predict(images)["default"].logits for one in (network, network.as_classifier()))
    torch.testing.assert_close(first, second)
    assert type(network.as_classifier()) is ImageClassifier


@pytest.mark.parametrize(
    ("method", "head"),
    [("posthoc_la", "cosine"), ("lws", "cosine"), ("posthoc_la", "linear"), ("lws", "linear"), ("tau_norm", "linear")],
)
def test_methods_that_keep_the_head_need_one_with_a_bias(method, head):
    overrides = (f"method={method}", "method.representation=background_splitting", f"head={head}")
    overrides += ("method.representation.aux.weight=0", *(("head.bias=false",) if head == "linear" else ()))
    with pytest.raises(ConfigError, match=r"constant background logit.*method\.representation\.b0=null"):
        planned("dataset=digits_bg", *overrides)
    planned("dataset=digits_bg", *overrides, "method.representation.b0=null")


def test_an_edited_taxonomy_changes_the_key_of_its_pseudo_labels():
    plan = planned("dataset=digits_bg", "method=background_splitting", NO_AUX)
    stage = Stage(
        "p", "p", plan.stages["representation"].settings, compute=by_taxonomy, of_source=True, taxonomy_rank="genus"
    )
    keys = []
    for names in ("aabbccddee", "aabbccddef", "aabbccddee"):
        source = replace(plan.data.source, taxonomy={"genus": tuple(names)})
        keys.append(stage_key(stage_spec(stage, 0, source, plan.data.split, plan.dataset_info, {})))
    assert keys[0] == keys[2] != keys[1]


def test_partition_statistics_are_written_as_an_artifact():
    actual = network_of(plan_of()).artifacts()
    assert actual["background_counts"].sum() == plan_of().dataset_info.class_counts[0]
    assert 0 < actual["background_largest_share"] < 1
    assert {"size", "largest_share", "entropy", "background_size", "background_entropy"} <= set(actual)
    assert all(isinstance(array, (np.ndarray, np.generic)) for array in actual.values())


def test_a_partition_into_one_class_warns_before_training():
    plan = plan_of()
    hard = dict(parents_of(plan)["pseudo_labels"].arrays)
    hard["labels"] = np.where(hard["labels"] >= 0, 0, -1).astype(np.int32)
    network = network_of(plan, pseudo_labels=hard)
    with warnings.catch_warnings(record=True) as actual:
        warnings.simplefilter("always")
        network.on_fit_start()
    assert any("100.0% of the background" in str(warning.message) for warning in actual)


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["augment.mix=mixup"], "a mixed image has no pseudo-label"),
        (["augment.mix=cutmix", NO_AUX, "method.labelled_fraction=0.5"], "a mixed image has no pseudo-label"),
        (["method.aux.labels=soft"], r"labels=soft: only method\.aux\.partition=teacher"),
        (["method.aux.exclude_classes=[3]"], r"exclude_classes=\[3\]: only method\.aux\.partition=teacher"),
    ],
)
def test_contradictory_options_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        plan_of(*overrides)


def test_mixed_images_are_accepted_by_thresholding_only():
    plan = plan_of("augment.mix=mixup", NO_AUX)
    network, batch = network_of(plan).eval(), plan.batch()
    mix = Mix(batch.labels.flip(0), torch.full((len(batch.labels),), 0.6))
    assert network.training_step(batch._replace(images=batch.images.float() / 255, mix=mix), 0)["loss"].isfinite()


def test_data_without_a_background_class_are_refused():
    plan = planned("dataset=digits_lt")
    method = plan_of().method
    with pytest.raises(ConfigError, match=r"needs data with a background class.*evaluated by closed_set"):
        method.check(plan.dataset_info)
    method.check(plan_of().dataset_info)


@pytest.mark.parametrize("b0", [math.nan, math.inf])
def test_a_b0_that_is_not_finite_is_refused(b0):
    method = plan_of().config["method"]
    options = {key: value for key, value in method.items() if key not in ("_target_", "name", "_allowed_")}
    with pytest.raises(ConfigError, match=r"method\.b0=.*allowed is \(-inf, inf\) or null"):
        type(plan_of().method)(**{**options, "b0": b0})


def test_the_network_is_an_image_classifier():
    assert issubclass(plan_of().stages["representation"].target, ImageClassifier)
    assert plan_of().method.provides == ("logits", "features")
