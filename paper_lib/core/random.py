"""Randomness that does not depend on what was drawn before."""

from __future__ import annotations

import hashlib

import numpy as np


def generator_for(seed: int, *item) -> np.random.Generator:
    """A NumPy generator of this item's own: the same for the same seed and item, always."""
    digest = hashlib.sha256(repr((seed, *item)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def seed_for(seed: int, *item) -> int:
    """A whole number below 2^31 of this item's own, for libraries that want a seed."""
    return int(generator_for(seed, *item).integers(2**31))
