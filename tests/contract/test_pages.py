"""Every page of conf/ composes, names code that exists with arguments that fit, and runs two steps on tiny data.

The tests find the pages themselves: a new page is covered when its file is there.
"""

from __future__ import annotations

import pytest
import yaml
from hydra import compose, initialize_config_dir

from ltr.configuration.check import checked
from ltr.configuration.configs import conf_directory, mappings
from ltr.configuration.targets import check_arguments

CONF = conf_directory()
PAGES = sorted(str(p.relative_to(CONF).with_suffix("")) for p in CONF.rglob("*.yaml") if p.parent != CONF)
# pages that are taken without being named, or that belong to Hydra itself
TAKEN_BY_NAME = [page for page in PAGES if page.split("/")[0] not in ("recipe", "hydra")]
# smaller than the page's default, where a page's default is for large images
SMALLER = {
    "backbone/timm": ["backbone.name=resnet10t"],
    "backbone/torchvision": ["backbone.name=squeezenet1_1", "dataset=cifar10_lt"],
    "backbone/classifier32": ["dataset=cifar10_lt"],
    "augment/cifar_autoaugment": ["dataset=cifar10_lt"],
    "augment/cifar_cutout": ["dataset=cifar10_lt"],
    "scheduler/ldam": ["scheduler.warmup_epochs=0"],
    "logger/wandb": ["logger.mode=offline"],
    "augment/imagenet": ["dataset=tiny_imagenet"],
    "dataset/cub_lt": ["dataset.imbalance_factor=3"],
    "dataset/tiny_imagenet_lt": ["dataset.imbalance_factor=3"],
    "trainer/gpu": None,  # needs one
    "strategy/fsdp": None,  # needs several
    "dataset/inat_bg": ["dataset.foreground=uniform", "dataset.n_foreground=1"],  # the miniature lacks the listed ones
    "dataset/tiny_imagenet_bg": ["dataset.n_foreground=2"],
    "dataset/tiny_imagenet_open": ["dataset.classes=seeded", "backbone=torchvision"],
    **{page: ["dataset=digits_bg"] for page in ("method/background_splitting", "scheduler/background_splitting")},
    **{
        page: ["method=triplet", "dataset=digits_retrieval"]
        for page in ("loss/triplet", "head/embedding", "head/unit_embedding")
    },
    **{
        page: ["method=prototypical", "dataset=digits_retrieval"]
        for page in ("loss/prototypical", "head/features", "sampler/episodes")
    },
    **{page: ["dataset=digits_retrieval"] for page in ("method/rkd", "method/triplet", "method/prototypical")},
    # of published classes, which the miniatures lack: tests/data/test_split_pages.py makes their splits
    **{page: None for page in PAGES if page.startswith(("dataset/inat_bg_1", "dataset/cub_open"))},
    # with a list that the miniatures lack: tests/data/test_open_lists.py runs them
    **{page: None for page in PAGES if page.endswith("_lt_open")},
}


for page in (page for page in PAGES if page.startswith("experiment/tiny_imagenet_bg_")):
    SMALLER[page] = ["dataset.n_foreground=2", "dataset.image_size=32", "trainer.num_workers=0"]
# the rows' own teacher is a file of weights
for page in (f"experiment/{data}_bg_{row}" for data in ("cifar100", "tiny_imagenet") for row in ("splitting", "both")):
    pixels = ["method.aux.partition=kmeans", "method.aux.features=pixels", "method.aux.groups=10"]
    SMALLER[page] = [*SMALLER.get(page, []), *pixels, "method.aux.exclude_classes=[]"]
# networks and images of the papers' sizes
for page in (page for page in PAGES if page.startswith("experiment/") and "_herbs" in page):
    SMALLER[page] = ["dataset.image_size=64", "dataset.image_resize=[72,72]", "trainer.num_workers=0"]
    for ending, network in (("_swin_l", "test_vit"), ("_resnet50", "test_resnet")):
        if page.endswith(ending):
            SMALLER[page] += [f"backbone.name={network}", "backbone.pretrained=false"]
