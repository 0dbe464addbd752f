"""Every method, interrupted in mid-training and resumed, has the weights of an uninterrupted one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from ltr.configuration.configs import config_names
from ltr.methods.m2m.network import M2mClassifier
from ltr.methods.multi_expert.distillation import DistilledExperts
from resuming import metric_rows, same_bits, signal_at, weights

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Case:
    """A command and where it is stopped.

    Attributes:
        at: the epoch and the batch, counted from 0, at whose end the signal comes.
        stage: the stage that is stopped; None where it bears another name in each method.
        network: the class of the network that is stopped.
    """

    command: tuple[str, ...]
    at: tuple[int, int] = (1, 1)
    stage: str | None = None
    network: type = torch.nn.Module
    stored: str | None = None  # the stage before, which the resumed run takes from the store

    @property
    def overrides(self) -> list[str]:
        chosen = [one.partition("=")[0] for one in self.command]
        usual = ("trainer.max_epochs=2", "trainer.precision=fp32", "optimizer.lr=0.05")
        return [*(one for one in usual if one.partition("=")[0] not in chosen), *self.command]


FEW, BF16 = "trainer.limit_train_batches=3", "trainer.precision=bf16"
DATASETS = {
    **dict.fromkeys(("arpl", "arpl_cs", "gcpl", "rpl", "rpl_confirmed", "rpl_official", "rpl_pp"), "digits_open"),
    **dict.fromkeys(("prototypical", "rkd", "triplet"), "digits_retrieval"),
    "background_splitting": "digits_bg",
}
# one case for every config of the group method: a new method is in the table from the start
METHODS = {
    name: Case((f"method={name}", f"dataset={DATASETS.get(name, 'digits_lt')}", FEW)) for name in config_names("method")
}

# the third epoch is one that only classifiers have
CLASSIFIER = {"at": (2, 2), "stage": "classifier", "stored": "representation"}
FOUR = "method.classifier.epochs=4"
METHODS |= {
    "erm, tuned by lora": Case(("tune=lora", "tune.rank=2", FEW)),
    "erm, tuned norms": Case(("tune=norm", FEW)),
    "erm, gradients of imbsam": Case(("sharpness=imbsam", "loss=equalization_v2", FEW)),
    "erm, counts of seesaw": Case(("loss=seesaw", FEW)),
    "erm, masks of equalization": Case(("loss=equalization", "loss.threshold=0.1", FEW)),
    "erm, mixed by remix at perturbed weights": Case(("augment=cifar_remix", "sharpness=sam", BF16, FEW)),
    "crt": Case(("method=crt", FOUR), **CLASSIFIER),
    "crt, cached features": Case(
        ("method=crt", FOUR, "method.freeze_bn_stats=true", "method.features=cached"), **CLASSIFIER
    ),
    "crt, all trainable": Case(("method=crt", FOUR, "method.trainable=all"), **CLASSIFIER),
    "lws": Case(("method=lws", FOUR), **CLASSIFIER),
    "mislas": Case(("method=mislas", FOUR), **CLASSIFIER),
    "cc_sam": Case(("method=cc_sam", FOUR, "augment.mix=mixup"), **CLASSIFIER),
    "weight_balancing": Case(("method=weight_balancing", FOUR), **CLASSIFIER),
    "weight_balancing, each step": Case(("method=weight_balancing", FOUR, "method.projection=step"), **CLASSIFIER),
    "ride, its routers": Case(("method=ride",), (2, 2), "assignment", stored="representation"),
    "ride_distill, its student": Case(
        ("method=ride_distill", "method.teacher.experts=2", FEW),
        stage="representation",
        network=DistilledExperts,
        stored="teacher",
    ),
    "m2m": Case(
        (
            *("method=m2m", "method.beta=0.98", "method.step_size=1", "method.gamma=0.15", "method.steps=3"),
            *("method.noise=official", "trainer.max_epochs=4", "sampler.defer_from=0.5"),
        ),
        (2, 2),  # while images are generated
        "classifier",
        M2mClassifier,
    ),
    "rkd": Case(
        (
            *("method=rkd", "dataset=digits_retrieval", "trainer.limit_train_batches=5", "trainer.max_epochs=3"),
            *("method.teacher.epochs=2", "method.task_weight=1"),
        ),
        (2, 2),  # the teacher has two epochs
        "student",
    ),
    "sla, deferred weights": Case(
        (
            *("method=sla", "method.self_distillation=true", "trainer.max_epochs=4", "trainer.limit_train_batches=4"),
            *("loss=ldam", "loss.beta=0.999", "loss.defer_from=0.25"),
        ),
        (2, 1),
    ),
    "background_splitting, unlabelled": Case(
        (
            *("method=background_splitting", "dataset=digits_bg"),
            *("method.labelled_fraction=0.5", "method.aux.shuffled=true"),
        ),
        (1, 2),
    ),
    "arpl_cs": Case(
        (
            *("method=arpl_cs", "dataset=digits_open", "method.width=2", "method.noise_dim=8"),
            *("trainer.limit_train_batches=4", "optimizer.lr=0.02"),
        ),
        stage="representation",
    ),
    "non_robust_features": Case(("method=non_robust_features", FEW, "method.steps=3")),
    "rpl_confirmed": Case(("method=rpl_confirmed", "dataset=digits_open", FEW, "optimizer.lr=1e-4")),  # a loss of sums
    "rpl": Case(
        ("method=rpl", "dataset=digits_open", "method.feature_dim=2", "trainer.limit_train_batches=4"),
        stage="representation",
    ),
}


# the state of losses, histories, projections and routers beside weights in another precision
IN_BF16 = ("bcl", "cc_sam", "erm, counts of seesaw", "mislas", "proco", "ride, its routers", "sade", "weight_balancing")
METHODS |= {f"{name}, in bf16": replace(METHODS[name], command=(*METHODS[name].command, BF16)) for name in IN_BF16}


@pytest.mark.parametrize("case", METHODS.values(), ids=METHODS.keys())
def test_resuming_an_interrupted_method_gives_the_same_weights(ltr_train, tmp_path, monkeypatch, case):
    whole = ltr_train(*case.overrides, outputs=tmp_path / "whole")
    assert whole.code == 0, whole.err
    with signal_at(monkeypatch, case.at, network=case.network):
        stopped = ltr_train(*case.overrides, outputs=tmp_path / "stopped")
    assert stopped.code == 143, stopped.err
    resumed = ltr_train(*case.overrides, outputs=tmp_path / "stopped")
    assert resumed.code == 0, resumed.err
    epoch, batch = case.at
    assert f"{f'{case.stage}: ' if case.stage else ''}resuming in epoch {epoch + 1}, batch {batch + 2}" in resumed.out
    if case.stored:
        assert f"{case.stored}: cached stage" in resumed.out
    assert same_bits(weights(whole.directory), weights(resumed.directory))
    assert whole.result["rows"] == resumed.result["rows"]
    assert metric_rows(whole.directory) == metric_rows(resumed.directory)
