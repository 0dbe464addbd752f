"""The ensemble: its members and their averaged predictions."""

from __future__ import annotations

import math

import pytest
import torch
from method_plans import planned, state

from ltr.errors import ConfigError
from ltr.methods.core.checkpoint import load_network, network_checkpoint, write_checkpoint
from ltr.methods.core.stage import StageOutput
from ltr.methods.sla.ensemble import average_logits
from resuming import same_bits


def logits(seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(seed))


def trained(plan):
    """Each member with initial weights and non-initial BatchNorm statistics."""
    actual = {}
    for number, (name, stage) in enumerate(plan.stages.items()):
        if stage.module is not None:
            network = stage.network(plan.dataset_info, 0).train()
            images = plan.batch().images[number:]
            network(network.to_unit(images))
            actual[name] = network.eval()
    return actual


def predictor(plan, networks):
    outputs = {name: StageOutput(name, "key", lambda network=network: network) for name, network in networks.items()}
    return plan.method.predictor(outputs)


def test_members_have_different_roles_and_the_first_is_that_of_erm():
    plan = planned("method=ensemble", "method.members=3")
    assert list(plan.stages) == ["representation", "member_2", "member_3", "ensemble"]
    assert len({stage.role for stage in plan.stages.values()}) == 4
    assert plan.keys["representation"] == planned().keys["representation"]
    assert len(set(plan.keys.values())) == 4
    first, second, third = (network.backbone.state_dict() for network in trained(plan).values())
    assert not same_bits(first, second)
    assert not same_bits(second, third)


def test_a_smaller_ensemble_shares_its_members():
    three, two = planned("method=ensemble", "method.members=3"), planned("method=ensemble", "method.members=2")
    assert {name: three.keys[name] for name in ("representation", "member_2")} == {
        name: two.keys[name] for name in ("representation", "member_2")
    }


def test_probabilities_are_averaged_under_softmax():
    expected = logits().softmax(2).mean(0)
    torch.testing.assert_close(average_logits(logits(), "probabilities", "softmax").exp(), expected)


def test_probabilities_are_averaged_under_sigmoid():
    expected = logits().sigmoid().mean(0)
    torch.testing.assert_close(average_logits(logits(), "probabilities", "sigmoid").sigmoid(), expected)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_logits_are_averaged_for_any_link(link):
    assert torch.equal(average_logits(logits(), "logits", link), logits().mean(0))


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_confident_predictions_stay_finite(link):
    sure = torch.tensor([[[200.0, -200.0]], [[200.0, -200.0]]])
    actual = average_logits(sure, "probabilities", link)
    assert torch.isfinite(actual).all()
    assert actual[0, 0] - actual[0, 1] == pytest.approx(400)


def test_one_confident_member_does_not_determine_the_average():
    actual = average_logits(torch.tensor([[[100.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]]]), "probabilities", "softmax")
    p = (1 + 2 / (1 + math.e)) / 3
    assert actual.exp()[0].tolist() == pytest.approx([p, 1 - p])
    assert average_logits(torch.tensor([[[100.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]]]), "logits", "softmax").argmax() == 0


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@torch.no_grad()
def test_the_predictor_averages_all_members_and_reports_the_first(average):
    plan = planned("method=ensemble", "method.members=3", f"method.average={average}")
    networks = trained(plan)
    images = plan.batch("test").images
    ensemble = predictor(plan, networks)
    alone = [network.predict(images)["default"] for network in networks.values()]
    actual = ensemble.predict(images)
    assert ensemble.headline == "ensemble"
    assert torch.equal(actual["single"].logits, alone[0].logits)
    expected = average_logits(torch.stack([scores.logits for scores in alone]), average, "softmax")
    torch.testing.assert_close(actual["ensemble"].logits, expected)
    assert torch.equal(actual["ensemble"].features, torch.cat([scores.features for scores in alone], dim=1))


def test_a_checkpoint_rebuilds_the_whole_ensemble(tmp_path):
    plan = planned("method=ensemble", "method.members=2")
    ensemble = predictor(plan, trained(plan))
    write_checkpoint(tmp_path / "final.ckpt", network_checkpoint(ensemble, {}))
    again = load_network(tmp_path / "final.ckpt")
    assert same_bits(state(ensemble), state(again))
    images = plan.batch("test").images
    assert torch.equal(again.predict(images)["ensemble"].logits, ensemble.predict(images)["ensemble"].logits)


def test_at_least_two_members_are_needed():
    with pytest.raises(ConfigError, match=r"method\.members"):
        planned("method=ensemble", "method.members=1")
