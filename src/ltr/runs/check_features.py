"""Checks of a run on stored features (``features=stored``), before data are read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from ltr.configuration.allowed import as_text
from ltr.configuration.configs import read_config
from ltr.configuration.targets import instantiate, locate
from ltr.errors import ConfigError
from ltr.identity import name_of
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo
from ltr.methods.core.stage import Method, Stage
from ltr.models.backbone_output import BackboneOutput
from ltr.models.heads import head_kind
from ltr.models.pooling import POOLS

_OF_STEPS = ("accumulate", "gradient_clip", "ema_decay", "limit_train_batches")  # keys of trainer, of solver=minibatch
_OF_LBFGS = ("l2", "l2_path", "max_iterations")
METHODS = (  # those of conf/method that can be trained on stored features, for a message; smote can, too, by an option
    *("erm", "crt", "lws", "tau_norm", "ncm", "posthoc_la", "mislas", "weight_balancing", "rpl", "rpl_pp", "arpl"),
    *("gcpl", "triplet", "prototypical", "background_splitting"),
)


def stored_settings(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the settings of stored features of the main stage that have an effect; None if it reads images.

    Raises:
        ConfigError: the configuration trains a part of the backbone.
    """
    features = config.get("features") or {"name": "images"}
    if features["name"] == "images":
        return None
    trainable = config["backbone"].get("trainable", "all")
    if trainable == "last_block":
        raise ConfigError(
            "backbone.trainable=last_block: features=stored keeps the backbone fixed. Use features=images to "
            "train a part of it, or leave backbone.trainable out"
        )
    if (config.get("evaluation") or {}).get("views") is not None:
        raise ConfigError(
            f"evaluation.views={config['evaluation']['views']}: stored features are those of the images alone. Leave "
            "it out, or use features=images"
        )
    output = _output(features)
    used: dict[str, Any] = {
        "views": features["views"] if features["views"] > 1 else 0,
        "standardize": features["standardize"],
        "solver": features["solver"],
        **output,
    }
    if features["solver"] == "lbfgs":
        used |= {key: features[key] for key in _OF_LBFGS if key != "l2_path" or features["l2"] == "auto"}
    return used


def _warn_of_unread(features: Mapping[str, Any], trainer: Mapping[str, Any]) -> None:
    """Warn of options that only the other solver reads; an experiment may set them."""
    defaults, trainer_defaults = read_config("features/stored"), read_config("trainer/default")
    for key in _OF_STEPS if features["solver"] == "lbfgs" else ():
        if trainer[key] != trainer_defaults[key]:
            warnings.warn(
                f"trainer.{key}={as_text(trainer[key])} has no effect: features.solver=lbfgs takes no training steps. "
                "Leave it out, or choose features.solver=minibatch",
                stacklevel=3,
            )
    for key in _OF_LBFGS if features["solver"] != "lbfgs" else ():
        if features.get(key, defaults[key]) != defaults[key]:
            warnings.warn(
                f"features.{key}={features[key]} has no effect: features.solver={features['solver']} does not read it, "
                "only lbfgs does. Choose features.solver=lbfgs, or set optimizer.weight_decay",
                stacklevel=3,
            )


