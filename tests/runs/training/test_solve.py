"""Linear heads solved for with L-BFGS: the optimum of the stated objective, and its penalty chosen on validation."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from ltr.configuration.configs import config_names
from ltr.configuration.overrides import load_config
from ltr.configuration.targets import instantiate
from ltr.data.loaders.feature_table import FeatureTable
from ltr.methods.core.checkpoint import load_network
from ltr.runs.training.solve import minimise

LBFGS = ["features=stored", "features.solver=lbfgs", "trainer.precision=fp32", "trainer.max_epochs=2"]
pytestmark = pytest.mark.filterwarnings("ignore:.*(at random values|of a random backbone).*")


class Quadratic:
    """(x - 3)^2 + l2 / 2 x^2, whose minimum is 6 / (2 + l2)."""

    def __init__(self):
        self.x = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.parameters = [self.x]

    def __call__(self, l2):
        value = (self.x - 3).square().sum() + l2 / 2 * self.x.square().sum()
        value.backward()
        return value.detach()


def test_the_minimum_of_a_quadratic_is_reached():
    objective = Quadratic()
    value, evaluations = minimise(objective, 1.0, 50)
    assert objective.x.item() == pytest.approx(2.0, abs=1e-6)
    assert value == pytest.approx(3.0, abs=1e-9)
    assert evaluations <= 50


@pytest.mark.parametrize("sampler", ["instance", "class_balanced"])
def test_the_gradient_of_the_objective_in_double_precision_is_zero_at_the_solution(ltr_train, sampler):
    run = ltr_train(*LBFGS, "features.l2=0.1", f"sampler={sampler}")
    assert run.code == 0, run.err
    network = load_network(run.directory / "checkpoints" / "final.ckpt")
    (folder,) = {path.parent for path in run.outputs.glob("stages/*/features-*.f32")}
    from ltr.data.sources.digits import digits

    with np.load(run.directory / "split.npz") as split:
        train = split["train"]
    source = digits()
    features = network.standardization(torch.from_numpy(FeatureTable(folder, len(source), 64).take(train))).double()
    labels = torch.from_numpy(source.labels[train]).long()
    counts = torch.bincount(labels).double()
    weights = torch.ones(len(labels)).double() / len(labels) if sampler == "instance" else 1 / (10 * counts[labels])
    weight = network.head.weight.detach().double().requires_grad_()
    bias = network.head.bias.detach().double()
    losses = torch.nn.functional.cross_entropy(features @ weight.T + bias, labels, reduction="none")
    ((losses * weights).sum() + 0.05 * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 1e-4


def test_the_penalty_is_chosen_on_validation_images(ltr_train):
    run = ltr_train(*LBFGS, "dataset.val=train_fraction", "features.l2_path=[1.0,0.01]")
    assert run.code == 0, run.err
    assert "is the best on 47 validation images" in run.out
    (stage,) = (path.parent for path in run.outputs.glob("stages/*/l2.npz"))
    assert (stage / "weights.ckpt").is_file()
    spec = json.loads((stage / "stage.json").read_text())["spec"]
    assert spec["settings"]["features"]["l2_path"] == [1.0, 0.01]
    assert "val" in spec
    with (stage / "metrics.csv").open() as lines:
        values = [float(row["val/balanced_accuracy"]) for row in csv.DictReader(lines)]
    with np.load(stage / "l2.npz") as chosen:
        assert int(chosen["chosen"]) == int(np.argmax(values))


def test_the_penalty_shrinks_the_solved_scales_of_lws(ltr_train, tmp_path):
    scales = []
    for number, l2 in enumerate((0.01, 10)):
        run = ltr_train(*LBFGS, f"features.l2={l2}", "method=lws", outputs=tmp_path / str(number))
        assert run.code == 0, run.err
        scales.append(load_network(run.directory / "checkpoints" / "final.ckpt").head.scales.detach())
    assert not torch.equal(scales[0], torch.ones_like(scales[0]))
    assert scales[1].norm() < scales[0].norm()


REFUSED = {
    "without validation": ([], "dataset.val=train_fraction"),
    "points": (["dataset=digits_open", "method=rpl", "features.l2=1"], "features.solver=minibatch"),
    "a cosine head": (["loss=ldam", "features.l2=1"], "a head of kind 'cosine'"),
    "the solver without its group": (["solver=lbfgs", "features.l2=1"], "Did you mean 'features.solver'?"),
    "a penalty below zero": (["features.l2=-1"], "features.l2=-1"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_problems_that_are_not_convex_are_refused_with_alternatives(ltr_train, case):
    options, advice = case
    run = ltr_train(*LBFGS, *options)
    assert run.code not in (0, None)
    assert advice in run.err
    assert "Traceback" not in run.err


OF_CLASSES = [name for name in config_names("loss") if name not in ("triplet", "prototypical")]
POTENTIALS = [*OF_CLASSES, "seesaw loss.counts=training", "seesaw loss.counts=training loss.q=0"]
NOT_SOLVABLE = {
    "equalization": "another loss",
    "equalization_v2": "another loss",
    "seesaw": "loss.counts=training loss.q=0",
    "seesaw loss.counts=training": "loss.q=0",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", POTENTIALS)
def test_the_solver_gets_losses_whose_gradient_is_that_of_their_value(ltr_train, name):
    planned = ltr_train(
        *LBFGS, *f"loss={name}".split(), "features.l2=1", "head=linear", "head.bias=true", "stages=plan"
    )
    if name in NOT_SOLVABLE:
        assert planned.code == 2
        assert f"features.solver=minibatch, or {NOT_SOLVABLE[name]}\n" in planned.err
        return
    assert planned.code == 0, planned.err
    loss = instantiate(load_config(f"loss={name}".split())["loss"], (600, 170, 30, 5)).train()
    loss.start_epoch(9, 10)
    logits = torch.randn(8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: loss(z, torch.arange(8) % 4), logits)


@pytest.mark.parametrize("selection", ["best_val", "best_test"])
def test_a_selection_of_epochs_is_refused_for_a_solver_that_has_none(ltr_train, selection):
    run = ltr_train(*LBFGS, f"trainer.selection={selection}", "dataset.val=train_fraction", "stages=plan")
    assert run.code == 2
    assert f"trainer.selection={selection}: features.solver=lbfgs has no epochs to select among" in run.err


def test_the_solution_does_not_depend_on_the_seed_of_the_head(ltr_train, tmp_path):
    """The backbone's weights are those of one run, as random ones depend on the seed."""
    weights = ltr_train("trainer.max_epochs=1", "trainer.precision=fp32").directory / "checkpoints" / "final.ckpt"
    more = [*LBFGS, "features.l2=0.01", f"backbone.weights={weights}"]
    heads = []
    for seed in (0, 1):
        run = ltr_train(*more, f"seed={seed}", outputs=tmp_path / str(seed))
        heads.append(load_network(run.directory / "checkpoints" / "final.ckpt").head)
    assert torch.equal(heads[0].weight, heads[1].weight)
