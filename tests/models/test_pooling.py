"""Pools of local features: their formulas in float64, and what no order of the positions changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ltr.errors import ConfigError
from ltr.models.pooling import AttentivePool, AverageMaxPool, AveragePool, GeMPool, MaxPool

POOLS = {
    "average": lambda width: AveragePool(width),
    "max": lambda width: MaxPool(width),
    "average_max": lambda width: AverageMaxPool(width),
    "gem": lambda width: GeMPool(width),
    "fixed gem": lambda width: GeMPool(width, p=2.0, learn=False),
    "attentive": lambda width: AttentivePool(width, num_heads=4),
}


def built(name, width=8):
    torch.manual_seed(0)
    return POOLS[name](width)


def local(seed=0, shape=(3, 5, 8)):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def formula(name, pool, x):
    """Pooled vectors in float64, position by position."""
    if name == "average":
        return x.sum(1) / x.shape[1]
    if name == "max":
        return np.sort(x, axis=1)[:, -1]
    if name == "average_max":
        return np.concatenate([x.sum(1) / x.shape[1], np.sort(x, axis=1)[:, -1]], 1)
    if name.endswith("gem"):
        p = float(torch.as_tensor(pool.p).detach())
        return np.exp(np.log(np.mean(np.exp(p * np.log(np.maximum(x, 1e-6))), axis=1)) / p)
    query, key, value = (t.detach().double().numpy() for t in (pool.query, pool.key.weight, pool.value.weight))
    images, _, width = x.shape
    part = width // pool.num_heads
    pooled = np.empty((images, width))
    for image in range(images):
        keys, values = x[image] @ key.T, x[image] @ value.T  # every position is projected, as AIM does
        for head in range(pool.num_heads):
            of_head = slice(head * part, (head + 1) * part)
            scores = np.exp(keys[:, of_head] @ query[of_head] / np.sqrt(part))
            pooled[image, of_head] = (scores / scores.sum()) @ values[:, of_head]
    return pooled


@pytest.mark.parametrize("name", POOLS)
def test_a_pool_follows_its_formula(name):
    pool, x = built(name), local()
    if name == "attentive":
        with torch.no_grad():
            pool.query.mul_(100)  # weights that differ
    pooled = pool(x).detach().numpy()
    assert pooled.shape == (3, pool.num_features)
    np.testing.assert_allclose(pooled, formula(name, pool, x.double().numpy()), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", POOLS)
def test_the_order_of_positions_does_not_matter(name):
    pool, x = built(name), local()
    assert torch.allclose(pool(x[:, [3, 0, 4, 2, 1]]), pool(x), atol=1e-6)


@pytest.mark.parametrize("name", ["average", "max", "attentive"])
def test_pooling_one_position_returns_it_or_its_value(name):
    pool, x = built(name), local(shape=(2, 1, 8))
    expected = pool.value(x[:, 0]) if name == "attentive" else x[:, 0]
    assert torch.allclose(pool(x), expected, atol=1e-6)


def test_gem_of_exponent_one_is_the_average_of_positive_features():
    x = local().abs()
    assert torch.allclose(GeMPool(8, p=1.0)(x), x.mean(1), atol=1e-6)


def test_gem_goes_from_the_average_to_the_maximum():
    x = local().abs() + 0.1
    pooled = [float(GeMPool(8, p=p, learn=False)(x).mean()) for p in (1.0, 3.0, 10.0, 60.0)]
    assert pooled == sorted(pooled)
    assert float(x.mean()) == pytest.approx(pooled[0])
    assert pooled[-1] == pytest.approx(float(x.amax(1).mean()), rel=0.05)


def test_attention_sums_to_one_and_a_zero_query_is_the_average():
    pool, x = built("attentive"), local()
    assert torch.allclose(pool.attention(x).sum(1), torch.ones(3, 4))
    with torch.no_grad():
        pool.query.zero_()
    assert torch.allclose(pool(x), pool.value(x.mean(1)), atol=1e-6)


def test_the_attentive_pool_has_a_query_and_two_matrices():
    assert sum(p.numel() for p in AttentivePool(12, num_heads=3).parameters()) == 12 + 2 * 12**2


@pytest.mark.parametrize("name", ["gem", "attentive"])
def test_all_parameters_of_a_pool_are_trained(name):
    pool = built(name)
    assert pool.is_trained({})
    pool(local().abs()).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in pool.parameters())


def test_only_attention_and_a_learned_exponent_are_trained():
    assert not any(list(built(name).parameters()) for name in ("average", "max", "average_max", "fixed gem"))
    assert not GeMPool.is_trained({"p": 3.0, "learn": False})
    assert not AveragePool.is_trained({})


def test_heads_that_do_not_divide_the_width_are_refused_with_those_that_do():
    with pytest.raises(ConfigError, match=r"num_heads=5 does not divide .* 12.* 3, 4, 6"):
        AttentivePool(12, num_heads=5)
