"""compile=graph: which methods' training steps can be recorded is what the methods declare, in both directions.

A recording on the CPU (`recorded_steps`) repeats a step's operations as a CUDA graph does. A step that can be recorded
has the bits of a step as usual, and no operation for which the host waits.
"""

from __future__ import annotations

import pytest

from ltr.configuration.configs import config_names
from ltr.runs.training import train
from recorded_steps import ComparingLoop, CpuRecorder

pytestmark = pytest.mark.slow

SHORT = ("trainer.max_epochs=2", "trainer.limit_train_batches=6", "optimizer.lr=0.01", "compile=graph")
DATASETS = {
    **dict.fromkeys(("arpl", "arpl_cs", "gcpl", "rpl", "rpl_confirmed", "rpl_official", "rpl_pp"), "digits_open"),
    **dict.fromkeys(("prototypical", "rkd", "triplet"), "digits_retrieval"),
    "background_splitting": "digits_bg",
}
MORE = {
    "arpl_cs": ("method.width=2", "method.noise_dim=8"),
    "cc_sam": ("method.flat_share=0",),  # else the sizes of a step change, which no recording repeats
    "m2m": ("sampler.defer_from=0.5",),
    "non_robust_features": ("method.steps=2",),
    "rpl_confirmed": ("optimizer.lr=1e-4",),
}
CASES = {
    name: (f"method={name}", f"dataset={DATASETS.get(name, 'digits_lt')}", *MORE.get(name, ()))
    for name in config_names("method")
}
CASES |= {
    "erm, AdamW and clipping": ("optimizer=adamw", "trainer.gradient_clip=0.1"),
    "erm, tuned by lora": ("tune=lora", "tune.rank=2"),
    "erm, mixed images": ("augment=cifar_mixup",),
    "crt, cached features": ("method=crt", "method.freeze_bn_stats=true", "method.features=cached"),
    "herbs, random locations": ("method=herbs", "method.location_rule=random"),
    "rpl, features for a figure": ("method=rpl", "dataset=digits_open", "method.feature_dim=2"),
    "smote of features": ("method=smote", "method.space=feature"),
    "weight_balancing by steps": ("method=weight_balancing", "method.projection=step"),
    "erm, deferred weights": ("loss=ldam", "loss.beta=0.99", "loss.defer_from=0.5"),
}
# a network of these declares, in some epoch, that its steps cannot be recorded
RULED_OUT = {
    *("arpl_cs", "herbs, random locations", "m2m", "non_robust_features", "rpl, features for a figure", "smote"),
    *("smote of features", "weight_balancing"),
}


@pytest.fixture
def loops(monkeypatch) -> list[ComparingLoop]:
    """Record steps on the CPU; return the loop of each stage."""
    loops: list[ComparingLoop] = []

    def loop(*arguments):
        loops.append(ComparingLoop(*arguments))
        return loops[-1]

    monkeypatch.setattr(train, "GraphEpochLoop", loop)
    monkeypatch.setattr(train, "recorder_of", lambda device: CpuRecorder())
    return loops


@pytest.mark.parametrize("case", CASES)
def test_the_steps_that_a_method_does_not_rule_out_can_be_recorded(ltr_train, loops, case):
    run = ltr_train(*SHORT, *CASES[case])
    assert run.code == 0, run.err
    assert any(reason for loop in loops for reason in loop.declared.values()) == (case in RULED_OUT)
    for loop in loops:
        epochs = loop.declared
        if loop._hooks is None:
            assert all(epochs.values())  # not recorded at all
            continue
        assert loop.replayed > 2
        if not any(epochs.values()):
            assert loop.recorder.waiting == []
            assert loop.differing == set()
        else:
            ruled_out = {epoch for epoch, reason in epochs.items() if reason}
            assert loop.differing <= ruled_out
            assert loop.differing or loop.recorder.waiting