def _output(features: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of stored maps or tokens and their pool; {} for vectors.

    Raises:
        ConfigError: a pool without maps or tokens, or the reverse.
    """
    output, pool = features.get("output", "vector"), features.get("pool")
    if output != "tokens" and features.get("prefix_tokens"):
        raise ConfigError(
            f"features.prefix_tokens=true: only tokens have a prefix, and features.output={output}. Use "
            "features.output=tokens for a vision transformer, or leave features.prefix_tokens out"
        )
    if output == "vector":
        if pool is not None:
            raise ConfigError(
                "features.pool: features.output=vector has nothing to pool. Use features.output=map, or "
                "features.output=tokens for a vision transformer; or leave features.pool out"
            )
        return {}
    if pool is None:
        raise ConfigError(
            f"features.output={output}: a head needs one vector per image, and no pool is set. Choose "
            f"features.pool={POOLS}; or use features.output=vector"
        )
    return BackboneOutput(output, features.get("prefix_tokens", False)).spec() | {"pool": pool}


def frozen(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a backbone that is not trained."""
    return {**backbone, **({"trainable": "none"} if "trainable" in backbone else {})}


def check_stored(config: Mapping[str, Any], method: Method, stages: Sequence[Stage], dataset_info: DatasetInfo) -> None:
    """Refuse methods, stages and augmentations that need images if a run reads stored features.

    Raises:
        ConfigError: the run needs images; the message says what to use instead.
    """
    stored = [stage for stage in stages if stage.settings.features is not None]
    if not stored:
        return
    _warn_of_unread(config["features"], config["trainer"])
    name = config["method"]["name"]
    if not method.takes_stored_features:
        raise ConfigError(
            f"features=stored: method={name} works on images, not on one feature vector of each. Stored features serve "
            f"{', '.join(METHODS)} and smote with method.space=feature; for others use features=images"
        )
    for stage in stored:
        _check_stage(stage, config["method"])
        if stage.module is not None and config["features"]["solver"] == "lbfgs":
            _check_linear(stage, config, dataset_info.class_counts)
    augment, views = config["augment"], config["features"]["views"]
    augmentation = instantiate(augment, dataset_info.image_shape)
    crop = augmentation.file_crop
    is_plain = augmentation.identity and not (crop is not None and crop.random)
    if augmentation.mix:
        raise ConfigError(
            f"augment.mix={augmentation.mix}: images that are mixed in every batch have no stored features. Use "
            "augment.mix=null, or features=images"
        )
    if views > 1 and is_plain:
        raise ConfigError(
            f"features.views={views}: without augmentation all views are the same. Choose one, such as "
            f"augment={'imagenet' if 'image_size' in config['dataset'] else 'cifar'}, or leave features.views out"
        )
    if views <= 1 and not is_plain:
        raise ConfigError(
            "augment: stored features are computed without augmentation. Use augment=none, features.views=4 "
            "for four augmented views of each training image, or features=images"
        )


def _check_linear(stage: Stage, config: Mapping[str, Any], class_counts: Sequence[int]) -> None:
    """Refuse a stage that is not a linear classifier with one loss."""
    if stage.settings.selection != "last":
        raise ConfigError(
            f"trainer.selection={stage.settings.selection}: features.solver=lbfgs has no epochs to select among; "
            "features.l2=auto chooses the penalty on the validation split. Use trainer.selection=last, or "
            "features.solver=minibatch"
        )
    assert stage.settings.features is not None
    pool = stage.settings.features.get("pool")
    if pool is not None and locate(pool["_target_"], "features.pool").is_trained(pool):
        name = name_of(pool["_target_"]).rpartition("/")[2]
        raise ConfigError(
            f"features.solver=lbfgs solves for a linear head, and features.pool={name} has parameters that are "
            "trained. Use features.solver=minibatch, or features.pool=average, "
            "max, average_max or gem with features.pool.learn=false"
        )
    kind = head_kind(stage.settings.head)
    is_plain = stage.target.training_step is ImageClassifier.training_step and stage.target.is_solvable
    if not is_plain or kind != "linear":
        what = f"method={config['method']['name']}" if kind == "linear" else f"a head of kind '{kind}'"
        raise ConfigError(
            f"features.solver=lbfgs solves for a linear head and one loss of its logits; stage '{stage.name}' has "
            f"{what}. Use features.solver=minibatch, or head=linear with erm, crt, lws, tau_norm, ncm or posthoc_la"
        )
    loss = instantiate(stage.settings.loss, class_counts)
    is_deterministic, is_potential = getattr(loss, "is_deterministic", True), getattr(loss, "is_potential", True)
    if not (is_deterministic and is_potential):
        settings = [] if is_deterministic else [loss.deterministic_by]
        settings += [] if is_potential else [loss.potential_by]
        reason = (
            "has a factor that depends on the logits and passes no gradient, so that its gradient is not that of its "
            "value, as a line search needs it"
            if is_deterministic
            else "changes while it is trained, and a solver needs a function of the logits"
        )
        raise ConfigError(
            f"features.solver=lbfgs: {type(loss).__name__}, the loss of stage '{stage.name}', {reason}. Use "
            f"features.solver=minibatch, or {' '.join(settings).strip() or 'another loss'}"
        )


def _check_stage(stage: Stage, method: Mapping[str, Any]) -> None:
    settings = stage.settings
    node = method.get(stage.name)
    if isinstance(node, Mapping) and node.get("augment") is not None:
        raise ConfigError(
            f"method.{stage.name}.augment: all stages read the same stored features, of the images or of views by "
            "augment. Leave it out, or use features=images"
        )
    if stage.checkpoint is not None:
        raise ConfigError(
            f"method.start_from={stage.checkpoint}: features=stored needs the backbone before the run. Give its "
            "weights as backbone.weights=FILE (for example the checkpoint of a run without lora, adapter or vpt), or "
            "use features=images"
        )
    if settings.extras:
        raise ConfigError(
            "method.extras: these loss terms compare images or feature maps, which stored features do not have. Leave "
            "them out, or use features=images"
        )
    trainable = stage.options.get("trainable", "classifier")
    if trainable != "classifier":
        raise ConfigError(
            f"method.trainable={trainable}: features=stored keeps the backbone fixed. Use "
            "method.trainable=classifier, or features=images"
        )
