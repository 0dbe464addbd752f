"""Plans, untrained networks and batches of the handwritten digits for the tests of methods."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, replace
from typing import Any

import torch

from ltr.configuration.overrides import load_config
from ltr.configuration.targets import check_arguments, instantiate
from ltr.data.batch import Batch
from ltr.data.module import DataModule
from ltr.methods.core.network import ImageClassifier
from ltr.methods.core.settings import DatasetInfo
from ltr.methods.core.stage import Computation, Method, Stage, StageOutput
from ltr.runs.plan import describe_dataset, main_settings, plan_keys


@dataclass(frozen=True)
class Plan:
    """A method's stages and keys, and what they were made of."""

    config: dict[str, Any]
    dataset_info: DatasetInfo
    method: Method
    stages: dict[str, Stage]
    keys: dict[str, str]
    data: DataModule

    def representation(self, seed: int = 0) -> ImageClassifier:
        """The first stage's network with its initial weights and BatchNorm statistics of some batches."""
        stage = self.stages["representation"]
        network = stage.network(self.dataset_info, seed)
        network.train()
        with torch.no_grad():
            for batch in self.data.evaluation_loader("train"):
                network(network.to_unit(batch.images))
        return network.eval()

    def outputs(self, network: ImageClassifier, **arrays: dict) -> dict[str, StageOutput]:
        """Finished stages: the representation, and computed ones by name."""
        outputs = {"representation": StageOutput("representation", "key", lambda: network)}
        for name, actual in arrays.items():
            outputs[name] = StageOutput(name, "key", lambda: None, arrays=actual)
        return outputs

    def second(self, network: ImageClassifier, seed: int = 0) -> Any:
        """The second stage's network as its training begins."""
        stage = self.stages["classifier"]
        built = stage.network(self.dataset_info, seed, self.outputs(network))
        built.start_epoch(0)
        return built

    def computation(self, name: str, parents: dict[str, StageOutput], **changes: Any) -> Computation:
        """The inputs of a computed stage."""
        stage = self.stages[name]
        inputs = Computation(
            parents=parents,
            settings=stage.settings,
            dataset_info=self.dataset_info,
            source=self.data.source,
            split=self.data.split,
            loader=self.data.evaluation_loader,
            device=torch.device("cpu"),
            autocast=contextlib.nullcontext,
            seed=0,
            role=stage.role,
        )
        return replace(inputs, **changes)

    def compute(self, name: str, network: ImageClassifier) -> dict[str, Any]:
        """The arrays of a computed stage."""
        stage = self.stages[name]
        return dict(stage.target(self.computation(name, self.outputs(network)), **stage.options))

    def batch(self, part: str = "train") -> Batch:
        """The first images of a part, un-augmented."""
        return next(iter(self.data.evaluation_loader(part)))


@functools.lru_cache(maxsize=64)
def planned(*overrides: str) -> Plan:
    """The plan of a command with these overrides."""
    config = load_config(list(overrides))
    assert check_arguments(config) == []
    source = instantiate(config["dataset"]["source"])
    split = instantiate(config["dataset"]["split"], source)
    dataset_info = describe_dataset(config, source, split)
    method = instantiate(config["method"])
    stages = method.stages(main_settings(config, "fp32", method), dataset_info)
    keys = {name: key for name, (key, _) in plan_keys(stages, config["seed"], source, split, dataset_info).items()}
    data = DataModule(
        source,
        split,
        sampler=instantiate(config["sampler"]),
        augment=None,
        batch_size=64,
        eval_batch_size=128,
        seed=0,
        role="test",
        epochs=1,
    )
    return Plan(config, dataset_info, method, {stage.name: stage for stage in stages}, keys, data)


def step(network: Any, batch: Batch, steps: int = 1) -> None:
    """Some optimiser steps on one batch, at the base learning rate."""
    optimizer, _ = network.optimisation(8)
    for number in range(steps):
        optimizer.zero_grad()
        network.training_step(batch, number)["loss"].backward()
        optimizer.step()


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of a module's state."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
