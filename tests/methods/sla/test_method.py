"""SLA: joint labels, aggregation and distillation against naive loops, and the network that later stages get."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from method_plans import planned, state, step

from ltr.data.batch import Batch, Mix
from ltr.errors import ConfigError
from ltr.losses.weights import ldam_margins
from ltr.methods.core.checkpoint import load_network, network_checkpoint, write_checkpoint
from ltr.methods.sla.method import JointClassifier
from resuming import same_bits

SIZES = {"none": 1, "rotation2": 2, "rotation": 4, "colour": 6, "rotation_colour": 24}
DISTILLED = "method.self_distillation=true"


def built(*overrides: str, transform: str = "rotation") -> JointClassifier:
    """An untrained network, for images of three channels where the transformation needs them."""
    plan = planned("method=sla", *overrides)
    stage, dataset_info = plan.stages["representation"], plan.dataset_info
    if "colour" in transform:
        dataset_info = replace(dataset_info, image_shape=(3, 8, 8), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    network = replace(stage, options={**stage.options, "transform": transform}).network(dataset_info, 0)
    network.start_epoch(0)
    return network


def batch_for(network: JointClassifier, size: int = 6, mixed: bool = False) -> Batch:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (size, *network.dataset_info.image_shape), dtype=torch.uint8, generator=random)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (size,), generator=random)
    if not mixed:
        return Batch(images, labels, torch.arange(size))
    mix = Mix(torch.randint(0, 10, (size,), generator=random), torch.full((size,), 0.3))
    return Batch(images.float() / 255, labels, torch.arange(size), mix)


def views_of(network: JointClassifier, image: torch.Tensor) -> list[torch.Tensor]:
    return [network.transforms.one(image[None], number) for number in range(len(network.transforms))]


def joint_logits(network: JointClassifier, view: torch.Tensor) -> torch.Tensor:
    return network(network.to_unit(view))[0]


@pytest.mark.parametrize("transform", SIZES)
def test_joint_labels_are_y_times_m_plus_j_in_the_order_of_the_rows(transform):
    network, count = built(transform=transform), SIZES[transform]
    batch = batch_for(network, mixed=True)
    labels, mix = network.joint_labels(batch)
    naive = [
        (int(y) * count + j, int(y2) * count + j) for y, y2 in zip(batch.labels, batch.mix.labels) for j in range(count)
    ]
    assert list(zip(labels.tolist(), mix.labels.tolist())) == naive
    assert mix.weight.tolist() == pytest.approx([0.3] * len(naive))
    assert len(network.transforms(batch.images)) == len(naive)
    assert network.head.num_classes == 10 * count


@pytest.mark.parametrize("mixed", [False, True], ids=["plain", "mixed"])
@pytest.mark.parametrize("transform", SIZES)
def test_the_loss_equals_a_loop_over_images_and_transformations(transform, mixed):
    network, count = built(transform=transform).eval(), SIZES[transform]
    batch = batch_for(network, mixed=mixed)
    total = 0.0
    for i, image in enumerate(batch.images):
        for j, view in enumerate(views_of(network, image)):
            log_p = joint_logits(network, view).log_softmax(0)
            own = -log_p[batch.labels[i] * count + j]
            if mixed:
                own = 0.3 * own - 0.7 * log_p[batch.mix.labels[i] * count + j]
            total = total + own / (count * len(batch.images))
    actual = network.training_step(batch, 0)["loss"]
    torch.testing.assert_close(actual, total, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("transform", SIZES)
@pytest.mark.parametrize("head", ["linear", "cosine"])
@torch.no_grad()
def test_inferences_equal_a_naive_loop(transform, head):
    network, count = built(f"head={head}", DISTILLED, transform=transform).eval(), SIZES[transform]
    batch = batch_for(network)
    actual = network.predict(batch.images)
    assert list(actual) == ["single", "aggregated", "distilled"]
    for i, image in enumerate(batch.images):
        views = [joint_logits(network, view) for view in views_of(network, image)]
        aggregated = [sum(float(z[y * count + j]) for j, z in enumerate(views)) / count for y in range(10)]
        assert actual["aggregated"].logits[i].tolist() == pytest.approx(aggregated, rel=1e-4, abs=1e-5)
        single = [float(views[0][y * count]) for y in range(10)]
        assert actual["single"].logits[i].tolist() == pytest.approx(single, rel=1e-4, abs=1e-5)
        features = network.features(network.to_unit(image[None]))
        torch.testing.assert_close(actual["distilled"].logits[i], network.distilled_head(features)[0])
        assert all(torch.equal(scores.features, actual["single"].features) for scores in actual.values())
        torch.testing.assert_close(actual["single"].features[i], features[0])


@torch.no_grad()
def test_the_sum_aggregates_to_m_times_the_mean():
    mean, total = built().eval(), built("method.aggregation=sum").eval()
    images = batch_for(mean).images
    first, second = (network.predict(images)["aggregated"].logits for network in (mean, total))
    torch.testing.assert_close(second, 4 * first)


def test_with_one_transformation_it_is_erm_to_the_bit():
    plan, erm_plan = planned("method=sla", "method.transform=none"), planned()
    sla, erm = (each.stages["representation"].network(each.dataset_info, 0) for each in (plan, erm_plan))
    for network in (sla, erm):
        network.train()
        network.start_epoch(0)
        step(network, plan.batch(), steps=3)
    assert same_bits(state(sla), state(erm))
    batch = plan.batch("test")
    expected = erm.eval().predict(batch.images)["default"].logits
    assert all(torch.equal(scores.logits, expected) for scores in sla.eval().predict(batch.images).values())


# -- distillation ---------------------------------------------------------------------------------------------------


def distillation_gradients(network: JointClassifier) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the distillation alone by the second head's logits [B, C] and by the joint logits; the target."""
    batch = batch_for(network)
    features = network.features(network.to_unit(network.transforms(batch.images))).detach()
    joint = network.head(features).detach().requires_grad_()
    student = network.distilled_head(features[:: len(network.transforms)]).detach().requires_grad_()
    network.head.forward = lambda _: joint
    network.distilled_head.forward = lambda _: student
    network.loss.forward = lambda *_: joint.sum() * 0
    network.distilled_loss.forward = lambda *_: student.sum() * 0
    network.losses(batch, features)[0].backward()
    target = network.aggregate(joint.detach().unflatten(0, (len(batch.labels), -1)))
    return student, joint, target


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_distilled_head_has_the_gradient_of_the_divergence_from_the_aggregated_prediction(temperature):
    network = built(DISTILLED, f"method.temperature={temperature}").eval()
    student, joint, target = distillation_gradients(network)
    # d/du T^2 KL(p_target || p_student), a mean over images: T (p_student - p_target) / B
    expected = temperature * ((student / temperature).softmax(1) - (target / temperature).softmax(1)) / len(target)
    torch.testing.assert_close(student.grad, expected, rtol=1e-4, atol=1e-7)
    assert not joint.grad.any()


