"""The keys of stages and the hashes of runs of shipped configs, as they were when they were written down.

A stage that is stored under a key is found again only as long as its key is the same. A change that claims not to touch
numerics proves it here. Where numerics change on purpose, and the changelog says so, the new keys are written by

    LTR_WRITE_GOLDEN=1 python -m pytest tests/golden/test_stage_keys.py -k GROUP
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ltr.configuration.check import check_config
from ltr.configuration.configs import conf_directory
from ltr.configuration.overrides import compose_config
from ltr.runs.keys import group_hash, run_hash
from ltr.runs.plan import LastSource, plan_of

GOLDEN = Path(__file__).with_name("stage_keys.json")
CONF = conf_directory()
ALWAYS = ["trainer.precision=fp32", "trainer.accelerator=cpu", "paths.outputs=o", "paths.stages=s", "paths.data=d"]
# what is chosen with a config that does not plan on handwritten digits as it is
WITH = {
    "backbone/timm": ["backbone.name=resnet10t"],
    "backbone/torchvision": ["backbone.name=squeezenet1_1", "dataset=cifar10_lt"],
    "backbone/classifier32": ["dataset=cifar10_lt"],
    "augment/cifar_autoaugment": ["dataset=cifar10_lt"],
    "augment/cifar_cutout": ["dataset=cifar10_lt"],
    **{
        f"tune/{name}": ["dataset=cifar10_lt", "backbone=timm", "backbone.name=test_vit"] for name in ("adapter", "vpt")
    },
    "augment/imagenet": None,  # of image files, as the next ones
    "augment/simaugment_files": None,
    "augment/herbs": None,
    "augment/window": None,
    **{name: ["dataset=digits_bg"] for name in ("method/background_splitting", "scheduler/background_splitting")},
    **{
        name: ["dataset=digits_retrieval", "method=triplet"]
        for name in ("loss/triplet", "head/embedding", "head/unit_embedding")
    },
    **{
        name: ["dataset=digits_retrieval", "method=prototypical"]
        for name in ("loss/prototypical", "head/features", "sampler/episodes")
    },
    **{name: ["dataset=digits_retrieval"] for name in ("method/rkd", "method/triplet", "method/prototypical")},
}
GROUPS = ("augment", "backbone", "head", "loss", "method", "optimizer", "sampler", "scheduler", "sharpness", "tune")


def configs() -> dict[str, list[str]]:
    """The overrides that choose each config, by the name under which its keys are written down."""
    overrides = {"train": []}
    for group in GROUPS:
        for path in sorted((CONF / group).glob("*.yaml")):
            more = WITH.get(f"{group}/{path.stem}", [])
            if more is not None:
                overrides[f"{group}/{path.stem}"] = [f"{group}={path.stem}", *more]
    for path in sorted((CONF / "dataset").glob("*.yaml")):
        if path.stem.startswith(("cifar", "digits", "mnist")):
            overrides[f"dataset/{path.stem}"] = [f"dataset={path.stem}"]
    for path in sorted((CONF / "experiment").glob("*.yaml")):
        overrides[f"experiment/{path.stem}"] = [f"experiment={path.stem}"]
    return overrides


def identity(overrides: list[str], read: LastSource) -> dict[str, object]:
    config = check_config(compose_config([*ALWAYS, *overrides]))
    identities: dict[str, object] = {"run": run_hash(config), "group": group_hash(config)}
    if "image_size" not in config["dataset"]:  # the sizes of encoded files depend on the encoder's version
        try:
            identities["stages"] = {name: key for name, (key, _) in plan_of(config, read=read).keys.items()}
        except Exception as error:
            identities["refused"] = type(error).__name__  # as without the weights that an experiment needs
    return identities


@pytest.mark.parametrize("group", ["train", *GROUPS, "dataset", pytest.param("experiment", marks=pytest.mark.long)])
def test_stage_keys_and_run_hashes_equal_the_stored_ones(group, small_sources):
    read = LastSource()
    chosen = {name: overrides for name, overrides in configs().items() if name.split("/")[0] == group}
    actual = json.loads(json.dumps({name: identity(overrides, read) for name, overrides in chosen.items()}))
    golden = json.loads(GOLDEN.read_text())
    if os.environ.get("LTR_WRITE_GOLDEN") == "1":
        GOLDEN.write_text(json.dumps({**golden, **actual}, indent=1, sort_keys=True) + "\n")
        pytest.skip("written")
    expected = {name: keys for name, keys in golden.items() if name.split("/")[0] == group}
    assert {name: actual.get(name) for name in expected} == expected
