"""Connected components of ties, by arrays: which atoms are one channel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]


def components(count: int, ties: list[tuple[Index, Index]]) -> Index:
    """The smallest atom that each of `count` atoms is tied to, directly or not: (count,).

    Each round hooks the roots of tied atoms to the smaller of the two and then halves all paths,
    so that long chains of residual blocks take a number of rounds that grows with their logarithm.

    >>> components(5, [(np.array([4, 1]), np.array([3, 3]))]).tolist()
    [0, 1, 2, 1, 1]
    """
    parent = np.arange(count, dtype=np.int64)
    if not ties:
        return parent
    one = np.concatenate([a for a, _ in ties])
    other = np.concatenate([b for _, b in ties])
    while True:
        left, right = parent[one], parent[other]
        open_ = left != right
        if not open_.any():
            return parent
        left, right, one, other = left[open_], right[open_], one[open_], other[open_]
        np.minimum.at(parent, np.maximum(left, right), np.minimum(left, right))
        while True:
            shorter = parent[parent]
            if (shorter == parent).all():
                break
            parent = shorter
