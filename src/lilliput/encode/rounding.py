"""Rounds a layer's weights so that its output, not each weight, stays closest.

The error of a row is a quadratic form: (s q - w)ᵀ H (s q - w) with the covariance H of the layer's
quantized inputs. It is lowered by column-wise rounding with error feedback, then by exact
coordinate descent over the integers. Sources: the objective: Nagel et al., "Up or Down?" (ICML
2020, arXiv 2004.10568), section 3; error feedback: Frantar et al., GPTQ, arXiv 2210.17323,
section 3.

Differs: AdaRound learns a relaxation by gradient descent; a quadratic needs no gradients, and the
descent here may move a weight by more than one step. The bias is free, so the covariance takes
the place of the second moment, and the mean error of every channel vanishes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lilliput.data.dataset import Array
from lilliput.encode.integers import row_scales, weight_limit
from lilliput.encode.moments import Moments

PAIR_LIMIT = 128
"""Two neighbouring weights of one sign may not exceed this together: 255 * 128 fits 16 bits."""

DAMPING = 0.01
TARGET_DAMPING = 3.0
"""Ridge of `best_target`, in mean variances: less of it chases noise, more leaves error behind."""

SHRINKS = (1.0, 0.9, 0.8)
SWEEPS = 4


@dataclass(frozen=True)
class Grid:
    """Which integers a weight may take.

    `limit` bounds each; `paired` also bounds the neighbours 2i and 2i+1 of a row, whose products
    a CPU without 8-bit dot products adds in 16 bits.
    """

    limit: int = 127
    paired: bool = False

    @classmethod
    def of(cls, bits: int, *, paired: bool) -> Grid:
        return cls(weight_limit(bits), paired)

    def scales(self, rows: Array) -> Array:
        """(..., K) → (...): the smallest scales at which nothing has to be clipped."""
        scales: Array = row_scales(rows, min(self.limit, 127))
        if not self.paired:
            return scales
        together = pair_sums(rows).max(-1) / PAIR_LIMIT
        return np.asarray(np.maximum(scales, together), np.float32)

    def nearest(self, rows: Array, scales: Array) -> Array:
        """Nearest integers inside the grid, (..., K) float64; pairs over the limit give way."""
        ceiling = min(self.limit, 127)
        steps = np.clip(np.rint(rows / scales[..., None].astype(np.float64)), -self.limit, ceiling)
        if not self.paired:
            return np.asarray(steps)
        even = steps.shape[-1] - steps.shape[-1] % 2
        pairs = steps[..., :even].reshape(*steps.shape[:-1], -1, 2)
        over = np.abs(pairs).sum(-1) - PAIR_LIMIT
        clash = (over > 0) & (np.sign(pairs[..., 0]) == np.sign(pairs[..., 1]))
        give = np.where(clash, over, 0.0)
        pairs[..., 0] -= np.sign(pairs[..., 0]) * np.ceil(give / 2)
        pairs[..., 1] -= np.sign(pairs[..., 1]) * np.floor(give / 2)
        steps[..., :even] = pairs.reshape(*steps.shape[:-1], even)
        return np.asarray(steps)

    def bounds(self, steps: Array, column: int) -> tuple[Array, Array]:
        """(low, high) that the weights of `column` may take beside their neighbours."""
        low = np.full(steps.shape[:-1], -float(self.limit))
        high = np.full(steps.shape[:-1], float(min(self.limit, 127)))
        partner = column ^ 1
        if self.paired and partner < steps.shape[-1]:
            beside = steps[..., partner]
            low = np.maximum(low, -PAIR_LIMIT - np.minimum(beside, 0.0))
            high = np.minimum(high, PAIR_LIMIT - np.maximum(beside, 0.0))
        return low, high


def pair_sums(rows: Array) -> Array:
    """(..., K) → (..., ceil(K / 2)): the larger same-signed sum of each neighbouring pair."""
    padded = np.concatenate([rows, np.zeros((*rows.shape[:-1], rows.shape[-1] % 2))], axis=-1)
    pairs = padded.reshape(*rows.shape[:-1], -1, 2)
    return np.asarray(np.maximum(np.maximum(pairs, 0).sum(-1), np.maximum(-pairs, 0).sum(-1)))


def objective(rows: Array, steps: Array, scales: Array, gram: Array) -> Array:
    """The squared output error of each row: (G, O).

    Args:
        rows: (G, O, K) what the layer should compute with.
        steps: (G, O, K) integers.
        scales: (G, O).
        gram: (G, K, K) covariance of the inputs.
    """
    gaps = steps * scales[..., None].astype(np.float64) - rows
    return np.asarray(np.einsum("gok,gok->go", np.matmul(gaps, gram), gaps))


def best_target(rows: Array, moments: Moments, *, damping: float = TARGET_DAMPING) -> Array:
    """The weights that imitate `rows` on the quantized inputs best, (G, O, K).

    Ridge regression towards the weights themselves, so that directions without data stay put.
    """
    gram, cross = moments.covariance, moments.cross_covariance
    ridge = _ridge(gram, damping)
    right = np.matmul(rows, cross + ridge)
    solved = np.linalg.solve(gram + ridge, right.transpose(0, 2, 1))
    return np.asarray(solved.transpose(0, 2, 1))


def optimize(rows: Array, gram: Array, grid: Grid, *, sweeps: int = SWEEPS) -> tuple[Array, Array]:
    """Integers and scales for `rows`: ((G, O, K) float64 integers, (G, O) float32 scales).

    Several scales are tried for each row. The result is never worse than rounding to nearest at
    the plain scale, for that is one of the starts.
    """
    full = grid.scales(rows)
    plain = grid.nearest(rows, full)
    factor = Feedback.of(gram)
    best_steps, best_scales = plain, full.astype(np.float32)
    best = objective(rows, plain, full, gram)
    for shrink in SHRINKS:
        scales = (full * np.float32(shrink)).astype(np.float32)
        starts = [grid.nearest(rows, scales), feedback(rows, scales, factor, grid)]
        errors = [objective(rows, start, scales, gram) for start in starts]
        start = np.where((errors[1] < errors[0])[..., None], starts[1], starts[0])
        steps = descend(rows, start, scales, gram, grid, sweeps=sweeps)
        error = objective(rows, steps, scales, gram)
        better = error < best
        best = np.where(better, error, best)
        best_steps = np.where(better[..., None], steps, best_steps)
        best_scales = np.where(better, scales, best_scales)
    return best_steps, best_scales.astype(np.float32)


@dataclass(frozen=True)
class Feedback:
    """The order of the columns (K,) and the upper Cholesky factor (G, K, K) of the inverse."""

    order: Array
    upper: Array

    @classmethod
    def of(cls, gram: Array) -> Feedback:
        damped = gram + _ridge(gram, DAMPING)
        order = np.argsort(-np.einsum("gkk->gk", damped).sum(0), kind="stable")
        inverse = np.linalg.inv(damped[:, order][:, :, order])
        return cls(order, np.linalg.cholesky(inverse).transpose(0, 2, 1))


def feedback(
    rows: Array, scales: Array, factor: Feedback, grid: Grid, tolls: Array | None = None
) -> Array:
    """Round column by column, handing each column's error on to those still to be rounded.

    `tolls` (G, O, K): squared error that one unit of a weight's magnitude must save.
    """
    groups, _, width = rows.shape
    order, upper = factor.order, factor.upper
    work = rows[..., order].astype(np.float64)
    steps = np.zeros_like(rows, dtype=np.float64)
    wide = scales.astype(np.float64)
    for position, column in enumerate(order):
        low, high = grid.bounds(steps, int(column))
        diagonal = upper[:, position, position][:, None]
        wish = work[..., position] / wide
        if tolls is not None:
            wish = soft(wish, tolls[..., column] * diagonal**2 / (2 * wide**2))
        taken = np.clip(np.rint(wish), low, high)
        steps[..., column] = taken
        error = (work[..., position] - taken * wide) / diagonal
        rest = upper[:, position, position + 1 :]
        work[..., position + 1 :] -= error[..., None] * rest[:, None, :]
    assert steps.shape == (groups, rows.shape[1], width)
    return steps


def descend(
    rows: Array,
    steps: Array,
    scales: Array,
    gram: Array,
    grid: Grid,
    tolls: Array | None = None,
    *,
    sweeps: int = SWEEPS,
) -> Array:
    """Coordinate descent over the integers: each move is the best for its weight, none hurts.

    `tolls` as in `feedback`.
    """
    steps = steps.copy()
    wide = scales.astype(np.float64)
    slope = np.matmul(steps * wide[..., None] - rows, gram)
    for _ in range(sweeps):
        moved = False
        for column in range(rows.shape[-1]):
            curvature = gram[:, column, column][:, None]
            usable = curvature > 0
            safe = np.where(usable, curvature, 1.0)
            wish = -slope[..., column] / safe / wide
            if tolls is not None:
                toll = tolls[..., column] / (2 * safe * wide**2)
                wish = soft(steps[..., column] + wish, toll) - steps[..., column]
            low, high = grid.bounds(steps, column)
            target = np.clip(np.rint(steps[..., column] + np.where(usable, wish, 0.0)), low, high)
            change = target - steps[..., column]
            # Clipping can shorten a move; half a step or less from the optimum never helps.
            change = np.where(np.abs(change) < 2 * np.abs(wish), change, 0.0)
            groups, outs = np.nonzero(change)
            if len(groups):
                moved = True
                steps[groups, outs, column] += change[groups, outs]
                shift = change[groups, outs] * wide[groups, outs]
                slope[groups, outs] += shift[:, None] * gram[groups, column]
        if not moved:
            break
    return steps


def soft(values: Array, threshold: Array) -> Array:
    """The minimum of a square about `values` plus a price on magnitude: soft thresholding."""
    return np.asarray(np.sign(values) * np.maximum(np.abs(values) - threshold, 0.0))


def _ridge(gram: Array, damping: float) -> Array:
    """(G, K, K) diagonal: a share of the mean variance, never zero."""
    width = gram.shape[-1]
    mean = np.einsum("gkk->g", gram) / width
    return np.asarray(np.maximum(damping * mean, 1e-12)[:, None, None] * np.eye(width))
