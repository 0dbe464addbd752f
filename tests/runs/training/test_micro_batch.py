"""Losses that automatic micro-batches accept: their parts give the gradient of the batch, also when repeated."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from ltr.configuration.configs import config_names
from ltr.configuration.overrides import load_config
from ltr.configuration.targets import instantiate
from ltr.data.sources.digits import digits
from ltr.errors import ConfigError
from ltr.losses.base import ClassificationLoss
from ltr.runs.plan import plan_of
from ltr.runs.training import micro_batch
from ltr.runs.training.micro_batch import check_plan

LOSSES = [name for name in config_names("loss") if name not in ("triplet", "prototypical")]  # losses of embeddings
REFUSED = {"seesaw", "equalization", "equalization_v2"}
LOSSES.append("seesaw loss.counts=training")


@pytest.fixture(scope="module")
def plan():
    return plan_of(load_config([]), digits())


def check_loss(plan, loss) -> None:
    (stage,) = plan.stages
    check_plan(replace(stage, settings=stage.settings.replaced(loss=loss)), plan.dataset_info)


def gradient(loss, logits, labels, parts):
    logits = logits.clone().requires_grad_()
    for rows in torch.arange(len(labels)).chunk(parts):
        (loss(logits[rows], labels[rows]) * len(rows) / len(labels)).backward()
    return logits.grad


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_gives_the_gradient_of_the_batch_in_parts_or_is_refused(name, plan):
    config = load_config(f"loss={name}".split())["loss"]
    if name in REFUSED:
        with pytest.raises(ConfigError, match=r"auto_accumulate=true: stage 'representation'"):
            check_loss(plan, config)
        return
    check_loss(plan, config)
    loss = instantiate(config, plan.dataset_info.class_counts)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 10, generator=generator, dtype=torch.float64)
    labels = torch.arange(12) % 10
    repeated = deepcopy(loss)
    gradient(repeated, logits, labels, 2)  # a first try that ran out of memory
    torch.testing.assert_close(gradient(repeated, logits, labels, 4), gradient(loss, logits, labels, 1))


class Remembers(ClassificationLoss):
    """A user's loss that overrides `per_image`."""

    def per_image(self, logits, labels, mix=None):
        return super().per_image(logits, labels, mix)


def test_a_loss_with_another_per_image_is_refused(plan, monkeypatch):
    monkeypatch.setattr(micro_batch, "instantiate", lambda config, counts: Remembers(counts))
    with pytest.raises(ConfigError, match="Remembers is not known to be a mean over images"):
        check_loss(plan, {})