def test_with_sigmoids_each_class_is_distilled_separately():
    network = built(DISTILLED, "loss=focal_sigmoid", "method.temperature=2").eval()
    student, joint, target = distillation_gradients(network)
    expected = 2 * ((student / 2).sigmoid() - (target / 2).sigmoid()) / len(target)
    torch.testing.assert_close(student.grad, expected, rtol=1e-4, atol=1e-7)
    assert not joint.grad.any()


def test_with_distillation_the_loss_is_the_sum_of_three_terms_on_the_untransformed_image():
    network = built(DISTILLED, "method.distilled_weight=0.5", "method.temperature=2").eval()
    batch = batch_for(network)
    with torch.no_grad():
        actual = network.predict(batch.images)
        student, target = actual["distilled"].logits, actual["aggregated"].logits
        own = F.cross_entropy(student, batch.labels)
        p, q = (target / 2).softmax(1), (student / 2).softmax(1)
        distance = 4 * (p * (p / q).log()).sum(1).mean()
        outcome = network.training_step(batch, 0)
        logs = outcome["logs"]
    torch.testing.assert_close(logs["distilled_loss"], own)
    torch.testing.assert_close(logs["distillation"], distance, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(outcome["loss"], logs["joint_loss"] + 0.5 * own + distance)
    assert outcome["correct"] == (student.argmax(1) == batch.labels).sum()


def test_the_sum_over_transformations_scales_only_the_joint_loss():
    one, many = built(DISTILLED).eval(), built(DISTILLED, "method.loss_scale=M").eval()
    batch = batch_for(one)
    first, second = (network.training_step(batch, 0) for network in (one, many))
    torch.testing.assert_close(second["logs"]["joint_loss"], 4 * first["logs"]["joint_loss"])
    for name in ("distilled_loss", "distillation"):
        assert torch.equal(first["logs"][name], second["logs"][name])


def test_the_second_head_is_trained_and_initialised_from_the_seed():
    network, again = built(DISTILLED), built(DISTILLED)
    assert same_bits(state(network.distilled_head), state(again.distilled_head))
    before = state(network.distilled_head)
    step(network.train(), batch_for(network))
    assert not any(torch.equal(before[name], tensor) for name, tensor in state(network.distilled_head).items())


# -- other losses ---------------------------------------------------------------------------------------------------


def test_weights_and_margins_of_a_joint_class_are_those_of_its_class():
    plain = planned("loss=ldam", "loss.beta=0.999").representation()
    network = built("loss=ldam", "loss.beta=0.999", DISTILLED)
    counts = network.dataset_info.class_counts
    torch.testing.assert_close(network.loss.weights, plain.loss.weights.repeat_interleave(4))
    margins = torch.tensor(ldam_margins(counts, 0.5), dtype=torch.float32).repeat_interleave(4)
    torch.testing.assert_close(network.loss.margins, margins)
    assert torch.equal(network.distilled_loss.margins, plain.loss.margins)
    assert network.head.head_kind == network.distilled_head.head_kind == "cosine"


def test_deferred_weights_apply_to_both_losses_from_the_same_epoch():
    network = built("loss=ldam", "loss.beta=0.999", "loss.defer_from=0.5", DISTILLED, "trainer.max_epochs=4")
    actual = []
    for epoch in range(4):
        network.start_epoch(epoch)
        actual.append((network.loss.active, network.distilled_loss.active))
    assert actual == [(False, False)] * 2 + [(True, True)] * 2


def test_sigmoid_losses_set_the_bias_of_both_heads_without_weight_decay():
    network = built("loss=focal_sigmoid", DISTILLED)
    assert network.head.bias.tolist() == pytest.approx([-torch.log(torch.tensor(39.0)).item()] * 40)
    assert network.distilled_head.bias.tolist() == pytest.approx([-torch.log(torch.tensor(9.0)).item()] * 10)
    optimizer, _ = network.optimisation(8)
    spared = {id(p) for group in optimizer.param_groups if group["weight_decay"] == 0 for p in group["params"]}
    assert spared == {id(network.head.bias), id(network.distilled_head.bias)}


@pytest.mark.parametrize(
    "loss", ["class_balanced", "focal_softmax", "focal_sigmoid", "balanced_softmax", "logit_adjusted", "vs"]
)
def test_any_loss_trains_with_and_without_mixed_images(loss):
    network = built(f"loss={loss}", DISTILLED).train()
    before = state(network)
    for mixed in (False, True):
        step(network, batch_for(network, mixed=mixed))
    assert all(torch.isfinite(tensor).all() for tensor in state(network).values())
    assert not torch.equal(before["head.weight"], network.head.weight)


# -- what is computed and handed on ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "headline", "passes"),
    [
        ([], "aggregated", 4),
        (["method.inference=single"], "single", 1),
        ([DISTILLED], "distilled", 1),
        ([DISTILLED, "method.inference=aggregated"], "aggregated", 4),
    ],
)
def test_a_single_headline_needs_one_forward_pass_unless_aggregated(overrides, headline, passes):
    network = built(*overrides).eval()
    seen = []
    network.backbone.register_forward_hook(lambda *_: seen.append(1))
    batch = batch_for(network)
    alone = network.validation_step(batch, 0)["scores"]
    assert len(seen) == passes
    everything = network.predict(batch.images)
    assert len(seen) == passes + 4
    assert network.headline == headline
    assert torch.equal(alone.logits, everything[headline].logits)
    assert torch.equal(alone.features, everything[headline].features)


