"""A trained network as a timm model: a backbone of timm with one linear classifier."""

from __future__ import annotations

from typing import Any

from torch import nn

from ltr.errors import ConfigError
from ltr.models.backbones import config_for_image_size

_ALTERNATIVE = "Use ltr-export RUN --out FOLDER, which keeps the network unchanged"


def timm_model(network: Any) -> nn.Module:
    """Return timm's model with the weights of a network and a linear classifier, in eval mode.

    Raises:
        ConfigError: a backbone that timm does not have, or logits that are not a linear function of its features.
    """
    import timm

    from ltr.models.timm_backbone import POOLS, TimmBackbone

    backbone, settings = network.backbone, network.settings
    if not isinstance(backbone, TimmBackbone):
        raise ConfigError(
            f"--hub writes models that timm builds by name, and this backbone is {type(backbone).__name__}, which timm "
            "does not have. Use ltr-export RUN --out FOLDER (read by ltr.apply.export.load_exported), or train with "
            "backbone=timm"
        )
    readout = network.linear_readout()
    if readout is None:
        raise ConfigError(
            f"--hub writes a backbone and one linear layer, and {type(network).__name__} with the head "
            f"{type(network.head).__name__} is not of this form. {_ALTERNATIVE}"
        )
    if network.tuning is not None:
        network.tuning.merge(backbone)
    channels, *_ = network.dataset_info.image_shape
    config = config_for_image_size(settings.backbone, network.dataset_info.image_shape)
    options: dict[str, Any] = {}
    if config.get("img_size") is not None:
        options["img_size"] = config["img_size"]
    if config.get("pool") is not None:
        options["global_pool"] = POOLS[config["pool"]]
    weight, bias = readout
    name = str(backbone.net.pretrained_cfg.get("architecture") or backbone.name)
    model: Any = timm.create_model(name, pretrained=False, num_classes=len(bias), in_chans=channels, **options)
    classifier = model.get_classifier()
    path = next((path for path, module in model.named_modules() if module is classifier), None)
    if not isinstance(classifier, nn.Linear) or classifier.in_features != weight.shape[1] or path is None:
        raise ConfigError(
            f"--hub: the classifier of timm's {name} is {type(classifier).__name__}, not one linear layer of "
            f"{weight.shape[1]} features. {_ALTERNATIVE}"
        )
    state = dict(backbone.net.state_dict()) | {f"{path}.weight": weight, f"{path}.bias": bias}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()[:200]
        tune = "" if network.tuning is None else f" tune={network.tuning.name} added layers that timm does not have."
        raise ConfigError(f"--hub: timm's {name} does not take the weights ({reason}).{tune} {_ALTERNATIVE}") from error
    return model.eval()
