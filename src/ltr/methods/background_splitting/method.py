"""Background splitting: a constant logit for the background, and an auxiliary task that splits it into pseudo-classes.

Mullapudi et al., CVPR 2021. With N rare classes and a background of all other images,

    p(j | x) = exp(z_j) / (exp(b0) + sum_k exp(z_k)),   p(background | x) = exp(b0) / (the same)
    L = L_main(z, y) + weight * CE(auxiliary logits, pseudo-label),

where the second term is over all training images, with pseudo-labels from a classifier trained on other data.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ltr.configuration.configs import read_config, without_private
from ltr.configuration.targets import class_name, instantiate, locate
from ltr.errors import CheckpointError, ConfigError, nearest
from ltr.identity import named
from ltr.methods.background_splitting.imagenet import NUM_CLASSES, output_indices
from ltr.methods.background_splitting.network import BackgroundClassifier
from ltr.methods.background_splitting.options import AuxOptions, BackgroundSplittingOptions
from ltr.methods.background_splitting.partition import partition, warn_of_one_class
from ltr.methods.background_splitting.pseudo_labels import by_kmeans, by_taxonomy, by_teacher, check_pseudo_labels
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo, Settings
from ltr.methods.core.stage import Method, Stage, StageOutput
from ltr.methods.erm import ERM
from ltr.models.heads import head_kind

FOREGROUND = "foreground"  # in exclude_classes: ImageNet's outputs of the foreground's names
AUX_KEYS = tuple(AuxOptions.__dataclass_fields__)


@named("method/background_splitting")
class BackgroundSplitting(Method):
    """Background splitting: pseudo-labels, then the network with both heads.

    Stages: a ``teacher`` or ``erm`` network if pseudo-labels need it, ``pseudo_labels``, ``partition``, and
    ``representation``, which the top level of the configuration describes.

    Raises:
        ConfigError: values outside their ranges, or that contradict each other.
    """

    Options = BackgroundSplittingOptions
    options: BackgroundSplittingOptions
    provides = ("logits", "features")
    accepts_extras = True
    needs_background = True
    takes_stored_features = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.b0 = self.options.b0 if self.options.thresholding else None
        self.aux = check_aux(self.options.aux)

    def check(self, dataset_info: DatasetInfo) -> None:
        check_unused_aux(self.aux)
        if dataset_info.background is None:
            raise ConfigError(
                "method=background_splitting needs data with a background class, such as dataset=cifar100_bg, inat_bg "
                "or digits_bg; these are evaluated by " + ", ".join(dataset_info.protocols)
            )

    def stages(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        self._check(settings, dataset_info)
        earlier = self._pseudo_labels(settings, dataset_info) if self.aux["weight"] > 0 else []
        if earlier or self.options.labelled_fraction < 1:
            options = {"shuffled": self.aux["shuffled"], "labelled_fraction": self.options.labelled_fraction}
            parents: tuple[str, ...] = ("pseudo_labels",) if earlier else ()
            neutral = without_training(settings, {})
            earlier.append(
                Stage("partition", "partition", neutral, compute=partition, parents=parents, options=options)
            )
        options = {
            "b0": self.b0,
            "bias_init": self.options.bias_init,
            "background_weight": self.options.background_weight,
            "aux_weight": self.aux["weight"],
            "aux_init": self.aux["init"],
        }
        parents = tuple(stage.name for stage in earlier if stage.name in ("pseudo_labels", "partition"))
        main = Stage(
            "representation",
            "representation",  # the backbone starts as ERM's does
            settings,
            module=BackgroundClassifier,
            parents=parents,
            options=options,
        )
        return [*earlier, main]

    def plain_head_obstacle(self, settings: Settings) -> str | None:
        if self.b0 is None or has_bias(settings):
            return None
        return (
            f"the constant background logit (b0={self.b0:g}) is a row of zeros and a bias of the head, which needs "
            "head=linear head.bias=true; or train a background row with method.representation.b0=null"
        )

    def predictor(self, outputs: Mapping[str, StageOutput]) -> Any:
        report = outputs["partition"].arrays if "partition" in outputs else {}
        if "counts" in report and outputs["representation"].reused:  # a training has warned already
            warn_of_one_class(report)
        return super().predictor(outputs)

    def _pseudo_labels(self, settings: Settings, dataset_info: DatasetInfo) -> list[Stage]:
        aux = self.aux
        network = aux["features"] if aux["partition"] == "kmeans" else aux["partition"]
        config: Mapping[str, Any] = {}
        network_stages: list[Stage] = []
        if network == "representation":
            (erm,) = ERM().stages(settings.replaced(extras=()), dataset_info)
            network_stages = [replace(erm, name="erm")]
        elif network == "teacher" and aux["run"] is not None:
            stage_options = {"checkpoint": aux["run"], "foreign": True}
            network_stages = [Stage("teacher", "teacher", settings, module=ImageClassifier, **stage_options)]
        elif network == "teacher":
            config = without_private(aux["teacher"])
            check_teacher_weights(config)
        top_k = aux["top_k"] if aux["labels"] == "soft" else 1
        computations: dict[str, tuple[Any, dict[str, Any]]] = {
            "teacher": (by_teacher, {**self._exclusion_options(dataset_info), "top_k": top_k}),
            "kmeans": (by_kmeans, {"features": aux["features"], "groups": aux["groups"]}),
            "supercategories": (by_taxonomy, {"rank": aux["rank"]}),
        }
        compute, options = computations[aux["partition"]]
        stage = Stage(
            "pseudo_labels",
            "pseudo_labels",
            without_training(settings, config),
            compute=compute,
            parents=tuple(parent.name for parent in network_stages),
            options=options,
            of_source=True,
            taxonomy_rank=aux["rank"] if aux["partition"] == "supercategories" else None,
            check=functools.partial(check_pseudo_labels, teacher=config, options=options),
        )
        return [*network_stages, stage]

    def _exclusion_options(self, dataset_info: DatasetInfo) -> dict[str, Any]:
        """Return the teacher's outputs to exclude, as options of its stage."""
        excluded = self.aux["exclude_classes"]
        if FOREGROUND not in excluded:
            return {"exclude_classes": sorted(excluded)}
        if self.aux["run"] is not None:
            raise ConfigError(
                "method.aux.exclude_classes=[foreground] needs a teacher of ImageNet's 1000 classes, and "
                "method.aux.run has other classes. Give the numbers of its outputs"
            )
        names = [name for label, name in enumerate(dataset_info.class_names) if label != dataset_info.background]
        numbers = {*(entry for entry in excluded if entry != FOREGROUND), *output_indices(names)}
        return {"exclude_classes": sorted(numbers), "outputs": NUM_CLASSES}

    def _check(self, settings: Settings, dataset_info: DatasetInfo) -> None:
        name = class_name(settings.loss)
        takes_background = getattr(locate(settings.loss["_target_"], "loss"), "takes_background", True)
        if self.b0 is not None and not takes_background:
            raise ConfigError(
                f"{name} is not defined for a constant background logit (method.b0={self.b0:g}). Use "
                "loss=cross_entropy, focal_softmax, focal_sigmoid, class_balanced or ldam, or method.b0=null"
            )
        if self.options.background_weight is not None and not takes_background:
            raise ConfigError(
                f"method.background_weight={self.options.background_weight:g}: {name} has no class weights. Use "
                "method.background_weight=null"
            )
        if self.options.bias_init == "prior" and not has_bias(settings):
            raise ConfigError(
                "method.bias_init=prior needs a head with a bias: head=linear head.bias=true, or method.bias_init=head"
            )
        mix = getattr(instantiate(settings.augment, dataset_info.image_shape), "mix", None)
        if mix and (self.aux["weight"] > 0 or self.options.labelled_fraction < 1):
            raise ConfigError(
                f"augment.mix={mix}: a mixed image has no pseudo-label. Use augment.mix=null, or method.aux.weight=0 "
                "with method.labelled_fraction=1"
            )


