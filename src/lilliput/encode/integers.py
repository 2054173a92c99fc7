"""The arithmetic of 8 bits: scales, zero points, rounding to integers and back.

Activations are unsigned and asymmetric (one scale a tensor), weights signed and symmetric (one
scale an output channel): the pair that CPUs multiply fastest. Source: Jacob et al., CVPR 2018,
section 2.1; Krishnamoorthi, arXiv 1806.08342, sections 2 and 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

UNSIGNED_MAX = 255
TINY_SCALE = 1e-12


@dataclass(frozen=True)
class Affine:
    """`real = scale * (integer - zero_point)` with integers of 0..255."""

    scale: float
    zero_point: int

    @classmethod
    def of_range(cls, low: float, high: float) -> Affine:
        """The affine map whose 256 levels cover [low, high], with 0 exactly on a level.

        A tensor of which nothing but 0 was seen has the levels of [0, 1].
        """
        low, high = min(float(low), 0.0), max(float(high), 0.0)
        if low == high:
            high = 1.0
        scale = np.float32(max((high - low) / UNSIGNED_MAX, TINY_SCALE))
        zero_point = int(np.clip(np.rint(-low / scale), 0, UNSIGNED_MAX))
        return cls(float(scale), zero_point)

    def quantize(self, values: Array) -> NDArray[np.uint8]:
        """Round half to even and saturate, as QuantizeLinear does."""
        steps = np.rint(values.astype(np.float32) / np.float32(self.scale)) + self.zero_point
        return np.asarray(np.clip(steps, 0, UNSIGNED_MAX), np.uint8)

    def dequantize(self, integers: Array) -> NDArray[np.float32]:
        steps = integers.astype(np.int32) - self.zero_point
        return steps.astype(np.float32) * np.float32(self.scale)


def weight_limit(bits: int) -> int:
    """The largest integer of a weight: 127 with 8 bits; 64 with 7: two products fit 16 bits."""
    return 127 if bits == 8 else 2 ** (bits - 1)


def to_rows(weight: Array, axis: int) -> Array:
    """A layer's weight as (O, K): one row an output channel.

    A convolution's row runs over (height, width, input channel), the order in which CPU kernels
    sum it; a matrix's over its inputs.
    """
    moved = np.moveaxis(weight, axis, 0)
    if weight.ndim > 2:
        moved = np.moveaxis(moved, 1, -1)
    return np.ascontiguousarray(moved.reshape(len(moved), -1))


def from_rows(rows: Array, shape: tuple[int, ...], axis: int) -> Array:
    """The inverse of `to_rows`."""
    outer = shape[axis]
    rest = tuple(size for i, size in enumerate(shape) if i != axis)
    if len(shape) > 2:
        moved = np.moveaxis(rows.reshape(outer, *rest[1:], rest[0]), -1, 1)
    else:
        moved = rows.reshape(outer, *rest)
    return np.ascontiguousarray(np.moveaxis(moved, 0, axis))


def row_scales(rows: Array, limit: int) -> NDArray[np.float32]:
    """(..., K) → (...) scales at which the largest weight of each row becomes `limit`."""
    largest = np.abs(rows).max(axis=-1)
    scales = np.where(largest > 0, largest / limit, 1.0)
    return np.asarray(np.maximum(scales, TINY_SCALE), np.float32)


def round_rows(rows: Array, scales: Array, limit: int) -> NDArray[np.int8]:
    """(..., K) float, (...) scales → (..., K) int8, to nearest."""
    steps = np.rint(rows.astype(np.float64) / scales.astype(np.float64)[..., None])
    return np.asarray(np.clip(steps, -limit, min(limit, 127)), np.int8)
