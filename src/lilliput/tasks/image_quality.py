"""How near a picture is to the true one: PSNR and SSIM on luminance, as papers report them.

Sources: ITU-R BT.601 luminance as MATLAB's `rgb2ycbcr` computes it; Wang et al., "Image Quality
Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004, section III-B (11 × 11
Gaussian window of deviation 1.5, K1 = 0.01, K2 = 0.03, only whole windows).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LUMINANCE = np.array([65.481, 128.553, 24.966]) / 255.0
PEAK = 255.0
MOST_DB = 100.0
"""Given to equal pictures, whose PSNR is infinite, so that means stay finite."""


def luminance(picture: Array) -> NDArray[np.float64]:
    """(H, W, 3) of 0..255 → (H, W) of 16..235; a grey (H, W, 1) picture is luminance already."""
    values = picture.astype(np.float64)
    return values[..., 0] if values.shape[-1] == 1 else 16.0 + values @ LUMINANCE


def psnr(ours: Array, truth: Array, *, shave: int) -> float:
    """Decibels of two (H, W, C) pictures on luminance, `shave` pixels of border left out."""
    a, b = _inner(luminance(ours), shave), _inner(luminance(truth), shave)
    error = float(np.mean((a - b) ** 2))
    return MOST_DB if error == 0 else min(10.0 * np.log10(PEAK**2 / error), MOST_DB)


def ssim(ours: Array, truth: Array, *, shave: int) -> float:
    """Mean structural similarity of two (H, W, C) pictures on luminance, in [-1, 1]."""
    a, b = _inner(luminance(ours), shave), _inner(luminance(truth), shave)
    mean_a, mean_b = _blurred(a), _blurred(b)
    var_a = _blurred(a * a) - mean_a**2
    var_b = _blurred(b * b) - mean_b**2
    both = _blurred(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    over = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    under = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float(np.mean(over / under))


def _inner(plane: NDArray[np.float64], shave: int) -> NDArray[np.float64]:
    return plane[shave:-shave, shave:-shave] if shave else plane


def _blurred(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Whole 11 × 11 Gaussian windows: (H, W) → (H - 10, W - 10)."""
    distance = np.arange(11) - 5.0
    window = np.exp(-(distance**2) / (2 * 1.5**2))
    window /= window.sum()
    for axis in (0, 1):
        views = np.lib.stride_tricks.sliding_window_view(plane, 11, axis=axis)
        plane = views @ window
    return plane