def has_bias(settings: Settings) -> bool:
    """Return whether the rows of the configured head have biases."""
    return head_kind(settings.head) != "cosine" and settings.head.get("bias") is not False


def without_training(settings: Settings, backbone: Mapping[str, Any]) -> Settings:
    """Return neutral settings for a stage without training, so that its key does not depend on training settings.

    Args:
        backbone: the teacher's config; the digest of its weights is in the key.
    """
    return settings.replaced(
        sampler=without_private(read_config("sampler/instance")),
        augment=without_private(read_config("augment/none")),
        backbone=backbone,
        loss={},
        head={},
        optimizer={},
        scheduler={},
        epochs=1,
        batch_size=1,
        selection="last",
        accumulate=1,
        gradient_clip=None,
        ema_decay=None,
        ema_warmup=False,
        limit_train_batches=None,
        extras=(),
        features=None,  # a teacher sees images
    )


def check_teacher_weights(config: Mapping[str, Any]) -> None:
    """Refuse a teacher without weights or with a missing file of weights, before anything is built.

    Raises:
        ConfigError: the teacher has no weights, or two kinds of them.
        CheckpointError: the file does not exist.
    """
    weights, pretrained = config["weights"], config["pretrained"]
    if weights is None and not pretrained:
        raise ConfigError(
            f"method.aux.teacher: {config['library']}'s {config['name']} has no weights yet. Give "
            "method.aux.teacher.weights=FILE or method.aux.run=RUN, allow the download with "
            "method.aux.teacher.pretrained=true, or take method.aux.partition=kmeans with method.aux.features=pixels "
            "(method.aux.weight=0 for thresholding alone)"
        )
    if weights is not None and pretrained:
        raise ConfigError("method.aux.teacher: pretrained=true and weights are both given; choose one")
    if weights is not None and not Path(weights).is_file():
        raise CheckpointError(f"method.aux.teacher.weights={weights}: there is no such file")


