"""The pages of conf/loss: each builds its loss from counts, and names every argument that its class takes."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest
from omegaconf import OmegaConf

PAGES = sorted((Path(__file__).parents[2] / "conf" / "loss").glob("*.yaml"))
LONG_TAIL_LOSSES = {
    "cross_entropy",
    "focal_softmax",
    "focal_sigmoid",
    "class_balanced",
    "ldam",
    "balanced_softmax",
    "logit_adjusted",
    "vs",
}


def opened(page: Path, **nodes: dict) -> tuple[type, dict]:
    """The page's class and its arguments, resolved beside the given nodes."""
    values = OmegaConf.to_container(OmegaConf.create({"loss": OmegaConf.load(page), **nodes}), resolve=True)["loss"]
    module, _, name = values.pop("_target_").rpartition(".")
    return getattr(importlib.import_module(module), name), {
        key: value for key, value in values.items() if key not in ("_allowed_", "defaults")
    }


def test_every_long_tail_loss_has_a_page():
    assert {page.stem for page in PAGES} >= LONG_TAIL_LOSSES


CLASSIFICATION_PAGES = pytest.mark.parametrize(
    "page", [page for page in PAGES if page.stem in LONG_TAIL_LOSSES], ids=lambda page: page.stem
)


@CLASSIFICATION_PAGES
def test_a_page_builds_its_loss_from_class_counts(page):
    kind, arguments = opened(page)
    assert kind([60, 17, 5, 1], **arguments).class_counts.tolist() == [60, 17, 5, 1]


@CLASSIFICATION_PAGES
def test_a_page_names_every_keyword_of_its_class(page):
    kind, arguments = opened(page)
    keywords = {
        name
        for name, found in inspect.signature(kind).parameters.items()
        if found.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert set(arguments) == keywords


@CLASSIFICATION_PAGES
def test_a_page_bounds_every_value_it_has(page):
    values = OmegaConf.to_container(OmegaConf.load(page))
    assert set(values.get("_allowed_", {})) == set(opened(page)[1])


def test_class_balanced_takes_beta_from_the_data_set():
    page = next(page for page in PAGES if page.stem == "class_balanced")
    assert opened(page, dataset={"beta": 0.9999})[1]["beta"] == 0.9999
    assert opened(page, dataset={})[1]["beta"] == 0.999


def test_ldam_takes_its_scale_from_the_head():
    page = next(page for page in PAGES if page.stem == "ldam")
    assert opened(page, head={"scale": 30.0})[1]["scale"] == 30.0
    assert opened(page, head={"bias": True})[1]["scale"] == 1.0
