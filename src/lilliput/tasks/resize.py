"""Bicubic resizing as the super-resolution literature does it: antialiased, MATLAB's `imresize`.

Source: Keys, "Cubic Convolution Interpolation for Digital Image Processing", IEEE TASSP 1981,
equation 15 (a = -0.5). When shrinking, the kernel is widened by the factor, so that nothing
aliases; borders are mirrored, edge pixel included; weights sum to one.

Differs: rounds once, at the end. Versions for uint8 that round between the two passes as well move
the PSNR of Set5's bicubic enlargement by less than 0.01 dB.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def cubic(x: Array) -> Array:
    """Keys' kernel of support [-2, 2]."""
    distance = np.abs(x)
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1.0
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4.0 * distance + 2.0
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def resize_weights(size: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """For each of `target` output positions: source positions and their weights, (target, taps)."""
    factor = target / size
    widening = max(1.0 / factor, 1.0)
    centers = (np.arange(target) + 0.5) / factor - 0.5
    taps = math.ceil(4.0 * widening) + 2
    first = np.floor(centers - 2.0 * widening).astype(np.intp)
    positions = first[:, None] + np.arange(taps)
    weights = cubic((centers[:, None] - positions) / widening)
    weights /= weights.sum(1, keepdims=True)
    mirrored = np.abs(positions + 0.5).astype(np.intp) % (2 * size)
    return np.where(mirrored < size, mirrored, 2 * size - 1 - mirrored), weights


def resize(picture: Array, height: int, width: int) -> NDArray[np.uint8]:
    """(H, W, C) of 0..255 → (height, width, C) uint8, rounded once at the end."""
    shorter = _resampled(picture.astype(np.float64), height)
    values = _resampled(shorter.swapaxes(0, 1), width).swapaxes(0, 1)
    # MATLAB rounds halves away from zero, numpy to even.
    return np.asarray(np.floor(np.clip(values, 0, 255) + 0.5), np.uint8)


def _resampled(values: NDArray[np.float64], target: int) -> NDArray[np.float64]:
    """(N, ...) → (target, ...), tap by tap: no memory for all taps at once, one fixed order."""
    positions, weights = resize_weights(values.shape[0], target)
    total = np.zeros((target, *values.shape[1:]))
    for position, weight in zip(positions.T, weights.T, strict=True):
        if weight.any():
            total += weight[:, None, None] * values[position]
    return total
