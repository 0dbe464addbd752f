"""Every config of conf/ composes, names code that exists with arguments that fit, and runs two steps on tiny data.

The tests collect the configs from the folder: a new config is covered once its file exists.
"""

from __future__ import annotations

import re

import pytest
import yaml

from ltr.configuration.check import check_config
from ltr.configuration.configs import conf_directory, mappings, read_config
from ltr.configuration.overrides import compose_config
from ltr.configuration.targets import check_arguments

CONF = conf_directory()
CONFIGS = sorted(str(p.relative_to(CONF).with_suffix("")) for p in CONF.rglob("*.yaml") if p.parent != CONF)
# without configs that others choose (recipes, bases) and Hydra's own
NAMED_CONFIGS = [
    config for config in CONFIGS if config.split("/")[0] not in ("recipe", "hydra") and "/base/" not in config
]
# smaller than the config's default, where a config's default is for large images
SMALLER = {
    "backbone/timm": ["backbone.name=resnet10t"],
    "backbone/torchvision": ["backbone.name=squeezenet1_1", "dataset=cifar10_lt"],
    "backbone/classifier32": ["dataset=cifar10_lt"],
    "augment/cifar_autoaugment": ["dataset=cifar10_lt"],
    "augment/cifar_cutout": ["dataset=cifar10_lt"],
    # four steps leave statistics, which it keeps, far from those of the features
    "experiment/cifar10_lt_mislas": ["optimizer.lr=0.001"],
    "scheduler/ldam": ["scheduler.warmup_epochs=0"],
    "logger/wandb": ["logger.mode=offline"],
    "augment/imagenet": ["dataset=tiny_imagenet"],
    "augment/simaugment_files": ["dataset=tiny_imagenet"],
    "dataset/cub_lt": ["dataset.imbalance_factor=3"],
    "dataset/folder_lt": ["dataset.imbalance_factor=3"],
    "dataset/table_lt": ["dataset.imbalance_factor=3"],
    "dataset/tiny_imagenet_lt": ["dataset.imbalance_factor=3"],
    "trainer/gpu": None,  # needs a GPU
    "strategy/fsdp": None,  # needs several GPUs
    "dataset/inat_bg": ["dataset.foreground=uniform", "dataset.n_foreground=1"],  # the miniature lacks the listed ones
    "dataset/tiny_imagenet_bg": ["dataset.n_foreground=2"],
    "dataset/tiny_imagenet_open": ["dataset.classes=seeded", "backbone=torchvision"],
    **{
        config: ["dataset=cifar10_lt", "backbone=timm", "backbone.name=test_vit"]
        for config in ("tune/adapter", "tune/vpt")
    },
    **{config: ["dataset=digits_bg"] for config in ("method/background_splitting", "scheduler/background_splitting")},
    **{
        config: ["method=triplet", "dataset=digits_retrieval"]
        for config in ("loss/triplet", "head/embedding", "head/unit_embedding")
    },
    **{
        config: ["method=prototypical", "dataset=digits_retrieval"]
        for config in ("loss/prototypical", "head/features", "sampler/episodes")
    },
    **{config: ["dataset=digits_retrieval"] for config in ("method/rkd", "method/triplet", "method/prototypical")},
    # of published classes, which the miniatures lack: tests/data/splitting/test_configs.py makes their splits
    **{config: None for config in CONFIGS if config.startswith(("dataset/inat_bg_1", "dataset/cub_open"))},
    # with a list that the miniatures lack: tests/data/sources/test_open_lists.py runs them
    **{config: None for config in CONFIGS if config.endswith("_lt_open")},
}


for config in (config for config in CONFIGS if config.startswith("experiment/tiny_imagenet_bg_")):
    SMALLER[config] = ["dataset.n_foreground=2", "dataset.image_size=32", "trainer.num_workers=0"]
# the rows' own teacher is a file of weights
for config in (
    f"experiment/{data}_bg_{row}" for data in ("cifar100", "tiny_imagenet") for row in ("splitting", "both")
):
    pixels = ["method.aux.partition=kmeans", "method.aux.features=pixels", "method.aux.groups=10"]
    SMALLER[config] = [*SMALLER.get(config, []), *pixels, "method.aux.exclude_classes=[]"]
