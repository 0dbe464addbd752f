"""Random numbers from keys (seed, role, ...), independent of any global state.

Every draw of the project is a function of named parts such as (seed, role, epoch, position). No global generator is
read or advanced, so a resumed run, another number of workers or another order of calls gives the same bits.
"""

from __future__ import annotations

import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def derive_seed(*parts: int | str) -> int:
    """Return a seed in [0, 2**63), a function of all ``parts`` in order: ``derive_seed(0, "representation", 3)``."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(*parts: int | str) -> np.random.Generator:
    """Return a separate numpy generator for these parts."""
    return np.random.Generator(np.random.Philox(key=derive_seed(*parts)))


def uniforms(seed: int, positions: np.ndarray, draws: int) -> np.ndarray:
    """Return uniform numbers in [0, 1) that depend only on (seed, position, draw number).

    This is the SplitMix64 finaliser over a counter (Steele, Lea, Flood 2014), vectorised: the numbers of one image
    are the same whichever batch, worker or process asks for them.

    Args:
        seed: from `derive_seed`.
        positions: int64 [B], the images' places in the global draw of the epoch.
        draws: how many numbers per image, K.

    Returns:
        float64 [B, K].
    """
    base = np.uint64(derive_seed(seed, "uniforms"))
    # one stream per position: position and draw number take separate halves of the counter
    counter = (positions.astype(np.uint64)[:, None] << np.uint64(20)) + np.arange(draws, dtype=np.uint64)[None]
    with np.errstate(over="ignore"):
        mixed = base + (counter + np.uint64(1)) * _GOLDEN
        for _ in range(2):  # twice: neighbouring counters under related seeds stay unrelated
            mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
            mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
            mixed = mixed ^ (mixed >> np.uint64(31))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
