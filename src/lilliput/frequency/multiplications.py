"""The multiplications that a convolution needs in space and in the frequency domain.

A count, not a time: sparse sums are not faster in a dense runtime. What is really faster is the
running form of `lilliput.frequency.running`, whose time is measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from lilliput.noun import Noun

Transform = Literal["none", "naive", "separable", "fast"]


class LayerWork(Noun):
    """One convolution, per position of its output.

    `height`, `width` are the kernel's sides; `residuals` and `centres` how many coefficients are
    not zero, of all kernels and of all centres; `positions` how many outputs a channel has.
    `maps` is the number of input channels, where it is not that of each kernel (grouped layers).
    A centre's response is computed once for each input channel; adding it costs no product.
    """

    name: str = ""
    outputs: int
    inputs: int
    height: int
    width: int
    maps: int | None = None
    positions: int = 1
    residuals: int
    centres: int = 0
    transform: Transform = "separable"

    @property
    def spatial(self) -> int:
        """d² Cin Cout, for all positions."""
        return self.positions * self.inputs * self.outputs * self.height * self.width

    @property
    def frequency(self) -> int:
        """Cin (transform + centres) + residuals, for all positions."""
        maps = self.inputs if self.maps is None else self.maps
        each = maps * (transform_cost(self.height, self.width, self.transform) + self.centres)
        return self.positions * (each + self.residuals)


def transform_cost(height: int, width: int, transform: Transform = "separable") -> int:
    """Multiplications of the responses of all bases at one position of one input channel.

    "naive" is d⁴, "separable" two passes of d³, "fast" d² log2 d; "none" for the pixels themselves.

    A fast transform of 2d lines takes no more than this for the sides of ordinary kernels: d = 5
    needs 5 products a line where the norms are in the coefficients (Heideman, "Computation of an
    odd-length DCT from a real-valued DFT of the same length", IEEE Trans. Signal Processing 40(1),
    1992, with Winograd's Fourier transform), which are 50 of 59.
    """
    if transform == "none" or height * width == 1:
        return 0
    if transform == "naive":
        return (height * width) ** 2
    if transform == "fast":
        return math.ceil(height * width * math.log2(height * width) / 2)
    return height * width * (height + width)


def times_fewer(layers: Iterable[LayerWork]) -> float:
    """Products of the spatial layers over those of the frequency domain, a sum over all layers.

    Source: CNNpack's speed-up as we read it (specification, section 2.9).
    """
    found = list(layers)
    return sum(layer.spatial for layer in found) / max(sum(layer.frequency for layer in found), 1)
