"""The selector: which locations of a map are taken, how many, and that no image is treated apart."""

from __future__ import annotations

import pytest
import torch

from ltr.errors import ConfigError
from ltr.methods.herbs.selection import FRACTIONS, counts_of, gather, image_class_scores, location_scores, select


@pytest.fixture
def logits():
    return torch.randn(3, 12, 5, generator=torch.Generator().manual_seed(0))


def test_a_locations_score_is_its_largest_probability(logits):
    torch.testing.assert_close(location_scores(logits).exp(), logits.softmax(2).amax(2))


def test_the_image_class_score_is_the_probability_of_the_class_with_the_largest_mean_logit(logits):
    expected = torch.stack([image.softmax(1)[:, image.mean(0).argmax()] for image in logits])
    torch.testing.assert_close(image_class_scores(logits).exp(), expected)


def test_half_precision_logits_are_scored_in_single_precision(logits):
    assert location_scores(logits.bfloat16()).dtype == torch.float32
    assert location_scores(logits.double()).dtype == torch.float64


@pytest.mark.parametrize("count", [1, 5, 12])
def test_each_location_is_selected_or_dropped_once(logits, count):
    chosen = select(location_scores(logits), count)
    for indices, dropped in zip(chosen.indices, chosen.dropped):
        assert sorted(indices.tolist() + dropped.nonzero().flatten().tolist()) == list(range(12))
    assert chosen.indices.shape == (3, count)


def test_selected_locations_are_in_descending_order_of_score(logits):
    scores = location_scores(logits)
    chosen = select(scores, 4)
    actual = scores.gather(1, chosen.indices)
    assert (actual[:, 1:] <= actual[:, :-1]).all()
    assert (actual[:, -1] >= scores.masked_fill(~chosen.dropped, -torch.inf).amax(1)).all()


def test_gathering_takes_the_rows_of_each_image_with_their_gradient():
    features = torch.randn(3, 12, 4, requires_grad=True)
    indices = torch.tensor([[0, 11], [5, 5], [7, 2]])
    actual = gather(features, indices)
    assert torch.equal(actual, torch.stack([image[rows] for image, rows in zip(features, indices)]))
    actual.sum().backward()
    assert features.grad[1, 5].tolist() == [2] * 4
    assert features.grad[0, 1:11].abs().sum() == 0


def test_the_papers_sizes_give_the_papers_numbers():
    assert counts_of([48 * 48, 24 * 24, 12 * 12, 12 * 12]) == (256, 128, 64, 32)
    assert counts_of([48 * 48, 24 * 24, 12 * 12, 12 * 12], fractions=[8 / 9, 8 / 9, 8 / 9, 2 / 9]) == (
        2048,
        512,
        128,
        32,
    )


def test_fewer_levels_use_the_last_fractions():
    assert counts_of([36, 9], fractions=FRACTIONS) == (16, 2)
    assert counts_of([4]) == (1,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"counts": [4, 17]}, r"level 2 of 2 has 16 locations, so that 17"),
        ({"counts": [0, 4]}, "level 1 of 2"),
        ({"counts": [4]}, "2 levels select"),
        ({"fractions": [0.5, 1.5]}, r"allowed are fractions"),
        ({"fractions": [0.5]}, "2 levels select"),
    ],
)
def test_more_selections_than_locations_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        counts_of([64, 16], **options)
