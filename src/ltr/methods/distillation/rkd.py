"""Relational knowledge distillation (RKD; Park et al., CVPR 2019): losses on distances and angles in feature space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ltr.configuration.targets import class_name, locate
from ltr.data.batch import Batch
from ltr.errors import ConfigError
from ltr.identity import named
from ltr.losses.distillation import HintRegressor, hint_loss, kl_to_teacher
from ltr.losses.gathering import gather_with_gradient
from ltr.losses.reductions import RelationalReduction
from ltr.losses.relational import rkd_angle, rkd_distance
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import STAGE_KEYS, DatasetInfo, Settings, check_configs
from ltr.methods.core.stage import Method, NetworkSpec, Stage
from ltr.methods.distillation.options import RKDOptions
from ltr.methods.distillation.teacher import (
    FeatureMaps,
    Teacher,
    attention_of_levels,
    check_maps,
    check_teacher,
    hint_regressor,
)
from ltr.methods.metric import EmbeddingNetwork, check_metric, check_sampler, nearest_alike
from ltr.models.heads import head_kind
from ltr.models.weights import seeded_construction
from ltr.randomness import derive_seed

OF_MAPS = ("fitnet", "attention")
# (task, distance, angle) of the paper; later re-implementations also use 25 and 50 for classification
DEFAULT_WEIGHTS: Mapping[str, tuple[float, float, float]] = {
    "metric": (0.0, 1.0, 2.0),
    "classification": (1.0, 25.0, 50.0),
}


def relational_terms(
    student: Tensor, teacher: Tensor, weights: Mapping[str, float], reduction: RelationalReduction
) -> dict[str, Tensor]:
    """Return RKD's losses ``distance`` and ``angle``, unweighted and without those of weight 0.

    Args:
        student, teacher: [B, D] of this process's images; the batches of several processes are gathered.
        reduction: see `ltr.losses.relational`.
    """
    losses = {"distance": rkd_distance, "angle": rkd_angle}
    used_losses = {name: loss for name, loss in losses.items() if weights[name]}
    if not used_losses:
        return {}
    student, teacher = gather_with_gradient(student), gather_with_gradient(teacher)
    return {name: loss(student, teacher, reduction) for name, loss in used_losses.items()}


class _Student(ImageClassifier):
    """Base class of students; the loss is a weighted sum of the task's loss and the distillation losses.

    Args:
        spec: see `NetworkSpec`; its only parent is the teacher.
        weights: weights of ``task``, ``distance``, ``angle``, ``hkd``, ``fitnet`` and ``attention``.
        temperature: temperature of ``hkd``.
        level: level of ``fitnet``, see `ltr.methods.distillation.teacher.hint_regressor`.
        reduction: reduction of distances and angles.
        teacher_channels: channels of the teacher's feature maps, for losses that compare maps; None reads them from
            the parent.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        weights: Mapping[str, float],
        temperature: float,
        level: int,
        reduction: RelationalReduction,
        teacher_channels: Sequence[int] | None = None,
    ) -> None:
        super().__init__(spec)
        self.weights = weights
        self._parents = dict(spec.parents)
        self._teacher: Teacher | None = None
        self._student_maps: FeatureMaps | None = None
        self.regressor: HintRegressor | None = None
        if any(weights[name] for name in OF_MAPS):
            self._student_maps = FeatureMaps(self.backbone)
            if teacher_channels is None:
                teacher_channels = self.teacher.network.backbone.map_channels
                check_maps(self.backbone, self.teacher.network.backbone, f"method={type(self).__name__}")
            if weights["fitnet"]:
                with seeded_construction(derive_seed(spec.seed, spec.role, "regressor")):
                    self.regressor = hint_regressor(
                        self.backbone.map_channels, teacher_channels, level, "method.fitnet_weight"
                    )
        self.options = {
            "weights": dict(weights),
            "temperature": temperature,
            "level": level,
            "reduction": reduction,
            "teacher_channels": None if teacher_channels is None else list(teacher_channels),
        }

    @property
    def teacher(self) -> Teacher:
        """Teacher, which is loaded on first use, because predictions need none."""
        if self._teacher is None:
            ((name, output),) = self._parents.items()
            network = output.load()
            check_teacher(network, self.dataset_info, f"({name})")
            self._teacher = Teacher(network)
            self._teacher.wants_maps = self._student_maps is not None
        return self._teacher

    def parameter_modules(self) -> dict[str, nn.Module]:
        return {} if self.regressor is None else {"regressor": self.regressor}

    def optimisation(self, batches_per_epoch: int) -> Any:
        if self._parents:
            _ = self.teacher  # raises before training if it does not match
        return super().optimisation(batches_per_epoch)

    def distillation_outcome(self, batch: Batch, relations: Tensor, scores: Tensor, correct: Tensor) -> dict[str, Any]:
        """Return the outcome of a training step; each term is logged unweighted.

        Args:
            relations: [B, D], vectors for distances and angles.
            scores: inputs of the task's loss.
            correct: number of correctly classified images.
        """
        terms: dict[str, Tensor] = {}
        if self.weights["task"]:
            terms["task"] = self.loss(scores, batch.labels, batch.mix)
        if self._parents:
            terms |= relational_terms(relations, self.teacher.relations(batch), self.weights, self.options["reduction"])
            if self.weights["hkd"]:
                teacher_scores = self.teacher(batch).scores
                terms["hkd"] = kl_to_teacher(scores, teacher_scores, self.options["temperature"]).mean()
            if self._student_maps is not None:
                terms |= self._map_terms(self._student_maps.take(), self.teacher(batch).maps)
        loss = torch.stack([self.weights[name] * term.float() for name, term in terms.items()]).sum()
        return {"loss": loss, "correct": correct, "logs": {name: term.detach() for name, term in terms.items()}}

    def _map_terms(self, student_maps: list[Tensor], teacher_maps: list[Tensor]) -> dict[str, Tensor]:
        level, terms = self.options["level"], {}
        if self.regressor is not None:
            terms["fitnet"] = hint_loss(self.regressor(student_maps[level]), teacher_maps[level])
        if self.weights["attention"]:
            terms["attention"] = attention_of_levels(student_maps, teacher_maps)
        return terms


