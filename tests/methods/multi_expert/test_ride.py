"""RIDE: the schedule of its temperatures, its routers, what they cost, and runs of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from method_plans import planned, state, step

from ltr.errors import ConfigError
from ltr.methods.core.stage import StageOutput
from ltr.methods.multi_expert.losses import class_temperatures, diversity
from ltr.methods.multi_expert.routing import experts_used, routing_metrics
from resuming import same_bits

LDAM = ("method=ride", "loss=ldam", "loss.beta=0.999", "augment=digits")


@pytest.fixture(scope="module")
def plan():
    return planned(*LDAM)


@pytest.fixture
def experts(plan):
    return plan.representation()


@pytest.fixture
def routed(plan, experts):
    stage = plan.stages["assignment"]
    return stage.network(
        plan.dataset_info, 0, {"representation": StageOutput("representation", "key", lambda: experts)}
    )


def test_the_loss_is_that_of_each_expert_and_the_divergence(plan, experts):
    batch = plan.batch()
    experts.start_epoch(0)
    logits = experts.head.each(experts.features(experts.to_unit(batch.images)))
    expected = sum(experts.loss(logits[:, k], batch.labels) for k in range(3))
    expected = expected - 0.45 * diversity(logits, torch.ones(10)).mean()
    torch.testing.assert_close(experts.training_step(batch, 0)["loss"], expected)


def test_temperatures_differ_by_class_from_four_fifths_on(plan, experts):
    batch = plan.batch()
    logits = experts.head.each(experts.features(experts.to_unit(batch.images))).detach()
    by_class = torch.from_numpy(class_temperatures(plan.dataset_info.class_counts, 1.0, 0.05)).float()
    epochs = experts.settings.epochs
    for epoch, temperatures in ((round(0.8 * epochs) - 1, torch.ones(10)), (round(0.8 * epochs), by_class)):
        experts.start_epoch(epoch)
        logs = experts.expert_loss(logits, batch)[1]
        torch.testing.assert_close(logs["diversity"], diversity(logits, temperatures).mean())


def test_the_loss_of_the_mean_counts_once_for_each_expert(plan):
    other = planned(*LDAM, "method.loss_of=mean", "method.diversity_factor=0")
    network, batch = other.representation(), plan.batch()
    with torch.no_grad():
        logits = network(network.to_unit(batch.images))
        torch.testing.assert_close(
            network.training_step(batch, 0)["loss"], 3 * network.loss(logits, batch.labels), rtol=1e-4, atol=1e-4
        )


def test_a_factor_too_large_for_the_tail_is_refused():
    other = planned(*LDAM, "method.temperature_rule=shift", "method.reweight_factor=0.9")
    with pytest.raises(ConfigError, match="temperature_rule=ratio"):
        other.representation()


def test_only_routers_are_trained_in_the_second_stage(plan, experts, routed):
    before = state(routed)
    step(routed.train(), plan.batch(), steps=2)
    changed = {name.split(".")[0] for name, tensor in state(routed).items() if not torch.equal(tensor, before[name])}
    assert changed == {"routers"}
    assert same_bits(state(routed.backbone), state(experts.backbone))
    assert same_bits(state(routed.head), state(experts.head))


def test_the_number_of_experts_is_that_of_the_first_router_that_stops():
    scores = torch.tensor([[-1.0, 1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, -1.0], [1.0, 1.0, 1.0]])
    assert experts_used(scores).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("bias", [-100.0, 0.0, 100.0], ids=["never", "sometimes", "always"])
def test_evaluating_experts_one_by_one_gives_the_scores_of_evaluating_all(plan, routed, bias):
    routed.eval()
    with torch.no_grad():
        routed.routers.last[0].bias.fill_(bias)
    images = plan.batch("test").images
    scores = routed.predict(images)
    torch.testing.assert_close(routed.routed(images)[0], scores["routed"].logits)
    with torch.no_grad():
        torch.testing.assert_close(routed(routed.to_unit(images)), scores["routed"].logits)
        used = routed.routed(images)[1]
    if bias:
        one_variant = "expert_1" if bias < 0 else "ensemble"
        assert used.unique().tolist() == [1 if bias < 0 else 3]
        torch.testing.assert_close(scores["routed"].logits, scores[one_variant].logits)


def test_an_evaluation_passes_images_once(plan, routed, monkeypatch):
    images = plan.batch("test").images
    routed.eval().predict(images)
    expected = routed.routed(images)[1]
    monkeypatch.setattr(routed, "routed", lambda _: pytest.fail("a second pass"))
    assert torch.equal(routed.experts_asked(images), expected)
    monkeypatch.setattr(routed, "routed", lambda other: (None, other.sum()))
    assert routed.experts_asked(images.clone()) == images.sum(), "other images than those of the prediction"


def test_costs_count_the_evaluated_experts(routed):
    one, two, three = routed.macs()
    assert 0 < one < two < three
    assert three - two < two - one  # the last expert is followed by no router
    metrics = routing_metrics(np.array([1, 1, 1, 3]), [one, two, three])
    assert metrics["experts"] == 1.5
    assert [metrics[f"share_{k}"] for k in (1, 2, 3)] == [0.75, 0.0, 0.25]
    assert metrics["macs"] == pytest.approx((0.75 * one + 0.25 * three) / 1e6)


def test_by_default_the_routers_read_all_logits_of_a_data_set_of_few_classes(ltr_train):
    done = ltr_train("method=ride", "dataset=digits_bg", "stages=plan")
    assert done.code == 0, done.err
    assert ltr_train("method=ride", "dataset=digits_bg", "method.top_choices=3", "stages=plan").out == done.out


def test_experts_cannot_be_a_representation(ltr_train):
    done = ltr_train("method=crt", "method.representation=ride", "stages=plan")
    assert done.code == 2
    assert "RIDE itself starts from a representation" in done.err


def test_a_run_reports_routing_and_its_checkpoint_gives_the_same_rows_and_export(ltr_train, ltr_eval, tmp_path):
    from ltr.apply.export import export

    done = ltr_train(
        *LDAM,
        "trainer.max_epochs=1",
        "trainer.precision=fp32",
        "trainer.limit_train_batches=3",
        "method.assignment.epochs=1",
    )
    assert done.code == 0, done.err
    rows = done.result["rows"]
    assert [row["variant"] for row in rows if row["headline"]] == ["routed"]
    (routing,) = [row["metrics"] for row in rows if row["protocol"] == "routing"]
    assert 1 <= routing["experts"] <= 3
    assert routing["macs_of_one"] <= routing["macs"] <= routing["macs_of_all"]
    code, _, err = ltr_eval(done.directory, "--json", tmp_path / "again.json", "trainer.precision=fp32")
    assert code == 0, err
    assert json.loads((tmp_path / "again.json").read_text())["rows"] == rows
    assert export(done.directory / "checkpoints" / "final.ckpt", tmp_path / "export").difference == 0
