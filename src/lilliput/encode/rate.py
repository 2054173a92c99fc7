"""Chooses steps and integers of a weight for their coded size as well as for their error.

Minimized is (s q - w)ᵀ H (s q - w) + price * bits(q), with the covariance H of the layer's inputs
as in `lilliput.encode.rounding`. Where every layer of a network pays the same price for a bit, no
layer can give a bit to another to the network's profit.

Sources: equal slopes: Shoham and Gersho, IEEE TASSP 36 (1988); rounding towards zero where that
saves more than it costs: rate-distortion optimized quantization, Sullivan and Wiegand, IEEE SPM
15 (1998), for networks Wiedemann et al., DeepCABAC, arXiv 1907.11900, section 4.

Differs: the error is that of the layer's output, not of each weight, and weights not yet rounded
make up for it; the result stays a plain int8 weight of one step an output channel.
"""

from __future__ import annotations

import numpy as np

from lilliput.data.dataset import Array
from lilliput.encode.rounding import Feedback, Grid, descend, feedback

ROUNDS = SWEEPS = 2
"""Of prices worked out from the integers they led to; more of them change next to nothing."""

FLOOR = 0.05
"""A magnitude expected anywhere: nothing that is not there yet costs without limit."""


def economize(rows: Array, gram: Array, grid: Grid, price: float) -> tuple[Array, Array]:
    """Integers and scales: ((G, O, K) float64 integers, (G, O) float32 scales).

    Args:
        rows: (G, O, K) what the layer should compute with.
        gram: (G, K, K) covariance of the inputs.
        grid: The integers that the target allows.
        price: Squared output error, summed over channels, that one bit may cost.
    """
    factor = Feedback.of(gram)
    step = np.float32(fine_step(factor, price))
    scales = np.maximum(grid.scales(rows), step)
    tolls: Array | None = None
    for _ in range(ROUNDS):
        start = feedback(rows, scales, factor, grid, tolls)
        steps = descend(rows, start, scales, gram, grid, tolls, sweeps=SWEEPS)
        tolls = price * bits_per_unit(steps)
    return steps, scales.astype(np.float32)


def fine_step(factor: Feedback, price: float) -> float:
    """The step at which one bit more of a weight saves as much error as it may cost.

    Of the high-rate theory: a step s leaves s² / 12 in every direction that is not made up for,
    and a bit halves the step.
    """
    left = 1.0 / np.einsum("gkk->gk", factor.upper) ** 2
    return float(np.sqrt(6.0 * price / (np.log(2) * left.mean())))


def bits_per_unit(steps: Array) -> Array:
    """(G, O, K) bits by which a weight's code grows with each unit of its magnitude.

    As under a geometric distribution about the magnitude that row and column let expect, for the
    coder of packed files expects the same.
    """
    magnitude = np.abs(steps) + FLOOR
    across = magnitude.mean(2, keepdims=True) * magnitude.mean(1, keepdims=True)
    return np.asarray(np.log2(1.0 + magnitude.mean() / across))


def code_length(steps: Array) -> float:
    """Bits of the integers (G, O, K): their entropy by half octaves of expected magnitude."""
    magnitude = np.abs(steps) + FLOOR
    across = magnitude.mean(2, keepdims=True) * magnitude.mean(1, keepdims=True)
    classes = np.rint(2 * np.log2(across / magnitude.mean()))
    bits = 0.0
    for one in np.unique(classes):
        _, counts = np.unique(steps[classes == one], return_counts=True)
        bits += float((counts * np.log2(counts.sum() / counts)).sum())
    return bits
