"""Scorers against their definitions, and where probabilities saturate."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from ltr.configuration.targets import allow_packages
from ltr.errors import ConfigError
from ltr.evaluation.scorers import Scorer, build_scorer, known_scores, log_odds, scorer_names
from ltr.evaluation.scores import LINKS, Scores

torch.set_num_threads(1)


def logits_of(seed, images=12, classes=5, scale=3.0):
    return torch.randn(images, classes, generator=torch.Generator().manual_seed(seed)) * scale


def probabilities(logits, link):
    z = logits.double().numpy()
    return special.softmax(z, axis=1) if link == "softmax" else special.expit(z)


def definition(scorer, logits, link):
    p, z = probabilities(logits, link), logits.double().numpy()
    if scorer == "msp":
        return p.max(axis=1)
    if scorer == "max_logit":
        return z.max(axis=1)
    if scorer == "energy":
        return special.logsumexp(z, axis=1) if link == "softmax" else np.log1p(np.exp(z)).sum(axis=1)
    entropy = special.entr(p) if link == "softmax" else special.entr(p) + special.entr(1 - p)
    return -entropy.sum(axis=1)


@settings(max_examples=60, deadline=None)
@given(
    scorer=st.sampled_from([name for name in scorer_names() if name != "distance"]),
    link=st.sampled_from(LINKS),
    seed=st.integers(0, 1000),
    classes=st.integers(2, 8),
)
def test_scorers_order_images_by_their_definition(scorer, link, seed, classes):
    logits = logits_of(seed, classes=classes)
    scores = known_scores(scorer, Scores(logits), link)
    assert scores.dtype == torch.float64
    assert np.argsort(scores.numpy()).tolist() == np.argsort(definition(scorer, logits, link)).tolist()


@pytest.mark.parametrize("link", LINKS)
def test_msp_is_the_log_odds_and_entropy_minus_the_logarithm(link):
    logits = logits_of(0)
    msp = known_scores("msp", Scores(logits), link)
    np.testing.assert_allclose(special.expit(msp.numpy()), definition("msp", logits, link), rtol=1e-12)
    entropy = known_scores("entropy", Scores(logits), link)
    np.testing.assert_allclose(-np.exp(-entropy.numpy()), definition("entropy", logits, link), rtol=1e-9)


@pytest.mark.parametrize("scorer", ["msp", "entropy", "max_logit", "energy"])
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("margin", [20.0, 60.0, 900.0, 5e4])
def test_confident_images_have_distinct_scores(scorer, link, margin):
    logits = torch.zeros(50, 4)
    logits[:, 2] = margin + torch.linspace(0, 0.01 * margin, 50)
    if link == "sigmoid":
        logits[:, [0, 1, 3]] = -logits[:, [2]]
    scores = known_scores(scorer, Scores(logits), link)
    assert scores.isfinite().all()
    assert (scores.diff() > 0).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), link=st.sampled_from(LINKS), classes=st.integers(2, 6))
def test_log_odds_are_those_of_the_probabilities(seed, link, classes):
    logits = logits_of(seed, classes=classes)
    expected = special.logit(probabilities(logits, link))
    np.testing.assert_allclose(log_odds(logits, link).numpy(), expected, rtol=1e-7, atol=1e-9)


def test_a_class_that_is_ruled_out_has_no_odds():
    scores = log_odds(torch.tensor([[0.0, -torch.inf, 0.0]]), "softmax")
    assert scores.tolist() == [[0.0, -torch.inf, 0.0]]
    ruled_out = torch.tensor([[1.0, 2.0, -torch.inf]])
    without = known_scores("entropy", Scores(ruled_out[:, :2]), "softmax")
    assert known_scores("entropy", Scores(ruled_out), "softmax").item() == pytest.approx(without.item(), rel=1e-12)


def test_distance_is_the_knownness_of_the_method():
    scores = Scores(logits_of(0, images=3), knownness=torch.tensor([3.0, -1.0, 2.0]))
    assert known_scores("distance", scores, "softmax").tolist() == [3.0, -1.0, 2.0]


def test_distance_of_a_method_that_gives_none_is_refused():
    with pytest.raises(ConfigError, match=r"rpl, arpl, gcpl.*Use energy, entropy, max_logit, msp"):
        known_scores("distance", Scores(logits_of(0)), "softmax")


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no scorer 'enery'. Did you mean 'energy'. There are: .*_target_"):
        known_scores("enery", Scores(logits_of(0)), "softmax")


@pytest.mark.parametrize("scorer", ["msp", "entropy"])
def test_with_one_class_all_images_are_equally_known(scorer):
    assert known_scores(scorer, Scores(torch.randn(4, 1)), "softmax").unique().tolist() == [torch.inf]


class Second(Scorer):
    """The gap between the two largest logits, by a factor."""

    def __init__(self, *, factor=1.0):
        self.factor = factor

    def __call__(self, scores, link):
        top = scores.logits.topk(2, dim=1).values
        return self.factor * (top[:, 0] - top[:, 1])


class Whole(Scorer):
    def __call__(self, scores, link):
        return scores.logits.sum()


def no_scorer():
    return 7


def test_a_scorer_of_the_user_is_built_from_a_config(own_code):
    logits = torch.tensor([[1.0, 5.0, 3.0], [0.0, 0.0, 0.0]])
    scorer = build_scorer({"_target_": f"{__name__}.Second", "factor": 10})
    assert scorer.name == "second"
    assert known_scores(scorer, Scores(logits), "softmax").tolist() == [20.0, 0.0]
    assert build_scorer({"_target_": f"{__name__}.Second", "name": "gap"}).name == "gap"


def test_code_outside_the_allowed_packages_is_refused():
    with pytest.raises(ConfigError, match=r"not in an allowed package.*--allow"):
        build_scorer({"_target_": "os.getcwd"})


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"_target_": "no_scorer"}, "makes a int, and a scorer is needed. Derive"),
        ({"_target_": "Second", "factr": 2}, "factr"),
        ({"_target_": "Second", "name": "../x"}, "names files"),
    ],
)
def test_objects_that_are_not_scorers_are_refused(own_code, config, reason):
    with pytest.raises(ConfigError, match=reason):
        build_scorer({**config, "_target_": f"{__name__}.{config['_target_']}"})


def test_a_scorer_that_gives_another_number_of_scores_is_refused(own_code):
    with pytest.raises(ConfigError, match=r"'whole' returns \[\] for 12 images; one number for each"):
        known_scores({"_target_": f"{__name__}.Whole"}, Scores(logits_of(0)), "softmax")


def test_only_msp_converts_a_probability_into_a_score():
    assert build_scorer("msp").threshold_at_probability(0.5) == 0
    assert np.isnan(build_scorer("energy").threshold_at_probability(0.5))


@pytest.fixture
def own_code():
    """Allow the classes of this file."""
    with allow_packages([__name__]):
        yield
