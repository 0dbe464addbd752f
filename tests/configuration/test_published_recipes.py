"""Recipes of data sets and methods against the values in the code that produced the published numbers.

Each case names the official file. Values were read there, not in this project's documentation.
"""

from __future__ import annotations

import pytest

from ltr.configuration.overrides import compose_config
from ltr.configuration.run_lengths import resolve_run_lengths
from ltr.configuration.targets import instantiate

ARPL_CODE = {  # iCGY96/ARPL: osr.py, datasets/osr_dataloader.py
    "batch_size": 64,
    "trainer.max_epochs": 100,
    "optimizer.lr": 0.1,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 1e-4,
    "optimizer.decay_norm_and_bias": True,
    "backbone._target_": "ltr.models.classifier32.Classifier32",
    "augment.pad": 4,
    "augment.flip": True,
    "dataset.mean": [0.0, 0.0, 0.0],
    "dataset.std": [1.0, 1.0, 1.0],
}
DECOUPLING = {  # facebookresearch/classifier-balancing: data/dataloader.py, config/*/feat_*.yaml
    "trainer.max_epochs": 90,
    "batch_size": 512,
    "optimizer.lr": 0.2,
    "scheduler._target_": "ltr.optim.schedules.Cosine",
    "scheduler.final": 0.0,
    "augment.files.scale": [0.08, 1.0],
}
RECIPES = {
    ("dataset=cifar10_open",): ARPL_CODE,
    ("dataset=cifar_plus_50", "method=arpl_cs"): {**ARPL_CODE, "method.gan_lr": 2e-4, "method.confusion_weight": 0.1},
    ("dataset=svhn_open",): ARPL_CODE,
    ("dataset=mnist_open",): {
        **ARPL_CODE,
        "augment.pad": 0,
        "augment.flip": False,
        "dataset.resize_to": 32,
        "dataset.source.rgb": True,
    },
    ("dataset=tiny_imagenet_open",): {
        **{key: value for key, value in ARPL_CODE.items() if key != "optimizer.momentum"},
        "optimizer._target_": "ltr.optim.optimizers.adamw",  # without decay it is the code's Adam
        "optimizer.lr": 1e-3,
        "optimizer.weight_decay": 0.0,
        "optimizer.decay_norm_and_bias": False,
        "dataset.image_size": 64,
        "dataset.image_resize": 64,
        "augment.jitter": 0.0,
    },
    # loss/GCPLoss.py and loss/Dist.py: distances divided by the width
    ("experiment=cifar10_open_gcpl",): {
        **ARPL_CODE,
        "method.divided": True,
        "method.prototype_weight": 0.1,
        "method.init_std": 0.1,
    },
    ("experiment=cifar10_open_erm",): {**ARPL_CODE, "head.bias": False},
    ("dataset=imagenet_lt",): {
        **DECOUPLING,
        "optimizer.weight_decay": 5e-4,
        "backbone.name": "resnext50_32x4d",
        "augment.jitter": 0.4,
        "augment.jitter_order": "random",
        "augment.hue": 0.0,
    },
    ("dataset=inat18",): {
        **DECOUPLING,
        "optimizer.weight_decay": 1e-4,
        "backbone.name": "resnet50",
        "augment.jitter": 0.0,
        "dataset.mean": [0.466, 0.471, 0.380],
    },
    # config/*/cls_crt.yaml, config/*/cls_lws.yaml
    ("dataset=imagenet_lt", "method=crt"): {
        "method.classifier.epochs": 10,
        "method.classifier.sampler.images_per_visit": 4,
        "method.classifier.optimizer.lr": 0.2,
    },
    ("dataset=places_lt", "method=crt"): {
        "method.classifier.epochs": 10,
        "method.classifier.sampler.images_per_visit": 4,
        "method.classifier.optimizer.lr": 0.1,
    },
    ("dataset=inat18", "method=crt"): {
        "method.classifier.epochs": 30,
        "method.classifier.sampler.images_per_visit": 4,
        "method.classifier.optimizer.weight_decay": 1e-4,
    },
    **{
        (f"dataset={data}", "method=lws"): {
            "method.classifier.epochs": 5,
            "method.classifier.sampler.images_per_visit": 4,
        }
        for data in ("imagenet_lt", "imagenet_lt_open", "places_lt", "inat18", "inat18_lists")
    },
    # sgvaze/osr_closed_set_all_you_need: bash_scripts/osr_finegrained_train.sh, data/augmentations/__init__.py
    ("dataset=cub_open_hard",): {
        "batch_size": 32,
        "trainer.max_epochs": 600,
        "optimizer.lr": 1e-3,
        "optimizer.weight_decay": 1e-4,
        "augment.policy": "randaugment",
        "augment.num_ops": 2,
        "augment.magnitude": 30,
        "augment.pad": 4,
        "dataset.image_size": 448,
        "dataset.image_resize": [448, 448],
        "dataset.std": [0.2023, 0.1994, 0.2010],
        "scheduler.restarts": 2,
        "scheduler.final": 1e-3,
    },
    # fpoms/background-splitting: main.py and the command of the README
    ("dataset=inat_bg_1", "method=background_splitting"): {
        "trainer.max_epochs": 90,
        "optimizer.lr": 0.01,
        "optimizer.weight_decay": 1e-4,
        "dataset.image_size": 299,
        "dataset.image_resize": 344,
        "augment.jitter": 0.0,
        "scheduler.warmup_from": 0.1,
        "method.aux.weight": 0.1,
        "method.aux.teacher.image_size": 299,
    },
    # lenscloth/RKD: run.py, run_distill.py, examples/*.sh
    ("experiment=cub_retrieval_rkd_da",): {
        "batch_size": 128,
        "sampler.batches": 100,
        "sampler.images_per_class": 5,
        "optimizer.lr": 1e-4,
        "head.normalise": False,
        "backbone.name": "resnet18.tv_in1k",
        "backbone.pretrained": True,
        "method.teacher.backbone.name": "resnet50.tv_in1k",
        "method.teacher.optimizer.lr": 1e-5,
        "method.teacher.epochs": 40,
        "method.teacher.head.width": 512,
        "method.teacher.head.normalise": True,
        "method.teacher.scheduler.gamma": 0.5,
        "dataset.image_resize": [256, 256],
        "augment.files.window": True,
    },
    ("dataset=sop_retrieval", "method=rkd"): {
        "trainer.max_epochs": 120,
        "sampler.batches": 500,
        "sampler.images_per_class": 5,
        "sampler.allow_fewer": True,
        "method.teacher.sampler.batches": 1000,
        "method.teacher.sampler.allow_fewer": True,
    },
    ("dataset=sop_retrieval", "method=triplet"): {
        "trainer.max_epochs": 40,
        "sampler.batches": 1000,
        "optimizer.lr": 1e-5,
        "evaluation.recall_at": [1, 10, 100, 1000],
    },
}
DROPS = {  # epochs after which the learning rate falls, in the code's own numbers
    ("dataset=cifar10_open",): [30, 60, 90],
    ("dataset=tiny_imagenet_open",): [30, 60, 90],
    ("dataset=inat_bg",): [21, 41, 61, 81],  # one epoch of warm-up, then 20, 40, 60, 80
    ("dataset=cub_retrieval", "method=rkd"): [40, 60],
    ("dataset=cub_retrieval", "method=triplet"): [25, 30, 35],
    ("dataset=sop_retrieval", "method=rkd"): [40, 80],
    ("dataset=sop_retrieval", "method=triplet"): [25, 30, 35],
}


def value_at(config: object, key: str) -> object:
    for part in key.split("."):
        config = config[part]
    return list(config) if hasattr(config, "__iter__") and not isinstance(config, str) else config


def resolved(overrides: tuple[str, ...]) -> dict:
    from omegaconf import OmegaConf

    config = compose_config(list(overrides))
    return OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config


@pytest.mark.parametrize("overrides", RECIPES, ids=" ".join)
def test_a_recipe_has_the_values_of_the_published_code(overrides):
    config, expected = resolved(overrides), RECIPES[overrides]
    assert {key: value_at(config, key) for key in expected} == expected


@pytest.mark.parametrize("overrides", DROPS, ids=" ".join)
def test_a_schedule_drops_after_the_epochs_of_the_published_code(overrides):
    plain = resolved(overrides)
    resolve_run_lengths(plain)
    schedule = instantiate(plain["scheduler"], plain["trainer"]["max_epochs"], 3)
    assert list(schedule.milestones) == DROPS[overrides]
