"""Distilled RIDE (Wang et al., ICLR 2021): the experts also learn from a network of more experts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ltr.data.batch import Batch
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.losses.distillation import kl_to_teacher
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings, check_configs
from ltr.methods.core.stage import NetworkSpec, Stage
from ltr.methods.distillation.teacher import Teacher, check_teacher
from ltr.methods.multi_expert.options import (
    DistilledExpertsOptions,
    DistilledRIDEOptions,
    RIDEExpertsOptions,
    TeacherOptions,
)
from ltr.methods.multi_expert.ride import RIDE, DiverseExperts


@named("network/ride_distilled")
class DistilledExperts(DiverseExperts):
    """The experts of RIDE, whose loss has a further term: their divergence from a teacher's predictions.

    Args:
        spec: see `NetworkSpec`; its parent is ``teacher``.
        options: the fields of `DistilledExpertsOptions`.
    """

    declaration = DistilledExpertsOptions
    options: DistilledExpertsOptions

    def __init__(self, spec: NetworkSpec, **options: Any) -> None:
        super().__init__(spec, **options)
        self._parents = dict(spec.parents)
        self._teacher: Teacher | None = None

    @property
    def teacher(self) -> Teacher:
        """Return the teacher; it is loaded on first use, since predictions need none.

        Raises:
            ConfigError: it was trained on other data, or predicts no classes.
        """
        if self._teacher is None:
            network = self._parents["teacher"].load()
            check_teacher(network, self.dataset_info, "(teacher)")
            if network.embeds or network.link != "softmax":
                raise ConfigError(
                    "method.teacher.start_from: the student learns the class probabilities of a softmax, which this "
                    "network does not predict. Take a classifier, such as a run of method=ride"
                )
            self._teacher = Teacher(network)
            if self.options.teacher_statistics == "batch":
                with_batch_statistics(network)
        return self._teacher

    def optimisation(self, batches_per_epoch: int) -> Any:
        if self._parents:
            _ = self.teacher  # refuses a teacher that does not fit before training
        return super().optimisation(batches_per_epoch)

    def expert_loss(self, expert_logits: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        own_loss, logs = super().expert_loss(expert_logits, batch)
        if not self._parents:  # loaded from a checkpoint
            return own_loss, logs
        distilled = distillation(
            expert_logits, self.teacher(batch).scores, self.options.distill_temperature, self.options.distill_of
        ).mean()
        loss = own_loss + self.options.distill_weight * distilled
        return loss * (self.experts if self.options.loss_per_expert else 1), {
            **logs,
            "distillation": distilled.detach(),
        }


def distillation(expert_logits: Tensor, teacher_logits: Tensor, temperature: float, of: str) -> Tensor:
    """Return T^2 KL(teacher || student) of each image, [B]; the teacher is held fixed.

    Args:
        expert_logits: the student's, [B, K, C].
        teacher_logits: [B, C].
        temperature: T, above 0.
        of: ``mean``, of the mean of the student's logits; ``experts``, the mean over the divergences of each.
    """
    teacher = teacher_logits.detach()
    if of == "mean":
        return kl_to_teacher(expert_logits.mean(1), teacher, temperature)
    return kl_to_teacher(expert_logits, teacher[:, None], temperature).mean(1)


def with_batch_statistics(network: torch.nn.Module) -> None:
    """Let BatchNorm layers of a frozen network take the statistics of each batch, and keep their running ones."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.train()
            module.momentum = 0.0


@named("method/ride_distill")
class DistilledRIDE(RIDE):
    """RIDE with distillation: a ``teacher`` of more experts, then ``representation`` and ``assignment``.

    The teacher is the representation of RIDE with that number of experts: such a run and this one train it once.

    Args:
        options: the fields of `DistilledRIDEOptions`.
    """

    Options = DistilledRIDEOptions  # type: ignore[assignment]
    options: DistilledRIDEOptions

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        experts, assignment = super().stages(settings, dataset_info)
        teacher = TeacherOptions(**self.options.teacher)
        teacher_settings = settings
        if teacher.scheduler is not None:
            check_configs(self.options.teacher, ["scheduler"], "method.teacher")
            teacher_settings = settings.replaced(scheduler=teacher.scheduler)
        of_teacher = {**self.options.part(RIDEExpertsOptions), "experts": teacher.experts}
        return [
            Stage(
                "teacher",
                experts.role,
                teacher_settings,
                module=DiverseExperts if teacher.start_from is None else ImageClassifier,
                options=of_teacher if teacher.start_from is None else {},
                checkpoint=teacher.start_from,
                foreign=True,
            ),
            replace(
                experts,
                role="student",
                module=DistilledExperts,
                parents=("teacher",),
                options=self.options.part(DistilledExpertsOptions),
            ),
            assignment,
        ]