@pytest.mark.parametrize("head", ["head=linear", "head=linear head.bias=false", "head=cosine head.learn_scale=true"])
@pytest.mark.parametrize("overrides", [["method.inference=single"], [DISTILLED]], ids=["single", "distilled"])
def test_as_classifier_gives_the_single_inference(head, overrides):
    network = built(*head.split(), *overrides)
    step(network.train(), batch_for(network))
    network.eval()
    plain = network.as_classifier()
    images = batch_for(network).images
    actual = plain.predict(images)["default"].logits
    torch.testing.assert_close(actual, network.predict(images)[network.headline].logits)
    assert plain.head.num_classes == 10
    assert not plain.training


def test_activation_checkpointing_trains_to_the_same_bits():
    networks = [built(DISTILLED), built(DISTILLED, "method.checkpointing=true")]
    for network in networks:
        step(network.train(), batch_for(network), steps=2)
    assert same_bits(*(state(network) for network in networks))


def test_a_checkpoint_rebuilds_the_network(tmp_path):
    network = built(DISTILLED, "method.aggregation=sum", "method.inference=single").eval()
    write_checkpoint(tmp_path / "weights.ckpt", network_checkpoint(network, {}))
    again = load_network(tmp_path / "weights.ckpt")
    images = batch_for(network).images
    assert again.headline == "single"
    for name, scores in network.predict(images).items():
        assert torch.equal(scores.logits, again.predict(images)[name].logits)


def test_options_change_the_key_of_the_stage():
    keys = {
        planned("method=sla", *more).keys["representation"]
        for more in (
            (),
            (DISTILLED,),
            ("method.transform=rotation2",),
            ("method.loss_scale=M",),
            ("method.aggregation=sum",),
        )
    }
    assert len(keys) == 5


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["sla", "data_augmentation", "multi_task"])
def test_images_that_a_transformation_does_not_apply_to_are_refused_before_training(method):
    plan = planned(f"method={method}", "method.transform=colour")
    with pytest.raises(ConfigError, match="three colour channels"):
        plan.method.check(plan.dataset_info)
    plan = planned(f"method={method}")
    with pytest.raises(ConfigError, match="square"):
        plan.method.check(replace(plan.dataset_info, image_shape=(1, 8, 12)))
    plan.method.check(plan.dataset_info)


def test_the_distilled_inference_needs_its_head():
    with pytest.raises(ConfigError, match="self_distillation=true"):
        planned("method=sla", "method.inference=distilled")