@named("network/embedding_student")
class MetricStudent(_Student, EmbeddingNetwork):
    """Student with an embedding head; distances and angles are measured on the embeddings."""

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        embeddings = self.head(self.batch_features(batch))
        return self.distillation_outcome(batch, embeddings, embeddings, nearest_alike(embeddings, batch.labels).sum())


@named("network/classifying_student")
class ClassifyingStudent(_Student):
    """Student with a classifier; distances and angles are measured on the features before it."""

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        features = self.batch_features(batch)
        logits = self.head(features)
        correct = (logits.detach().argmax(1) == batch.labels).sum()
        outcome = self.distillation_outcome(batch, features, logits, correct)
        return self.with_extras(outcome, batch, features, logits)


@named("method/rkd")
class RKD(Method):
    """Relational knowledge distillation: a ``teacher``, then a ``student``; over generations, students teach the next.

    Raises:
        ConfigError: weights that leave nothing to learn, HKD of embeddings.
    """

    Options = RKDOptions
    options: RKDOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        task, hkd_weight = self.options.task, self.options.hkd_weight
        self.weights: dict[str, float] = {}
        for name, default in zip(("task", "distance", "angle"), DEFAULT_WEIGHTS[task]):
            weight = self.options[f"{name}_weight"]
            self.weights[name] = default if weight is None else float(weight)
        self.weights |= {name: float(self.options[f"{name}_weight"]) for name in ("hkd", *OF_MAPS)}
        self.provides = ("features",) if task == "metric" else ("logits", "features")
        self.accepts_extras = task == "classification"
        if task == "metric" and hkd_weight:
            raise ConfigError(
                f"method.hkd_weight={hkd_weight}: HKD compares class probabilities, and embeddings have none. Use 0, "
                "or method=rkd_classification"
            )
        if not any(self.weights.values()):
            raise ConfigError(
                f"method: the weights of {', '.join(self.weights)} are all 0: the student has no loss. Set one above 0"
            )

    @property
    def teaches(self) -> bool:
        """True if a teacher is trained: some loss compares the student with it, or there is no student."""
        return any(weight for name, weight in self.weights.items() if name != "task") or self.options.generations == 0

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        metric = self.options.task == "metric"
        check = check_metric if metric else _check_classification
        start_from, generations = self.options.start_from, self.options.generations
        options = {"weights": self.weights} | {key: self.options[key] for key in ("temperature", "level", "reduction")}
        stages = []
        if self.teaches:
            teacher_settings = self._teacher_settings(settings)
            if start_from is None:
                check(teacher_settings, dataset_info, "method.teacher.")
            network = EmbeddingNetwork if metric else ImageClassifier
            stages.append(
                Stage("teacher", "teacher", teacher_settings, module=network, checkpoint=start_from, foreign=True)
            )
        if generations:
            check(settings, dataset_info, "")
        student = MetricStudent if metric else ClassifyingStudent
        students = generations if self.teaches else 1  # without a teacher there are no further generations
        for number in range(1, students + 1):
            # the role makes the first student the same network, whether or not others follow
            stages.append(
                Stage(
                    "student" if students == 1 else f"student_{number}",
                    "student" if number == 1 else f"student_{number}",
                    settings,
                    module=student,
                    parents=(stages[-1].name,) if stages else (),
                    options=options,
                )
            )
        return stages

    def _teacher_settings(self, settings: Settings) -> Settings:
        teacher = self.options.teacher
        networks = {key: teacher[key] for key in ("backbone", "head") if key in teacher}
        stage_config = {key: value for key, value in teacher.items() if key not in networks}
        if len(networks) < 2:
            raise ConfigError(
                f"method.teacher: backbone and head must be set beside {', '.join(STAGE_KEYS)}. Start from the config "
                "method/rkd"
            )
        check_configs(networks, list(networks), "method.teacher")
        return settings.for_stage(stage_config, "method.teacher").replaced(**networks)


def _check_classification(settings: Settings, dataset_info: DatasetInfo, where: str) -> None:
    if head_kind(settings.head, f"{where}head") == "embedding":
        raise ConfigError(f"{where}head=embedding has no class scores. Use {where}head=linear or cosine")
    if getattr(locate(settings.loss["_target_"], f"{where}loss"), "of", "") == "embedding":
        raise ConfigError(
            f"{where}loss={class_name(settings.loss)} compares embeddings; classification needs a loss of class "
            f"scores. Use {where}loss=cross_entropy"
        )
    check_sampler(settings.sampler, dataset_info, settings.epochs)