# networks and images of the papers' sizes
for config in (config for config in CONFIGS if re.match("experiment/.*_(herbs|pim)", config)):
    SMALLER[config] = ["dataset.image_size=64", "dataset.image_resize=[72,72]", "trainer.num_workers=0"]
    for ending, network in (("_swin_l", "test_vit"), ("_resnet50", "test_resnet")):
        if config.endswith(ending):
            SMALLER[config] += [f"backbone.name={network}", "backbone.pretrained=false"]
for config in (config for config in CONFIGS if config.startswith("experiment/") and "_retrieval_" in config):
    SMALLER[config] = [] if config.endswith("_triplet") else ["method.teacher.epochs=1"]
    if not config.startswith("experiment/cifar"):
        SMALLER[config] += ["dataset.image_size=32", "dataset.image_resize=36", "trainer.num_workers=0"]
        of_weights = config.startswith("experiment/cub")  # which are downloaded
        SMALLER[config] += ["backbone.name=test_resnet", "backbone.pretrained=false"] if of_weights else []
        if not config.endswith("_triplet") and "_generation_" not in config:  # whose teacher is as the student
            SMALLER[config] += ["method.teacher.backbone.name=resnet18"]
            SMALLER[config] += ["method.teacher.backbone.pretrained=false"] if of_weights else []
for config in ("experiment/cifar100_fitnet", "experiment/cifar100_rkd_fitnet"):
    SMALLER[config] = ["optimizer.lr=0.001", "method.teacher.epochs=1"]  # two steps on noise
SMALLER |= {c: ["features=stored", "features.output=map"] for c in CONFIGS if c.startswith("pool/")}
# configs that lists name
LISTED = {"scorer": "evaluation.scorers", "protocol": "evaluation.extra_protocols"}
SMALLER |= {config: ["dataset=digits_open"] for config in CONFIGS if config.startswith("scorer/")}
SMALLER |= {"scorer/distance": ["dataset=digits_open", "method=gcpl"], "protocol/open_set": ["dataset=digits_open"]}
SMALLER["protocol/few_shot"] = ["evaluation.episodes=5"]
SMALLER |= {f"experiment/{data}_linear_probe": ["dataset.resize_to=32"] for data in ("cifar100_lt", "cifar10_open")}
SMALLER |= {
    f"experiment/cifar100_lt_{name}": ["method.assignment.batch_size=32", "method.assignment.epochs=1"]
    for name in ("ride", "ride_distill")
}
SMALLER["experiment/cifar10_open_arpl_cs"] = ["method.width=8"]
# two steps of generation take the same code paths as ten or a hundred
generating = [config for config in CONFIGS if config.startswith("experiment/") and "_m2m" in config]
for config in ("method/non_robust_features", *generating):
    SMALLER[config] = [*SMALLER.get(config, []), "method.steps=2"]
SMALLER |= {config: ["dataset=tiny_imagenet"] for config in ("augment/herbs", "augment/window")}

# of experiment configs that differ by a value or by the data set, one of each kind is run by `make test`, all of them
# by `make test-all`; that they compose and fit the code is tested of all
ONE_OF_A_KIND = {
    "cub_herbs": ("cub_herbs", "cub_herbs_released", "cub_herbs_swin_l"),
    "nabirds_": (),
    "cifar10_lt_m2m_": ("cifar10_lt_m2m_ldam", "cifar10_lt_m2m_noise"),
    "cifar10_lt_rw": ("cifar10_lt_rw",),
    "cifar10_lt_cb_rw": ("cifar10_lt_cb_rw",),
    "tiny_imagenet_bg": ("tiny_imagenet_bg_both",),
    "cifar100_bg": ("cifar100_bg_both", "cifar100_bg_focal"),
    "cifar100_retrieval": ("cifar100_retrieval_triplet", "cifar100_retrieval_generation_2"),
    "cub_retrieval": ("cub_retrieval_rkd_da",),
    "tiny_imagenet_retrieval": (),
    "cifar100_rkd": ("cifar100_rkd_fitnet",),
}


