"""Weights on a uniform grid of few steps, symmetric about zero.

Sources: Esser et al., "Learned step size quantization", ICLR 2020, section 2 (the grid); a step
by the smallest squared error: Banner, Nahshan, Soudry, NeurIPS 2019, section 3.
Differs: the grid is symmetric (-Q..Q, one level fewer than k bits could name), so that negating a
weight negates its integer; zero is a level, and weights at zero stay there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lilliput.errors import LilliputError
from lilliput.prune.codebooks import Codebook, economize

Array = NDArray[np.floating]

FRACTIONS = (1.0, *np.geomspace(0.02, 1.2, 60))
"""Steps that are tried first, as shares of the step at which no weight is clipped."""

REFINEMENTS = 8


def limit_of(bits: int) -> int:
    """Q, the largest integer of a symmetric grid of so many bits.

    >>> [limit_of(bits) for bits in (2, 4, 8)]
    [1, 7, 127]

    Raises:
        LilliputError: Fewer than 2 bits have no symmetric grid.
    """
    if bits < 2:
        raise LilliputError(f"{bits} bits have no grid with a zero", hint="use 2 or more")
    return int(2 ** (bits - 1)) - 1


def integers(rows: Array, steps: Array, limit: int) -> Array:
    """(C, n) integers, -limit to limit, of weights (C, n) at steps (C,)."""
    scaled = np.asarray(rows, np.float64) / np.asarray(steps, np.float64)[:, None]
    return np.clip(np.rint(scaled), -limit, limit) + 0.0


def on_grid(rows: Array, steps: Array, limit: int) -> NDArray[np.float32]:
    """(C, n) float32 weights: integer times step, to the last bit."""
    return integers(rows, steps, limit).astype(np.float32) * np.asarray(steps, np.float32)[:, None]


def fit_steps(rows: Array, limit: int, importance: Array | None = None) -> NDArray[np.float32]:
    """(C,) steps of the smallest squared error, each weight's multiplied by its importance.

    A search over step sizes, then in turns the integers for the step and the step for the integers.
    A row of zeros gets the step 1.

    Args:
        rows: (C, n).
        limit: Q.
        importance: (C, n), at least 0.
    """
    rows = np.asarray(rows, np.float64)
    weights = np.ones_like(rows) if importance is None else np.asarray(importance, np.float64)
    # Rows in which no importance was measured are fitted all the same.
    weights = np.where(weights.sum(1, keepdims=True) > 0, weights, 1.0)
    reach = np.abs(rows).max(1) / limit
    reach = np.where(reach > 0, reach, 1.0)
    best, steps = np.full(len(rows), np.inf), reach
    tries = iter(FRACTIONS)
    for number in range(len(FRACTIONS) + REFINEMENTS):
        trial = (
            reach * next(tries) if number < len(FRACTIONS) else _refit(rows, steps, limit, weights)
        )
        # In float32, as they are delivered: the error is that of the weights that come out.
        trial = trial.astype(np.float32).astype(np.float64)
        error = _errors(rows, trial, limit, weights)
        steps, best = np.where(error < best, trial, steps), np.minimum(error, best)
    return steps.astype(np.float32)


def _errors(rows: Array, steps: Array, limit: int, weights: Array) -> Array:
    gap = rows - integers(rows, steps, limit) * steps[:, None]
    return np.asarray((weights * gap**2).sum(1))


def _refit(rows: Array, steps: Array, limit: int, weights: Array) -> Array:
    """The steps that suit the integers best: Σ f w q / Σ f q²."""
    whole = integers(rows, steps, limit)
    size = (weights * whole**2).sum(1)
    fitted = (weights * rows * whole).sum(1) / np.where(size > 0, size, 1.0)
    return np.where((size > 0) & (fitted > 0), fitted, steps)


def economical_integers(
    rows: Array, steps: Array, limit: int, price: float, importance: Array | None = None
) -> Array:
    """(C, n) integers that cost few bits as well: see `economize`. Zeros stay zero."""
    scaled = np.asarray(rows, np.float64) / np.asarray(steps, np.float64)[:, None]
    weights = np.ones_like(scaled) if importance is None else np.asarray(importance, np.float64)
    # Errors count in the weights' units, and a step of one channel is not that of another.
    weights = weights * np.square(np.asarray(steps, np.float64))[:, None]
    open_ = scaled != 0
    if not open_.any():
        return np.zeros_like(scaled)
    levels = np.arange(-limit, limit + 1.0)
    elsewhere = np.where(levels == 0, np.count_nonzero(~open_), 0)
    book: Codebook = economize(
        scaled[open_],
        levels,
        price,
        importance=weights[open_],
        elsewhere=elsewhere,
        moving=np.zeros(len(levels), bool),
    )
    made = np.zeros_like(scaled)
    made[open_] = book.decoded
    return made
