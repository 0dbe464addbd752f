"""HERBS and PIM as networks: outputs, terms, selection and readouts, on four families of backbones."""

from __future__ import annotations

import csv
import functools
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from method_plans import Plan, planned, state, step

from ltr.data.batch import Batch
from ltr.errors import ConfigError
from ltr.methods.core.checkpoint import load_network, network_checkpoint, write_checkpoint
from ltr.methods.herbs import losses as terms
from ltr.methods.herbs.network import HerbsNetwork
from ltr.methods.herbs.pyramid import Path
from ltr.runs.evaluation.location_stats import LocationStats
from ltr.runs.evaluation.network import evaluate
from resuming import same_bits


class Recorder:
    """A protocol that records the logits of the evaluated part."""

    name, scorer, parts = "recorded", None, ()

    def __init__(self):
        self.logits = []

    def update(self, scores, labels, indices):
        self.logits.append(scores.logits)

    def reduce(self):
        pass

    def compute(self):
        return SimpleNamespace(metrics={})


FAMILIES = ["test_resnet", "test_convnext", "test_efficientnet", "test_vit"]


def of_plan(plan: Plan, seed: int = 0) -> HerbsNetwork:
    (stage,) = plan.stages.values()
    network = stage.network(plan.dataset_info, seed)
    network.start_epoch(0)
    return network


@functools.lru_cache
def digits(*overrides: str) -> tuple[HerbsNetwork, Batch]:
    """A network on the digits that tests only read, and a batch."""
    plan = planned("method=herbs", *overrides)
    return of_plan(plan), plan.batch()


def on_timm(name: str, size: int = 64, *overrides: str) -> tuple[HerbsNetwork, Batch]:
    """A network on a timm backbone, and a batch of two images of noise."""
    plan = planned("method=herbs", "method.width=16", *overrides)
    (stage,) = plan.stages.values()
    backbone = {"_target_": "ltr.models.timm_backbone.TimmBackbone", "name": name}
    if name == "test_vit":
        backbone["img_size"] = size
    dataset_info = type(plan.dataset_info).from_dict(
        plan.dataset_info.to_dict() | {"image_shape": [3, size, size], "mean": [0.5] * 3, "std": [0.2] * 3}
    )
    network = replace(stage, settings=stage.settings.replaced(backbone=backbone)).network(dataset_info, 0)
    network.start_epoch(0)
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return network, Batch(images, torch.tensor([1, 7]), torch.tensor([0, 1]))


@pytest.mark.parametrize("name", FAMILIES)
def test_four_levels_give_nine_outputs_and_every_term_a_finite_gradient(name):
    network, batch = on_timm(name)
    actual = network.training_step(batch, 0)
    actual["loss"].backward()
    trained = [p for module in network.parameter_modules().values() for p in module.parameters()]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)
    scores = network.eval().predict(batch.images)
    assert list(scores) == [
        "sum_of_logits",
        "mean_of_softmaxes",
        "merged",
        *(f"level_{level}" for level in (1, 2, 3, 4)),
        *(f"top_down_{level}" for level in (1, 2, 3, 4)),
    ]
    assert all(actual.logits.shape == (2, 10) for actual in scores.values())


