"""Which 8-bit weights overflow where two neighbouring products are added in 16 bits.

`lilliput.encode.saturation` says on which CPUs that is, and which weights are neighbours.
"""

from __future__ import annotations

import numpy as np

from lilliput.data.dataset import Array

LOW, HIGH = -32768, 32767


def can_saturate(weights: Array, largest: int = 255) -> Array:
    """(O, K) int8 weights → (O, ceil(K / 2)) bool: which pairs some input could overflow.

    `largest` is the largest unsigned activation; the bound is exact.
    """
    pairs = pair_products(weights)
    high = largest * np.maximum(pairs, 0).sum(-1)
    low = largest * np.minimum(pairs, 0).sum(-1)
    return np.asarray((high > HIGH) | (low < LOW))


def pair_products(weights: Array) -> Array:
    """(..., K) → (..., ceil(K / 2), 2) int32, an odd last one beside 0."""
    wide = weights.astype(np.int32)
    if wide.shape[-1] % 2:
        wide = np.concatenate([wide, np.zeros((*wide.shape[:-1], 1), np.int32)], axis=-1)
    return np.asarray(wide.reshape(*wide.shape[:-1], -1, 2))
