"""compile=graph: no shipped loss waits for the device, makes constants on the host or has sizes that depend on data."""

from __future__ import annotations

import pytest
import torch

from ltr.configuration.configs import config_names, read_config, without_private
from ltr.configuration.targets import instantiate
from ltr.data.batch import Mix
from recorded_steps import CpuRecorder

COUNTS = [40, 20, 10, 5]
LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
EMBEDDINGS = ("triplet", "prototypical")  # which take no mixed labels


def scores(seed: int) -> torch.Tensor:
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "is_mixed"),
    [
        (name, is_mixed)
        for name in config_names("loss")
        for is_mixed in (False, True)
        if name not in EMBEDDINGS or not is_mixed
    ],
)  # losses of embeddings take no mixed labels
def test_a_loss_and_its_gradient_can_be_recorded(name, is_mixed):
    config = {**without_private(read_config(f"loss/{name}")), "beta": 0.99, "scale": 30.0}
    known = read_config(f"loss/{name}").keys() - {"defaults"}
    loss = instantiate({key: value for key, value in config.items() if key in known}, COUNTS)
    loss.start_epoch(9, 10)
    logits = scores(0).requires_grad_()
    mix = Mix(LABELS.flip(0), torch.full((8,), 0.3)) if is_mixed else None

    def step() -> torch.Tensor:
        logits.grad = None
        value = loss(logits, LABELS, mix)
        value.backward()
        return value.detach()

    torch.manual_seed(0)
    step()  # constants
    recorder = CpuRecorder()
    replay, value = recorder.record(step)
    gradient = logits.grad
    with torch.no_grad():
        logits.copy_(scores(1))
    before = [buffer.clone() for buffer in loss.buffers()]  # some losses accumulate statistics
    torch.manual_seed(1)
    replay()
    repeated = value.clone(), gradient.clone()
    for buffer, old in zip(loss.buffers(), before):
        buffer.copy_(old)
    torch.manual_seed(1)
    usual = step()
    assert recorder.waiting == []
    assert torch.equal(repeated[0], usual)
    assert torch.equal(repeated[1], logits.grad)