def is_run_always(config: str) -> bool:
    name = config.split("/")[1]
    if name.replace("cifar100_lt", "cifar10_lt") != name:
        return f"experiment/{name.replace('cifar100_lt', 'cifar10_lt')}" not in CONFIGS
    return all(name in chosen for start, chosen in ONE_OF_A_KIND.items() if name.startswith(start))


EXPERIMENTS = [
    config if is_run_always(config) else pytest.param(config, marks=pytest.mark.long)
    for config in CONFIGS
    if config.split("/")[0] in ("debug", "experiment")
]

# of images that are read from files; the miniatures have some twenty of them
OF_FILES = ["backbone.name=resnet18", "dataset.image_size=32", "trainer.precision=fp32", "trainer.num_workers=0"]


def reads_files(config: str) -> bool:
    return "image_size" in read_config(config)


def images_per_class(config: str) -> int:
    """Return the number of made-up training images in each class of CIFAR-100; a long tail needs more than 100."""
    return 20 if re.search("cifar100_(bg|retrieval)", config) else 120


def checked_config(*overrides: str) -> dict:
    return check_config(compose_config(list(overrides)))


def override_of(config: str) -> str:
    group, _, name = config.rpartition("/")
    if group in LISTED:
        return f"{LISTED[group]}=[{'pytorch_ood.GEN' if name == 'pytorch_ood' else name}]"
    if group == "pool":
        return f"+pool@features.pool={name}"
    return f"{group}={name}"


@pytest.mark.parametrize("node", NAMED_CONFIGS)
def test_a_config_composes_and_its_targets_and_arguments_fit(node):
    config = checked_config(override_of(node))
    assert check_arguments(config) == []


@pytest.mark.parametrize("config", CONFIGS)
def test_the_first_comment_of_a_config_is_one_sentence(config):
    lines = (CONF / f"{config}.yaml").read_text().splitlines()
    first = next(line for line in lines if not line.startswith("# @package"))
    assert first.startswith("# ")
    assert len(first) > 20
    assert first.endswith("."), "one sentence, on one line"
    assert not re.search(r"(?i)\bjudg|\bpages?\b", (CONF / f"{config}.yaml").read_text())


@pytest.mark.parametrize("config", CONFIGS)
def test_the_rules_of_a_config_name_its_keys(config):
    content = yaml.safe_load((CONF / f"{config}.yaml").read_text()) or {}
    for path, node in mappings(content):
        for key in node.get("_allowed_") or {}:
            inherited = "defaults" in node
            assert key in node or inherited, f"{path}: _allowed_ names '{key}', which is not there"


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        config
        for config in NAMED_CONFIGS
        if config.split("/")[0] not in ("debug", "experiment", "sweep") and SMALLER.get(config, []) is not None
    ],
)
def test_a_config_trains_for_two_steps(config, ltr_train, put_small_sources, monkeypatch):
    put_small_sources(monkeypatch, train_images=images_per_class(config))
    more = SMALLER.get(config, [])
    debug = ["debug=fast", "trainer.max_epochs=1"]
    if reads_files(config) or "dataset=tiny_imagenet" in more:
        more = [*OF_FILES, *more]
    finished = ltr_train(*debug, override_of(config), *more, "dataset.val=none", "evaluation.batch_size=200")
    assert finished.code == 0, finished.err
    value = finished.headline[finished.result["metric"]]
    assert value is None or 0 <= value <= 1


@pytest.mark.slow
@pytest.mark.parametrize("config", EXPERIMENTS)
def test_an_experiment_or_debug_config_runs(config, ltr_train, put_small_sources, monkeypatch):
    put_small_sources(monkeypatch, train_images=images_per_class(config))
    short = ["trainer.max_epochs=2", "trainer.limit_train_batches=2"]
    short += ["batch_size=32"] if config.startswith("experiment/cifar") else []  # instead of 128: quicker steps
    # a recipe may give values to a schedule's own keys
    short += [] if config == "experiment/cub_retrieval_triplet" else ["scheduler=constant"]
    finished = ltr_train(override_of(config), *short, *(SMALLER.get(config) or []), "evaluation.batch_size=200")
    assert finished.code == 0, finished.err
