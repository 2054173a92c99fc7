"""Orthonormal bases that kernels can be written in: cosines, learned directions, the pixels."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lilliput.frequency.transform import Floats, Sides, cosine_basis

Kind = Literal["dct", "svd", "identity"]


def basis_of(kind: Kind, kernels: Floats) -> NDArray[np.float64]:
    """Rows of an orthonormal basis (h w, h w) for kernels (..., h, w).

    "dct" and "identity" depend on the sides alone. "svd" has the directions in which these kernels
    are largest, strongest first: of all bases it loses least when only the first m are kept.

    Source: Eckart and Young, Psychometrika 1936.
    """
    sides: Sides = (kernels.shape[-2], kernels.shape[-1])
    if kind == "dct":
        return cosine_basis(sides)
    size = sides[0] * sides[1]
    if kind == "identity":
        return np.eye(size)
    return principal_directions(kernels.reshape(-1, size))


def principal_directions(vectors: Floats) -> NDArray[np.float64]:
    """Eigenvectors of the vectors' second moment as rows, largest first; signs are settled."""
    wide = vectors.astype(np.float64)
    _, found = np.linalg.eigh(wide.T @ wide)
    rows = found[:, ::-1].T
    largest = np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], 1)
    directions: NDArray[np.float64] = rows * np.where(largest < 0, -1.0, 1.0)
    return directions
