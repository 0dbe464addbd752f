"""The direct loop over batches: the bits, the hooks and the progress of Lightning's own loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop

from ltr.data.batch import Batch
from ltr.runs.training.direct_loop import DirectEpochLoop

pytestmark = pytest.mark.slow

HOOKS = (
    *("on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward"),
    *("on_before_optimizer_step", "on_train_batch_end"),
)


class Network(pl.LightningModule):
    """A network that notes its hooks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 2)
        self.calls: list[str] = []

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, torch.Tensor]:
        self.calls.append(f"training_step {batch_index}")
        loss = torch.nn.functional.cross_entropy(self.layer(batch.images), batch.labels)
        return {"loss": loss, "correct": torch.tensor(batch_index)}

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_after_backward(self) -> None:
        self.calls.append("network on_after_backward")

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        super().optimizer_step(*arguments, **named)
        self.calls.append("network optimizer_step")


class LeavingOut(Network):
    """A network that leaves out the rest of an epoch after its first batch."""

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> int | None:
        self.calls.append(f"network on_train_batch_start {batch_index}")
        return -1 if batch_index == 1 else None


class Loader:
    """Three batches, the last of them smaller."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[Batch]:
        random = torch.Generator().manual_seed(1)
        for size in (5, 5, 3):
            rows = torch.arange(size)
            yield Batch(torch.rand(size, 4, generator=random), rows % 2, rows)


class Data(pl.LightningDataModule):
    def train_dataloader(self) -> Loader:
        return Loader()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch


class Notes(pl.Callback):
    """A callback that notes the hooks of a step and their numbers."""

    def __init__(self, calls: list[str]) -> None:
        for name in HOOKS:
            setattr(type(self), name, self._noting(name, calls))

    @staticmethod
    def _noting(name: str, calls: list[str]) -> Callable[..., None]:
        def hook(callback: Any, trainer: pl.Trainer, network: pl.LightningModule, *arguments: Any) -> None:
            loss = arguments[0]["loss"] if name == "on_train_batch_end" else None
            shown = [
                float(torch.as_tensor(one).detach())
                for one in (loss, *arguments)
                if isinstance(one, (int, torch.Tensor))
            ]
            calls.append(f"{name} {shown} step {trainer.global_step}")

        return hook


def trained(
    loop: type[_TrainingEpochLoop], tmp_path, network_type: type[Network] = Network, **options: Any
) -> SimpleNamespace:
    network = network_type()
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=[type("OwnNotes", (Notes,), {})(network.calls)],
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit_loop.epoch_loop = loop(trainer)
    trainer.fit(network, datamodule=Data())
    return SimpleNamespace(
        calls=network.calls,
        weights=[weight.detach() for weight in network.parameters()],
        progress=trainer.fit_loop.state_dict(),
        rates=trainer.optimizers[0].param_groups[0]["lr"],
        loop=trainer.fit_loop.epoch_loop,
    )


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("clip", [None, 0.01])
def test_the_direct_loop_has_the_weights_hooks_and_progress_of_lightning(tmp_path, precision, clip):
    options = {"precision": precision, "gradient_clip_val": clip}
    direct, own = (trained(loop, tmp_path, **options) for loop in (DirectEpochLoop, _TrainingEpochLoop))
    assert direct.calls == own.calls
    assert len([call for call in own.calls if call.startswith("training_step")]) == 6
    assert all(torch.equal(a, b) for a, b in zip(direct.weights, own.weights))
    assert direct.progress == own.progress
    assert direct.rates == own.rates


def test_a_network_may_end_an_epoch_early(tmp_path):
    direct, own = (trained(loop, tmp_path, LeavingOut) for loop in (DirectEpochLoop, _TrainingEpochLoop))
    assert direct.calls == own.calls
    assert len([call for call in own.calls if call.startswith("training_step")]) == 2
    assert direct.progress == own.progress
    assert direct.rates == own.rates


@pytest.mark.parametrize(
    ("options", "is_direct"),
    [({}, True), ({"accumulate_grad_batches": 2}, False), ({"profiler": "simple"}, False)],
)
def test_only_plain_steps_of_one_optimiser_use_the_direct_loop(tmp_path, options, is_direct):
    assert (trained(DirectEpochLoop, tmp_path, **options).loop._hooks is not None) == is_direct
