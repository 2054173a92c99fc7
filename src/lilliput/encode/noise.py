"""How much of a signal its 8 bits keep: the signal-to-quantization-noise ratio (SQNR).

20 dB are a tenth of the signal's size lost, 40 dB a hundredth; a bit more of precision is worth 6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from lilliput.data.dataset import Array
from lilliput.encode.execute import Execution, Feeds
from lilliput.encode.integers import Affine
from lilliput.graph import Graph


def decibels(signal: float, noise: float) -> float:
    """`10 log10(signal / noise)` of two sums of squares; infinite where nothing is lost.

    >>> decibels(100.0, 1.0)
    20.0
    """
    if noise == 0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0 else -math.inf


def sqnr_db(exact: Array, quantized: Array) -> float:
    """SQNR of an array that became another."""
    return decibels(_squares(exact), _squares(exact.astype(np.float64) - quantized))


def activation_sqnr_db(
    graph: Graph, affines: Mapping[str, Affine], feeds: Feeds, *, threads: int = 1
) -> dict[str, float]:
    """{tensor: SQNR} of tensors of the float graph under their affine maps; one pass, streaming."""
    execution = Execution(graph.model(), list(affines), threads=threads)
    signal = dict.fromkeys(affines, 0.0)
    noise = dict.fromkeys(affines, 0.0)
    for values in execution.over(feeds):
        for name, affine in affines.items():
            exact = values[name]
            signal[name] += _squares(exact)
            noise[name] += _squares(affine.dequantize(affine.quantize(exact)) - exact)
    return {name: decibels(signal[name], noise[name]) for name in affines}


def _squares(values: Array) -> float:
    flat = values.astype(np.float64).reshape(-1)
    return float(flat @ flat)