@pytest.mark.parametrize("size", [64, 96])
def test_selected_locations_of_all_levels_enter_the_combiner(size):
    network, batch = on_timm("test_resnet", size)
    entered = []
    network.combiner.register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0].shape))
    network.training_step(batch, 0)
    locations = [(size // stride) ** 2 for stride in (8, 16, 32, 32)]
    expected = [round(n * share) for n, share in zip(locations, (1 / 9, 2 / 9, 4 / 9, 2 / 9))]
    assert list(network.counts) == expected
    assert entered == [(2, sum(expected), 16)]


def test_a_network_of_interpolated_paths_evaluates_images_of_another_size():
    network, batch = on_timm("test_resnet")
    larger = batch.images.repeat(1, 1, 2, 2)
    assert network.eval().predict(larger)["merged"].logits.shape == (2, 10)


def test_selected_and_dropped_locations_are_complementary():
    network, batch = digits()
    actual = network.forward_pass(network.to_unit(batch.images))
    for chosen, count, (height, width) in zip(actual.selections, network.counts, network.pyramid.sizes):
        assert (chosen.dropped.sum(1) == height * width - count).all()
        assert not chosen.dropped.gather(1, chosen.indices).any()


def test_the_readouts_are_the_sum_of_logits_and_the_mean_of_softmaxes():
    network, batch = digits()
    scores = network.predict(batch.images)
    single = torch.stack([s.logits for name, s in scores.items() if name not in ("sum_of_logits", "mean_of_softmaxes")])
    assert len(single) == 7  # three levels
    torch.testing.assert_close(scores["sum_of_logits"].logits, single.sum(0))
    torch.testing.assert_close(scores["mean_of_softmaxes"].logits.softmax(1), single.softmax(2).mean(0))


@pytest.mark.parametrize(
    ("config", "headline"),
    [("herbs", "sum_of_logits"), ("herbs_released", "mean_of_softmaxes"), ("pim", "mean_of_softmaxes")],
)
def test_the_config_declares_what_is_evaluated(config, headline):
    network = of_plan(planned(f"method={config}"))
    assert network.headline == headline
    assert network.link == "softmax"


def test_the_loss_is_the_weighted_sum_of_the_terms_that_are_logged():
    network, batch = digits()
    actual = network.training_step(batch, 0)
    logs = actual["logs"]
    expected = logs["merged"] + 0.3 * logs["layer"] + 5 * logs["dropped"] + logs["refinement"]
    torch.testing.assert_close(actual["loss"].detach(), expected)
    assert set(logs) == {"merged", "layer", "dropped", "refinement", "temperature", "dropped_tanh"}
    assert all(value.ndim == 0 and not value.requires_grad for value in logs.values())


def test_refinement_trains_the_top_down_path_only():
    network, batch = digits()
    network.zero_grad()
    network._losses(actual := network.forward_pass(network.to_unit(batch.images)), network.outputs(actual), batch)[
        "refinement"
    ].backward()
    touched = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any(name.startswith("student_classifiers") for name in touched)
    assert any(name.startswith("pyramid.top_down") for name in touched)
    assert not any(name.startswith(("classifiers", "pyramid.bottom_up", "combiner", "head")) for name in touched)


def test_the_temperature_depends_on_the_epoch_only():
    network = of_plan(planned("method=herbs", "trainer.max_epochs=16"))
    for epoch, expected in ((0, 64.0), (15, 0.5), (2, 32.0)):
        network.start_epoch(epoch)
        assert network.temperature == expected


PLAIN = "method.paths=none"


@pytest.mark.parametrize(
    ("overrides", "outputs", "found_terms"),
    [
        ((PLAIN, "method.suppression=false", "method.refinement=false"), ["original"], ["merged"]),
        ((PLAIN, "method.refinement=false"), ["merged", "level_1"], ["merged", "layer", "dropped"]),
        ((PLAIN, "method.suppression=false"), ["original", "level_1", "level_2"], ["merged", "layer", "refinement"]),
        ((PLAIN,), ["merged", "level_1", "level_2"], ["merged", "layer", "dropped", "refinement"]),
        (("method.suppression=false", "method.levels=1"), ["original", "level_1", "top_down_1"], None),
        (("method.refinement=false",), ["merged", "level_1", "level_2", "level_3"], ["merged", "layer", "dropped"]),
    ],
)
def test_modules_can_be_enabled_separately_and_on_a_plain_backbone(overrides, outputs, found_terms):
    network, batch = digits(*overrides)
    assert network.output_names == outputs
    actual = network.training_step(batch, 0)
    assert found_terms is None or list(network.term_weights) == found_terms
    assert torch.isfinite(actual["loss"])
    assert network.headline in network.predict(batch.images)


def test_on_a_plain_backbone_refinement_trains_the_block_before_the_last():
    network, batch = digits(PLAIN, "method.suppression=false")
    actual = network.forward_pass(network.to_unit(batch.images))
    losses = network._losses(actual, network.outputs(actual), batch)
    expected = terms.refinement_loss([actual.levels[0]], [actual.levels[1]], network.temperature)
    torch.testing.assert_close(losses["refinement"], expected)


def test_without_modules_herbs_is_erm_with_the_same_bits():
    plan = planned()
    erm = plan.stages["representation"]
    network, batch = digits(PLAIN, "method.suppression=false", "method.refinement=false")
    reference = erm.network(plan.dataset_info, 0)
    torch.testing.assert_close(network.training_step(batch, 0)["loss"], reference.training_step(batch, 0)["loss"])


def test_pim_has_only_the_top_down_path():
    network = of_plan(planned("method=pim"))
    assert network.output_names == ["merged", "level_1", "level_2", "level_3"]
    assert network.pyramid.bottom_up is None
    assert network.term_weights == {"merged": 1, "layer": 0.5, "dropped": 5}


def test_the_configs_recipe_for_the_digits_stays_finite_and_learns(ltr_train):
    run = ltr_train("method=herbs", "trainer.max_epochs=8", "trainer.precision=fp32")
    assert run.code == 0, run.err
    with open(run.directory / "metrics.csv", newline="") as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0] / 2


def test_he_initialisation_preserves_the_feature_scale_and_pytorchs_default_shrinks_it():
    level = torch.randn(8, 4, 4, 64, generator=torch.Generator().manual_seed(0))
    sizes = {}
    for init in ("he", "pytorch"):
        torch.manual_seed(0)
        sizes[init] = float(Path([64], 64, top_down=True, init=init)([level])[0].detach().std())
    assert 0.8 < sizes["he"] < 1.25
    assert sizes["pytorch"] < 0.4


def test_the_released_config_has_the_codes_weights_and_reduction():
    network = of_plan(planned("method=herbs_released"))
    assert network.term_weights == {"merged": 1, "layer": 0.3, "dropped": 5, "refinement": 1.375}
    assert network.options["refinement_reduction"] == "mean_over_classes"
    assert network.options["location_rule"] == "image_class"


@pytest.mark.parametrize("loss", ["ldam", "balanced_softmax", "class_balanced", "focal_sigmoid"])
def test_losses_of_the_library_apply_to_the_merged_output(loss):
    network, batch = digits(f"loss={loss}")
    torch.manual_seed(0)
    actual = network.forward_pass(network.to_unit(batch.images))
    merged = network._losses(actual, network.outputs(actual), batch)["merged"]
    torch.testing.assert_close(merged, network.loss(network.head(actual.features), batch.labels))
    assert network.head.num_features == network.pyramid.widths[-1]


def test_random_locations_follow_from_the_step_and_are_fixed_in_evaluation():
    network, batch = digits("method.location_rule=random")
    drawn = [network._draws(64, step) for step in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    network.eval()
    actual = network.forward_pass(network.to_unit(batch.images))
    network.train()
    for chosen in actual.selections:
        assert (chosen.indices == chosen.indices[0]).all()
    assert digits()[0]._draws(64, 0) is None


def test_random_locations_are_the_same_in_several_processes(monkeypatch):
    network, _ = digits("method.location_rule=random")
    whole = network._draws(8, 3)
    monkeypatch.setattr("ltr.methods.herbs.network.world_size", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(HerbsNetwork, "global_rank", rank)
        assert torch.equal(network._draws(4, 3), whole[rank::2])


@pytest.mark.parametrize("overrides", [(), ("method.location_rule=random",), ("method.suppression=false",)])
def test_evaluation_with_one_forward_pass_equals_two_passes(overrides, monkeypatch):
    network, batch = digits(*overrides)
    network.eval()
    expected, locations = network.predict(batch.images), network.locations(batch.images)
    passes = []
    whole = HerbsNetwork.forward_pass
    monkeypatch.setattr(
        HerbsNetwork, "forward_pass", lambda self, *arguments: passes.append(1) or whole(self, *arguments)
    )
    stats = LocationStats(SimpleNamespace(source=SimpleNamespace(boxes=None)))
    protocol = Recorder()
    results = evaluate(
        network,
        {"test": [batch], "unknown": [batch]},
        lambda link, keep: [protocol if keep else Recorder()],
        torch.device("cpu"),
        "fp32",
        stats=stats,
    )
    assert len(passes) == 2  # one for each batch
    assert {result.variant for result in results} == set(expected)
    torch.testing.assert_close(protocol.logits[0], expected[network.headline].logits, rtol=0, atol=0)
    headline = next(result for result in results if result.headline)
    means = {"dropped_tanh": locations["dropped_tanh"].double().mean().item()} if locations else {}
    assert headline.result.metrics == means
    network.train()


def test_gradient_norms_are_those_of_the_weighted_terms_and_change_no_training():
    plan = planned("method=herbs", "method.log_gradient_norms=true")
    network, batch = of_plan(plan), plan.batch()
    torch.manual_seed(0)
    logs = network.training_step(batch, 0)["logs"]
    torch.manual_seed(0)
    actual = network.forward_pass(network.to_unit(batch.images))
    losses = network._losses(actual, network.outputs(actual), batch)
    (5 * losses["dropped"]).backward()
    expected = torch.stack([p.grad.norm() for p in network.parameters() if p.grad is not None]).norm()
    torch.testing.assert_close(logs["gradient_dropped"], expected)
    later = network.training_step(batch, 1)["logs"]
    assert later["gradient_dropped"] == logs["gradient_dropped"]

    measured, bare = of_plan(plan), of_plan(planned("method=herbs"))
    for one in (measured, bare):
        torch.manual_seed(0)
        step(one, batch, steps=2)
    trained = state(measured)
    trained.pop("gradient_norms")
    assert same_bits(trained, state(bare))


def test_examples_show_the_selected_locations():
    network, batch = digits()
    arrays = network.eval().examples(batch.images[:5], batch.labels[:5])
    network.train()
    for level, (count, size) in enumerate(zip(network.counts, network.pyramid.sizes), 1):
        assert arrays[f"selected_{level}"].shape == (5, *size)
        assert (arrays[f"selected_{level}"].sum((1, 2)) == count).all()
    assert arrays["images"].dtype == np.uint8
    assert arrays["images"].shape == (5, 8, 8, 1)
    assert digits("method.suppression=false")[0].examples(batch.images[:5], batch.labels[:5]) == {}


def test_a_checkpoint_rebuilds_the_network(tmp_path):
    network, batch = digits("method.location_rule=random", "method.log_gradient_norms=true")
    write_checkpoint(tmp_path / "weights.ckpt", network_checkpoint(network, {}))
    again = load_network(tmp_path / "weights.ckpt").predict(batch.images)
    network.eval()
    before = network.predict(batch.images)
    network.train()
    for name, scores in before.items():
        torch.testing.assert_close(again[name].logits, scores.logits)


def test_a_checkpoint_from_before_the_hidden_width_still_loads(tmp_path):
    network = of_plan(planned("method=herbs_released", "method.hidden_width=path"))
    content = network_checkpoint(network, {})
    description = json.loads(content["description"])
    for later in ("hidden_width", "mix_equal_levels", "locations_per_joint"):
        del description["options"][later]
    write_checkpoint(tmp_path / "weights.ckpt", content | {"description": json.dumps(description)})
    again = load_network(tmp_path / "weights.ckpt")
    assert same_bits(state(again), state(network))
    assert HerbsNetwork.numerics_version > 1


def test_the_config_of_pim_follows_the_released_code():
    network = of_plan(planned("method=pim"))
    assert network.options["location_rule"] == "location"
    assert network.combiner.to_joints.out_features == max(2, sum(network.counts) // 32)
    assert [type(step).__name__ for step in network.pyramid.top_down.steps] == ["Resampling", "LocationMixing"]


@pytest.mark.parametrize("config", ["herbs_released", "pim"])
def test_the_released_configs_have_the_released_schedule_by_batches(config):
    plan = planned(f"method={config}", "trainer.accumulate=2", "scheduler.warmup_epochs=1", "trainer.max_epochs=3")
    _, schedule = of_plan(plan).optimisation(9)
    expected = [1 / 8, 3 / 8, 5 / 8, 7 / 8, 1]  # of batches 1, 3, 5, 7 and the last of the warm-up's nine
    assert [schedule(step) for step in range(5)] == pytest.approx(expected)
    assert schedule(5) == pytest.approx((1 + np.cos(np.pi * 1 / 27)) / 2)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("method.paths=top_down",), "method.paths=top_down has one path"),
        (("method.selected=[4,2,1]", "method.selected_fractions=[0.1,0.1,0.1]"), "both set the number of locations"),
        (("method.selected=[4,2,5]",), "level 3 of 3 has 4 locations, so that 5"),
        (("method.selected=[4,2]",), "3 levels select"),
    ],
)
def test_invalid_options_are_refused_before_training(overrides, message):
    with pytest.raises(ConfigError, match=message):
        of_plan(planned("method=herbs", *overrides))


def test_a_network_with_a_combiner_cannot_be_a_representation():
    with pytest.raises(ConfigError, match="cannot be another method's representation"):
        digits()[0].as_classifier()
    assert digits("method.suppression=false")[0].as_classifier() is digits("method.suppression=false")[0]


def test_a_checkpoint_with_the_former_name_of_an_option_is_read(tmp_path):
    network, _ = digits("method.location_rule=image_class")
    content = network_checkpoint(network, {})
    description = json.loads(content["description"])
    description["options"]["selection"] = description["options"].pop("location_rule")
    content["description"] = json.dumps(description)
    write_checkpoint(tmp_path / "weights.ckpt", content)
    again = load_network(tmp_path / "weights.ckpt")
    assert again.options["location_rule"] == "image_class"
    assert same_bits(state(again), state(network))
