"""The orthonormal cosine transform of kernels of any sides.

Coefficients of a kernel are a vector in row-major order of their two frequencies, like its pixels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Sides = tuple[int, int]


@lru_cache(64)
def cosine_matrix(size: int) -> NDArray[np.float64]:
    """T of the DCT-II, (size, size); row k is frequency k, and T Tᵗ = 1."""
    k, n = np.ogrid[:size, :size]
    matrix: NDArray[np.float64] = np.cos(np.pi * (2 * n + 1) * k / (2 * size))
    matrix *= np.sqrt(2.0 / size)
    matrix[0] = np.sqrt(1.0 / size)
    matrix.setflags(write=False)
    return matrix


@lru_cache(64)
def zigzag(sides: Sides) -> tuple[tuple[int, int], ...]:
    """The pairs of frequencies of a kernel, low ones first: by their sum."""
    pairs = [(u, v) for u in range(sides[0]) for v in range(sides[1])]
    return tuple(sorted(pairs, key=lambda pair: (sum(pair), pair)))


@lru_cache(64)
def cosine_basis(sides: Sides) -> NDArray[np.float64]:
    """The basis pictures as rows: (h w, h w), orthogonal; row u w + v is frequency (u, v)."""
    basis = np.asarray(np.kron(cosine_matrix(sides[0]), cosine_matrix(sides[1])), np.float64)
    basis.setflags(write=False)
    return basis


def forward(kernels: Floats, basis: Floats) -> NDArray[np.float64]:
    """Coefficients (..., F) of kernels (..., h, w) on an orthonormal basis of rows (F, h w)."""
    flat = kernels.reshape(*kernels.shape[:-2], -1).astype(np.float64)
    coefficients: NDArray[np.float64] = flat @ basis.T
    return coefficients


def inverse(coefficients: Floats, basis: Floats, sides: Sides) -> NDArray[np.float64]:
    """Kernels (..., h, w) of coefficients (..., F)."""
    kernels: NDArray[np.float64] = coefficients.astype(np.float64) @ basis
    return kernels.reshape(*coefficients.shape[:-1], *sides)


@lru_cache(64)
def corner(sides: Sides, common: Sides) -> tuple[int, ...]:
    """Where the frequencies of a kernel lie among those of a larger one: its low corner.

    Coefficients put there and taken back are the same; those of the larger kernel that are taken
    and put back are projected on the corner.
    """
    return tuple(u * common[1] + v for u in range(sides[0]) for v in range(sides[1]))


def enlarged(coefficients: Floats, sides: Sides, common: Sides) -> NDArray[np.float64]:
    """Coefficients (..., F) in a common size (..., F'), zero beyond their own frequencies.

    Source: CNNpack, section 3.1, as we read it (specification, section 2.2).
    Differs: the common size is the largest of those that are clustered; nothing is truncated.
    """
    made = np.zeros((*coefficients.shape[:-1], common[0] * common[1]))
    made[..., list(corner(sides, common))] = coefficients
    return made


def cropped(coefficients: Floats, sides: Sides, common: Sides) -> Floats:
    """The coefficients (..., F') that a kernel of these sides has, (..., F)."""
    taken: Floats = coefficients[..., list(corner(sides, common))]
    return taken
