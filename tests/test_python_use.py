"""Losses, samplers and protocols from Python with their required arguments only."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ltr.data.sampling import samplers
from ltr.data.sampling.per_class import PerClass
from ltr.errors import ConfigError, DataError, LtrError
from ltr.evaluation.background import Background
from ltr.evaluation.closed_set import ClosedSet
from ltr.evaluation.few_shot import FewShot
from ltr.evaluation.open_set import OpenSet
from ltr.evaluation.retrieval import Retrieval
from ltr.evaluation.scores import Scores
from ltr.losses import classification, functional
from ltr.losses.prototypical import Prototypical
from ltr.losses.triplet import Triplet, draw_negatives
from ltr.methods.m2m.seeds import choose_slots

COUNTS = [50, 20, 5]
LOGITS = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
FEATURES = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(12) % 3
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32]
NO_INTEGERS = [torch.float32, torch.float64, torch.bfloat16, torch.bool]

PROTOCOLS = {
    "closed_set": (lambda: ClosedSet(COUNTS), Scores(LOGITS)),
    "open_set": (lambda: OpenSet(COUNTS), Scores(LOGITS)),
    "background": (lambda: Background(COUNTS), Scores(LOGITS)),
    "retrieval": (lambda: Retrieval(), Scores(features=FEATURES)),
    "few_shot": (lambda: FewShot(way=2, queries=1, episodes=3), Scores(features=FEATURES)),
}
protocols = pytest.mark.parametrize("name", PROTOCOLS)

LOSSES = {
    "cross_entropy": (lambda: classification.CrossEntropy(), LOGITS),
    "cross_entropy_with_counts": (lambda: classification.CrossEntropy(COUNTS), LOGITS),
    "focal_softmax": (lambda: classification.FocalSoftmax(), LOGITS),
    "focal_softmax_beta": (lambda: classification.FocalSoftmax(COUNTS, beta=0.9, weight_inside=True), LOGITS),
    "focal_sigmoid": (lambda: classification.FocalSigmoid(), LOGITS),
    "class_balanced": (lambda: classification.ClassBalanced(COUNTS, beta=0.9), LOGITS),
    "class_balanced_focal": (lambda: classification.ClassBalanced(COUNTS, beta=0.9, base="focal"), LOGITS),
    "class_balanced_sigmoid": (lambda: classification.ClassBalanced(COUNTS, beta=0.9, base="sigmoid"), LOGITS),
    "ldam": (lambda: classification.LDAM(COUNTS, scale=1.0, beta=0.9), LOGITS),
    "balanced_softmax": (lambda: classification.BalancedSoftmax(COUNTS), LOGITS),
    "logit_adjusted": (lambda: classification.LogitAdjusted(COUNTS), LOGITS),
    "vs": (lambda: classification.VS(COUNTS), LOGITS),
    "triplet": (lambda: Triplet(mining="all"), FEATURES),
    "prototypical": (lambda: Prototypical(), FEATURES),
}
losses = pytest.mark.parametrize("name", LOSSES)

SAMPLERS = [
    samplers.Instance(),
    samplers.ClassBalanced(),
    samplers.Power(q=0.5),
    samplers.SquareRoot(),
    samplers.Progressive(),
    samplers.Progressive(schedule="periodic"),
    PerClass(images_per_class=2, batch_size=4),
]


def result(name: str, labels) -> dict[str, float]:
    make, scores = PROTOCOLS[name]
    protocol = make()
    protocol.update(scores, labels)
    return protocol.compute().metrics


@protocols
@pytest.mark.parametrize("dtype", INTEGERS)
def test_a_protocol_counts_labels_of_any_integer_type(name, dtype):
    np.testing.assert_equal(result(name, LABELS.to(dtype)), result(name, LABELS))


@protocols
def test_a_protocol_counts_labels_of_an_array_or_a_list(name):
    np.testing.assert_equal(result(name, LABELS.numpy().astype(np.uint8)), result(name, LABELS))
    np.testing.assert_equal(result(name, LABELS.tolist()), result(name, LABELS))


@protocols
@pytest.mark.parametrize("dtype", NO_INTEGERS)
def test_a_protocol_refuses_labels_that_are_not_class_numbers(name, dtype):
    with pytest.raises(DataError, match=r"labels of type .*integer type.*labels\.long\(\)"):
        result(name, LABELS.to(dtype))


@protocols
def test_a_protocol_names_the_missing_part_of_the_scores(name):
    make, scores = PROTOCOLS[name]
    missing = "features" if scores.logits is None else "logits"
    with pytest.raises(ValueError, match=f"hold no {missing}"):
        make().update(Scores(logits=LOGITS) if missing == "features" else Scores(features=FEATURES), LABELS)
    with pytest.raises(ValueError, match="for 2 labels"):
        make().update(scores, LABELS[:2])


@losses
@pytest.mark.parametrize("dtype", INTEGERS)
def test_a_loss_is_the_same_for_labels_of_any_integer_type(name, dtype):
    make, inputs = LOSSES[name]
    assert torch.equal(make()(inputs, LABELS.to(dtype)), make()(inputs, LABELS))


@losses
@pytest.mark.parametrize("dtype", NO_INTEGERS)
def test_a_loss_refuses_labels_that_are_not_class_numbers(name, dtype):
    make, inputs = LOSSES[name]
    with pytest.raises(DataError, match="labels of type"):
        make()(inputs, LABELS.to(dtype))


def test_losses_without_weights_need_no_counts_and_are_those_with_counts():
    for kind in (classification.CrossEntropy, classification.FocalSoftmax, classification.FocalSigmoid):
        assert torch.equal(kind()(LOGITS, LABELS), kind(COUNTS)(LOGITS, LABELS))
        assert "class_counts" not in kind().state_dict()
    with pytest.raises(ConfigError, match="FocalSoftmax: beta and background need class_counts"):
        classification.FocalSoftmax(beta=0.9)
    with pytest.raises(ConfigError, match="CrossEntropy: beta and background need class_counts"):
        classification.CrossEntropy(background=0)


def test_loss_functions_do_not_treat_uint8_labels_as_a_mask():
    weight = torch.tensor([1.0, 2.0, 3.0])
    few = torch.tensor([0, 1, 2])
    expected = functional.cross_entropy(LOGITS[:3], few, weight)
    assert torch.equal(functional.cross_entropy(LOGITS[:3], few.to(torch.uint8), weight), expected)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
def test_a_sampler_needs_labels_a_seed_and_an_epoch(sampler):
    labels = np.repeat([0, 1, 2], COUNTS).astype(np.uint8)
    index = samplers.ClassIndex.from_labels(labels, 3)
    draw = sampler.epoch(index, seed=0, epoch=0, epochs=3)
    expected = sampler.epoch(samplers.ClassIndex.from_labels(labels.astype(np.int64), 3), seed=0, epoch=0, epochs=3)
    np.testing.assert_array_equal(draw, expected)
    assert set(labels[draw]) == {0, 1, 2}


def test_an_index_refuses_labels_that_are_not_class_numbers():
    for labels in (np.zeros(3), np.array(["a", "b"]), np.zeros(3, bool), np.zeros((3, 1), int)):
        with pytest.raises(DataError, match="training labels of type"):
            samplers.ClassIndex.from_labels(labels, 3)


def test_random_numbers_of_triplets_can_be_passed_in():
    loss, uniforms = Triplet(), torch.rand(12, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.equal(loss(FEATURES, LABELS, uniforms=uniforms), loss(FEATURES, LABELS, uniforms=uniforms))
    first = draw_negatives(FEATURES, LABELS, 0.5, 1.4, torch.zeros(12, 12))
    last = draw_negatives(FEATURES, LABELS, 0.5, 1.4, torch.full((12, 12), 1 - 1e-12, dtype=torch.float64))
    assert (LABELS[first] != LABELS[:, None]).all()
    assert (LABELS[last] != LABELS[:, None]).all()
    assert (first == first[:, :1]).all()
    assert (first <= last).all()
    torch.manual_seed(3)
    own = torch.rand(12, 12, dtype=torch.float64)
    torch.manual_seed(3)
    assert torch.equal(loss(FEATURES, LABELS), loss(FEATURES, LABELS, uniforms=own))
    with pytest.raises(ConfigError, match=r"allowed is \[12, 12\]"):
        loss(FEATURES, LABELS, uniforms=torch.rand(12))
    with pytest.raises(ConfigError, match="mining=all does not use them"):
        Triplet(mining="all")(FEATURES, LABELS, uniforms=uniforms)


def test_the_random_numbers_of_m2m_are_keep_seed_chance_image_and_target():
    labels, counts = np.array([0, 0, 1, 2]), np.array([100, 10, 1])
    low, high = 0.0, 1 - 1e-9
    draws = np.full((4, 5), low)
    assert len(choose_slots(labels, counts, 0.9, draws)) == 0  # all are kept
    draws[2:, 0] = high
    slots = choose_slots(labels, counts, 0.9, draws)
    assert (slots.places.tolist(), slots.seeds.tolist(), slots.chance.tolist()) == ([2, 3], [0, 0], [True, True])
    draws[2:, 1] = high
    assert choose_slots(labels, counts, 0.9, draws).seeds.tolist() == [1, 2]
    draws[2:, 2] = high
    assert choose_slots(labels, counts, 0.9, draws).chance.tolist() == [False, False]
    index = samplers.ClassIndex.from_labels(np.repeat([0, 1, 2], counts), 3)
    draws[:, 1] = low  # a seed of class 0
    assert choose_slots(labels, counts, 0.9, draws, images=index).seeds.tolist() == [0, 0]
    draws[2:, 3] = high
    assert choose_slots(labels, counts, 0.9, draws, images=index).seeds.tolist() == [99, 99]
    draws[2:, 4] = 0.5
    assert choose_slots(labels, counts, 0.9, draws, random_target=True).targets.tolist() == [1, 1]
    with pytest.raises(LtrError, match=r"needed is \[4, 5\].*keep, seed, chance, image, target"):
        choose_slots(labels, counts, 0.9, draws[:, :3])
