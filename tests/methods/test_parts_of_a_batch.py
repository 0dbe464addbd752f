"""Gradients of the parts of a batch: their mean is that of the batch, unless a method compares images by its nature.

``trainer.accumulate`` and ``trainer.auto_accumulate`` sum the gradients of parts. Batch normalisation is frozen here
and dropout is off, because both depend on the part; networks are in float64, so that a difference is none of rounding.
"""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from method_plans import Plan, planned
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from view_batches import three_views

from ltr.configuration.configs import config_names
from ltr.data.batch import Batch
from ltr.methods.core.stage import Stage, StageOutput
from ltr.runs.training.micro_batch import micro_batches_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

DATASETS = {
    **dict.fromkeys(("arpl", "arpl_cs", "gcpl", "rpl", "rpl_confirmed", "rpl_official", "rpl_pp"), "digits_open"),
    **dict.fromkeys(("prototypical", "rkd", "triplet"), "digits_retrieval"),
    "background_splitting": "digits_bg",
}
MORE = dict.fromkeys(("ride", "ride_distill", "sade"), ("backbone=resnet20",))
MORE["background_splitting"] = ("method.aux.partition=kmeans", "method.aux.features=pixels")
MORE["ride_distill"] += ("method.teacher_statistics=running",)
# steps that read the positions of their images from the trainer (see test_accumulation); arpl_cs cannot accumulate
OF_A_TRAINER = ("arpl_cs", "non_robust_features", "smote")
# stages whose loss compares the images of a batch; the documentation of trainer.accumulate names them
OF_A_BATCH = {
    ("bcl", "representation"): "contrasts images",
    ("proco", "representation"): "estimates distributions",
    ("prototypical", "embedding"): "classifies queries by the support of their episode",
    ("rkd", "teacher"): "mines triplets",
    ("rkd", "student"): "compares distances",
    ("rkd_classification", "student"): "compares distances",
    ("triplet", "embedding"): "mines triplets",
    ("cc_sam", "representation"): "perturbs weights by the gradient of a class's images",
    ("cc_sam", "classifier"): "divides gradients of features by their norm over a class's images",
    ("rpl", "representation"): "starts its radii from the first batch",
    ("rpl_pp", "representation"): "starts its radii from the first batch",
}


def parents_of(plan: Plan, stage: Stage) -> dict[str, StageOutput]:
    """Return the outputs of a stage's parents with initial weights, and with the arrays that they compute."""
    outputs: dict[str, StageOutput] = {}
    for name in stage.parents:
        parent = plan.stages[name]
        before = parents_of(plan, parent)
        if parent.module is None:
            arrays = parent.target(plan.computation(name, before), **parent.options)
            outputs[name] = StageOutput(name, "", lambda: None, arrays=arrays)
        else:
            network = parent.network(plan.dataset_info, 0, before).eval().double()
            outputs[name] = StageOutput(name, "", lambda network=network: deepcopy(network))
    return outputs


def as_float64(batch: Batch) -> Batch:
    images, *views = (one.double() / 255 for one in (batch.images, *batch.views))
    return Batch(images, batch.labels, batch.indices, None, tuple(views))


def gradients(network: nn.Module, batch: Batch, parts: int) -> Tensor:
    """Return the gradient of a step over so many parts, of all parameters together."""
    network = deepcopy(network)
    for number, part in enumerate(micro_batches_of(batch, len(batch.labels) // parts)):
        loss = network.training_step(part, number)["loss"]
        (loss if network.loss_is_sum else loss / parts).backward()
    rows = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters() if p.requires_grad]
    return torch.cat([row.flatten() for row in rows])


@pytest.mark.parametrize("name", [one for one in config_names("method") if one not in OF_A_TRAINER])
def test_parts_give_the_gradient_of_their_batch_or_the_method_compares_images(name):
    dataset = f"dataset={DATASETS.get(name, 'digits_lt')}"
    plan = planned(f"method={name}", dataset, "augment=none", *MORE.get(name, ()))
    trained = [stage for stage in plan.stages.values() if stage.module is not None]
    assert trained
    for stage in trained:
        network = stage.network(plan.dataset_info, 0, parents_of(plan, stage)).train()
        network.start_epoch(0)
        for part in network.modules():
            if isinstance(part, _BatchNorm):
                part.eval()
            elif isinstance(part, (nn.Dropout, nn.Dropout2d)):
                part.p = 0.0
        batch = three_views(plan) if stage.settings.views else next(iter(plan.data.evaluation_loader("train")))
        whole, parts = (gradients(network.double(), as_float64(batch), parts) for parts in (1, 4))
        assert whole.abs().max() > 0
        difference = float((whole - parts).abs().max() / whole.abs().max())
        assert (difference > 1e-9) == ((name, stage.name) in OF_A_BATCH), (stage.name, difference)
