"""Background splitting on the digits for tests: pseudo-labels, what a split makes of them, and the network."""

from __future__ import annotations

import copy
import functools
import operator
from dataclasses import replace
from typing import Any

import numpy as np
import yaml
from method_plans import Plan, planned

from ltr.configuration.targets import instantiate
from ltr.methods.core.stage import StageOutput
from ltr.runs.plan import main_settings, plan_keys

BASE = ("dataset=digits_bg", "method=background_splitting")
NO_AUX = "method.aux.weight=0"


@functools.lru_cache(maxsize=64)
def plan_of(*overrides: str) -> Plan:
    """The plan of a command on the digits with background; values of the method need no composition of their own."""
    base = planned(BASE[0], *(override for override in overrides if not override.startswith("method.")))
    config = {**base.config, "method": copy.deepcopy(planned(*BASE).config["method"])}
    for override in overrides:
        if override.startswith("method."):
            path, _, value = override.partition("=")
            *groups, last = path.split(".")
            node = functools.reduce(operator.getitem, groups, config)
            assert last in node, override
            node[last] = yaml.safe_load(value)
    method = instantiate(config["method"])
    stages = method.stages(main_settings(config, "fp32", method), base.dataset_info)
    actual = plan_keys(stages, config["seed"], base.data.source, base.data.split, base.dataset_info)
    keys = {name: key for name, (key, _) in actual.items()}
    return replace(base, config=config, method=method, stages={stage.name: stage for stage in stages}, keys=keys)


def output(name: str, arrays: dict[str, np.ndarray]) -> StageOutput:
    return StageOutput(name, "key", lambda: None, arrays=arrays)


def parents_of(plan: Plan, seed: int = 0, **made_up: dict[str, np.ndarray]) -> dict[str, StageOutput]:
    """The computed stages that the network starts from; ``made_up`` arrays stand in for a stage's own."""
    actual: dict[str, StageOutput] = {}
    for name in ("pseudo_labels", "partition"):
        if name in plan.stages:
            stage = plan.stages[name]
            parents = {parent: actual[parent] for parent in stage.parents}
            arrays = made_up.get(name)
            if arrays is None:
                arrays = stage.target(plan.computation(name, parents, seed=seed), **stage.options)
            actual[name] = output(name, dict(arrays))
    return actual


def network_of(plan: Plan, seed: int = 0, **made_up: dict[str, np.ndarray]) -> Any:
    """The network as its training begins."""
    stage = plan.stages["representation"]
    parents = parents_of(plan, seed, **made_up)
    network = stage.network(plan.dataset_info, seed, parents)
    network.start_epoch(0)
    return network
