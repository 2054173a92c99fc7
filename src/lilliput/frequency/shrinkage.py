"""Coefficients made few and coarse: l1 shrinkage in closed form, and a uniform quantizer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lilliput.frequency.transform import Floats


def soft(values: Floats, penalty: float) -> NDArray[np.float64]:
    """argmin over x of (x - c)² + penalty |x|, element by element.

    The threshold is half the penalty, since the square is not halved.
    Source: CNNpack, equation of the l1 term; the closed form is that of Donoho, 1995.
    """
    shrunk: NDArray[np.float64] = np.sign(values) * np.maximum(np.abs(values) - penalty / 2, 0.0)
    return shrunk


def hard(values: Floats, penalty: float) -> NDArray[np.float64]:
    """The same support as `soft`, whose survivors keep their values.

    Differs: the paper shrinks; this has no bias that a training must take away again.
    """
    kept: NDArray[np.float64] = np.where(np.abs(values) > penalty / 2, values, 0.0)
    return kept


def quantized(values: Floats, omega: float, clip: float) -> NDArray[np.int64]:
    """round(omega · clip(x, -b, b)) with `omega` steps a unit: odd, and 0 for 0.

    Source: CNNpack's quantizer as we recall it (specification, section 2.5).
    Differs: the paper has one clip range for all layers; ours is the layer's own.
    """
    whole: NDArray[np.int64] = np.rint(omega * np.clip(values, -clip, clip)).astype(np.int64)
    return whole