for page in (page for page in PAGES if page.startswith("experiment/") and "_retrieval_" in page):
    SMALLER[page] = [] if page.endswith("_triplet") else ["method.teacher.epochs=1"]
    if not page.startswith("experiment/cifar"):
        SMALLER[page] += ["dataset.image_size=32", "dataset.image_resize=36", "trainer.num_workers=0"]
        if not page.endswith("_triplet") and "_generation_" not in page:  # whose teacher is as the student
            SMALLER[page] += ["method.teacher.backbone.name=resnet18"]
for page in ("experiment/cifar100_fitnet", "experiment/cifar100_rkd_fitnet"):
    SMALLER[page] = ["optimizer.lr=0.001", "method.teacher.epochs=1"]  # two steps on noise
SMALLER |= {page: ["dataset=tiny_imagenet"] for page in ("augment/herbs", "augment/window")}

# of experiment pages that differ by a value or by the data set, one of each kind is run by `make test`, all of them by
# `make test-all`; that they compose and fit the code is tested of all
ONE_OF_A_KIND = {
    "cub_herbs": ("cub_herbs", "cub_herbs_released", "cub_herbs_swin_l"),
    "nabirds_herbs": (),
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


def is_run_always(page: str) -> bool:
    name = page.split("/")[1]
    if name.replace("cifar100_lt", "cifar10_lt") != name:
        return f"experiment/{name.replace('cifar100_lt', 'cifar10_lt')}" not in PAGES
    return all(name in chosen for start, chosen in ONE_OF_A_KIND.items() if name.startswith(start))


EXPERIMENTS = [
    page if is_run_always(page) else pytest.param(page, marks=pytest.mark.long)
    for page in PAGES
    if page.split("/")[0] in ("debug", "experiment")
]

# of images that are read from files; the miniatures have some twenty of them
OF_FILES = ["backbone.name=resnet18", "dataset.image_size=32", "trainer.precision=fp32", "trainer.num_workers=0"]


def reads_files(page: str) -> bool:
    return "image_size" in (yaml.safe_load((CONF / f"{page}.yaml").read_text()) or {})


def composed(*overrides: str) -> dict:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return checked(compose("train", overrides=list(overrides)))


def chosen(page: str) -> str:
    group, _, name = page.rpartition("/")
    return f"{group}={name}"


@pytest.mark.parametrize("page", TAKEN_BY_NAME)
def test_a_page_composes_and_its_targets_and_arguments_fit(page):
    config = composed(chosen(page))
    assert check_arguments(config) == []


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_in_its_first_comment_what_it_is(page):
    lines = (CONF / f"{page}.yaml").read_text().splitlines()
    first = next(line for line in lines if not line.startswith("# @package"))
    assert first.startswith("# ")
    assert len(first) > 20


@pytest.mark.parametrize("page", PAGES)
def test_a_pages_rules_are_about_its_own_keys(page):
    content = yaml.safe_load((CONF / f"{page}.yaml").read_text()) or {}
    for path, node in mappings(content):
        for key in node.get("_allowed_") or {}:
            inherited = "defaults" in node
            assert key in node or inherited, f"{path}: _allowed_ names '{key}', which is not there"


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in TAKEN_BY_NAME if p.split("/")[0] not in ("debug", "experiment", "sweep")])
def test_a_page_runs_two_steps(page, ltr_train, small_sources):
    more = SMALLER.get(page, [])
    if more is None:
        pytest.skip("cannot run here")
    debug = ["debug=fast", "trainer.max_epochs=1"]
    if reads_files(page) or "dataset=tiny_imagenet" in more:
        more = [*OF_FILES, *more]
    finished = ltr_train(*debug, chosen(page), *more, "dataset.val=none", "evaluation.batch_size=200")
    assert finished.code == 0, finished.err
    value = finished.headline[finished.result["metric"]]
    assert value is None or 0 <= value <= 1


@pytest.mark.slow
@pytest.mark.parametrize("page", EXPERIMENTS)
def test_an_experiment_or_debug_page_runs(page, ltr_train, small_sources):
    short = ["trainer.max_epochs=2", "trainer.limit_train_batches=2"]
    # a recipe may give values to a schedule's own keys
    short += [] if page == "experiment/cub_retrieval_triplet" else ["scheduler=constant"]
    finished = ltr_train(chosen(page), *short, *(SMALLER.get(page) or []), "evaluation.batch_size=200")
    assert finished.code == 0, finished.err
