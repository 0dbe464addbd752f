"""A last batch of one image: joined to the batch before where batch normalisation needs that, else left as it is."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from ltr.data.loaders.device import batch_bounds
from several import ltr_train_in

SHORT = ("trainer.max_epochs=1", "trainer.precision=fp32", "trainer.accelerator=cpu")
SAID = "would be a batch of one image"
METHODS = {
    "erm": ("dataset=digits_lt", "batch_size=499"),
    "limited": ("dataset=digits_lt", "batch_size=499", "trainer.limit_train_batches=2"),
    "crt": ("dataset=digits_lt", "batch_size=499", "method=crt", "method.classifier.epochs=1"),
    "smote": ("dataset=digits_lt", "batch_size=499", "method=smote"),
    "m2m": ("dataset=digits_lt", "batch_size=499", "method=m2m", "method.steps=1"),
    "arpl_cs": ("dataset=digits_open", "method=arpl_cs", "method.width=4"),
    "splitting": (
        "dataset=digits_bg",
        "method=background_splitting",
        "method.aux.partition=kmeans",
        "method.aux.groups=4",
    ),
    "accumulated": ("dataset=digits_lt", "batch_size=499", "trainer.accumulate=2"),
    "averaged": ("dataset=digits_lt", "batch_size=499", "trainer.ema_decay=0.9"),
}


@pytest.fixture
def single(plain, tmp_path) -> tuple[str, ...]:
    """Overrides that choose a network in front of whose batch normalisation an image is one value."""
    (tmp_path / "configs" / "backbone" / "single.yaml").write_text("_target_: plain_network.SingleValueNet\n")
    return (plain[0], "backbone=single")


@pytest.mark.parametrize(
    ("images", "size", "joined", "expected"),
    [
        (17, 16, True, [0, 17]),
        (17, 16, False, [0, 16, 17]),
        (33, 16, True, [0, 16, 33]),
        (32, 16, True, [0, 16, 32]),
        (18, 16, True, [0, 16, 18]),
        (1, 16, True, [0, 1]),
        (16, 16, True, [0, 16]),
    ],
)
def test_a_last_batch_of_one_image_can_be_joined_to_the_one_before(images, size, joined, expected):
    assert batch_bounds(images, size, joined).tolist() == expected


def steps(directory) -> int:
    with open(directory / "metrics.csv", newline="") as file:
        return int(list(csv.DictReader(file))[-1]["step"])


@pytest.mark.parametrize("arguments", METHODS.values(), ids=METHODS)
def test_a_single_image_joins_the_batch_before(ltr_train, single, tmp_path, arguments):
    if not any(one.startswith("batch_size") for one in arguments):
        first = ltr_train(*SHORT, *single, *arguments, "batch_size=50", outputs=tmp_path / "first")
        assert first.code == 0, first.err
        arguments = (*arguments, f"batch_size={first.result['data']['train_images'] - 1}")
    done = ltr_train(*SHORT, *single, *arguments)
    assert done.code == 0, done.err
    assert SAID in done.out
    assert steps(done.directory) == 1


def test_a_single_image_is_a_batch_without_batch_statistics(ltr_train):
    done = ltr_train(*SHORT, "dataset=digits_lt", "batch_size=499")
    assert done.code == 0, done.err
    assert SAID not in done.out
    assert steps(done.directory) == 2


def test_a_single_image_is_a_batch_if_the_method_expands_it(ltr_train, single):
    done = ltr_train(*SHORT, *single, "batch_size=499", "method=sla")
    assert done.code == 0, done.err
    assert SAID not in done.out
    assert steps(done.directory) == 2


def test_a_single_image_that_is_never_reached_is_not_joined(ltr_train, single):
    done = ltr_train(*SHORT, *single, "batch_size=499", "trainer.limit_train_batches=1")
    assert done.code == 0, done.err
    assert SAID not in done.out


def test_batches_of_one_image_are_refused_before_the_first_step(ltr_train, single):
    done = ltr_train(*SHORT, *single, "batch_size=1")
    assert done.code == 2
    assert "batch_size=1 and 500 training images make batches of a single image" in done.err
    assert not done.directories


@pytest.mark.slow
def test_all_processes_join_their_last_images(tmp_path, single):
    both = ltr_train_in(tmp_path, *SHORT, *single, "batch_size=498")
    assert both.codes == [0, 0], both.err
    assert f"{SAID}" in both.out
    alone = ltr_train_in(tmp_path / "b", *SHORT, *single, "batch_size=2")
    assert alone.codes == [2, 2], alone.err


def test_methods_get_the_positions_of_a_joined_step():
    from ltr.data.module import DataModule
    from ltr.data.sampling.samplers import Instance
    from ltr.data.source import Source
    from ltr.data.split import Split
    from ltr.methods.core.step_data import step_of

    labels = np.arange(17) % 2
    source = Source("s", np.zeros((17, 4, 4, 1), np.uint8), labels, ("a", "b"), {"train": range(17)})
    split = Split(
        name="s",
        train=np.arange(17),
        val=np.empty(0, np.int64),
        test=np.arange(17),
        unknown=np.empty(0, np.int64),
        label_map=np.arange(2),
        class_names=("a", "b"),
        class_counts=np.array([9, 8]),
    )
    data = DataModule(
        source,
        split,
        sampler=Instance(),
        augment=None,
        batch_size=8,
        eval_batch_size=8,
        seed=0,
        role="r",
        epochs=1,
    )
    data.join_single = True
    batches = list(data.train_dataloader())
    assert [len(batch.labels) for batch in batches] == [8, 9]
    step = step_of(data, 0, 1, batches[1])
    assert step.positions.tolist() == list(range(8, 17))
    assert np.array_equal(step.labels, batches[1].labels.numpy())
    assert np.array_equal(data.indices_of_step(0, 1), batches[1].indices.numpy())
    assert data.steps_per_epoch == 2