def check_unused_aux(aux: Mapping[str, Any]) -> None:
    """Refuse options of ``method.aux`` that the partition does not use and that differ from their defaults.

    ``features`` and ``groups``, which recipes set for their data, are left out.

    Raises:
        ConfigError: such an option is set.
    """
    partition_kind, features = aux["partition"], aux["features"]
    from_teacher = partition_kind == "teacher" or (partition_kind == "kmeans" and features == "teacher")
    uses = {
        "top_k": (aux["labels"] == "soft", "method.aux.labels=soft"),
        "rank": (partition_kind == "supercategories", "method.aux.partition=supercategories"),
        "run": (from_teacher, "method.aux.partition=teacher, or kmeans with method.aux.features=teacher"),
    }
    changed = AuxOptions.changed(aux)
    for key, (is_used, where) in uses.items():
        if not is_used and key in changed:
            raise ConfigError(
                f"method.aux.{key}={aux[key]} has no effect with partition={partition_kind}, labels={aux['labels']}, "
                f"features={features}: only {where} uses it. Leave it out"
            )


def check_aux(aux: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config ``method.aux`` without private keys.

    Raises:
        ConfigError: a missing key, a key that nothing reads, or values that contradict each other.
    """
    options = {key: value for key, value in aux.items() if key != "_allowed_"}
    for key in options:
        if key not in AUX_KEYS:
            raise ConfigError(
                f"method.aux.{key}: there is no such option; allowed are {', '.join(AUX_KEYS)}{nearest(key, AUX_KEYS)}"
            )
    missing = [key for key in AUX_KEYS if key not in options]
    if missing:
        raise ConfigError(
            f"method.aux: {', '.join(missing)} must be set. Start from the config method/background_splitting"
        )
    only_with_teacher = {"labels": options["labels"] == "soft", "exclude_classes": bool(options["exclude_classes"])}
    for key, is_set in only_with_teacher.items():
        if is_set and options["partition"] != "teacher":
            raise ConfigError(
                f"method.aux.{key}={options[key]}: only method.aux.partition=teacher uses it, not "
                f"{options['partition']}. Leave it out"
            )
    return options
