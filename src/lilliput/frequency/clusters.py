"""Centres that kernels share: k-means whose first centre is zero for good."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lilliput.frequency.transform import Floats

SAMPLE = 100_000
"""Vectors that centres are learned from; more are drawn down to so many."""
ROUNDS = 30


def centres_of(
    vectors: Floats, count: int, rng: np.random.Generator, *, with_zero: bool = True
) -> NDArray[np.float64]:
    """Lloyd's centres (count, F) of vectors (N, F), seeded by k-means++.

    The first is zero and stays so, so that a kernel may have no common part.

    Source: CNNpack, section 3.2.
    Differs: the paper has no centre at zero.

    Args:
        vectors: The coefficients of each kernel.
        count: Number of centres, the zero included.
        rng: Draws the seeds.
        with_zero: False leaves all of them free.
    """
    vectors = vectors.astype(np.float64)
    if len(vectors) > SAMPLE:
        vectors = vectors[rng.choice(len(vectors), SAMPLE, replace=False)]
    centres = _seeds(vectors, count, rng, with_zero=with_zero)
    before = np.inf
    for _ in range(ROUNDS):
        ids = nearest(vectors, centres)
        distortion = float(((vectors - centres[ids]) ** 2).sum())
        if not distortion < before:
            break
        before = distortion
        centres = _means(vectors, ids, centres, fixed=int(with_zero))
    return centres


def nearest(vectors: Floats, centres: Floats) -> NDArray[np.int64]:
    """The index of each vector's nearest centre, (N,); the first of equals."""
    halves = (centres**2).sum(1) / 2
    found: NDArray[np.int64] = (halves - vectors @ centres.T).argmin(1)
    return found


def _means(
    vectors: Floats, ids: NDArray[np.int64], centres: Floats, *, fixed: int
) -> NDArray[np.float64]:
    """The mean of each cluster; one that nobody belongs to stays where it is."""
    counts = np.bincount(ids, minlength=len(centres))
    sums = np.zeros(centres.shape)
    np.add.at(sums, ids, vectors)
    moved = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
    moved[:fixed] = centres[:fixed]
    return moved


def _seeds(
    vectors: Floats, count: int, rng: np.random.Generator, *, with_zero: bool
) -> NDArray[np.float64]:
    """k-means++: each further seed is drawn by its squared distance from those there are."""
    first = np.zeros(vectors.shape[1]) if with_zero else vectors[rng.integers(len(vectors))]
    seeds = [first]
    far = ((vectors - first) ** 2).sum(1)
    while len(seeds) < count:
        total = far.sum()
        drawn = rng.choice(len(vectors), p=far / total) if total > 0 else 0
        seeds.append(vectors[drawn])
        far = np.minimum(far, ((vectors - vectors[drawn]) ** 2).sum(1))
    return np.stack(seeds)
