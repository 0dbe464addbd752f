"""Sources of one-pixel images, made of counts, for the tests of splits."""

import numpy as np
from hypothesis import strategies as st

from ltr.data.source import Source


def toy_source(class_ids=None, names=None, shuffle=0, **counts):
    """``counts``: part name to images per class, in order: ``toy_source(train=[5, 5], test=[2, 2])``."""
    rng = np.random.Generator(np.random.Philox(key=shuffle))
    labels, parts, stop = [], {}, 0
    for part, per_class in counts.items():
        labels.append(rng.permutation(np.repeat(np.arange(len(per_class)), per_class)))
        parts[part] = range(stop, stop + len(labels[-1]))
        stop += len(labels[-1])
    num_classes = max(len(per_class) for per_class in counts.values())
    names = names or tuple(f"c{label}" for label in range(num_classes))
    images = np.zeros((stop, 1, 1, 1), np.uint8)
    return Source("toy", images, np.concatenate(labels).astype(int), names, parts, class_ids=class_ids)


def balanced(num_classes, train=5, test=2, **more):
    return toy_source(train=[train] * num_classes, test=[test] * num_classes, **more)


@st.composite
def sources(draw, min_classes=2, max_classes=8):
    """Three parts, every class with images in each."""
    num_classes = draw(st.integers(min_classes, max_classes))
    sizes = st.lists(st.integers(2, 30), min_size=num_classes, max_size=num_classes)
    return toy_source(train=draw(sizes), val=draw(sizes), test=draw(sizes), shuffle=draw(st.integers(0, 9)))


def indices_of(source, part):
    return set(source.parts[part])


def assert_disjoint_and_sorted(split):
    arrays = [split.train, split.val, split.test, split.unknown]
    together = np.concatenate(arrays)
    assert len(np.unique(together)) == len(together)
    assert all((np.diff(array) > 0).all() for array in arrays)


def assert_independent_of_global_seeds(make, seed):
    """``make`` gives the same split under any global seed, and leaves the global generators as they were."""
    import random

    import torch

    first = make()
    np.random.seed(seed)  # noqa: NPY002 - what must not matter
    random.seed(seed)
    torch.manual_seed(seed)
    states = np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()  # noqa: NPY002
    second = make()
    after = np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert states == after
    assert first.digest() == second.digest()
    assert first.name == second.name
