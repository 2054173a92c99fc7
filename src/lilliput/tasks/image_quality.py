"""How near a picture is to the true one: PSNR and SSIM on luminance, as papers report them.

Sources: ITU-R BT.601 luminance as MATLAB's `rgb2ycbcr` computes it; Wang et al., "Image Quality
Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004, section III-B (11 × 11
Gaussian window of deviation 1.5, K1 = 0.01, K2 = 0.03, only whole windows).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.errors import LilliputError

Array = NDArray[Any]

LUMINANCE = np.array([65.481, 128.553, 24.966]) / 255.0
PEAK = 255.0
WINDOW = 11
MOST_DB = 100.0
"""Given to equal pictures, whose PSNR is infinite, so that means stay finite."""


def luminance(picture: Array) -> NDArray[np.float64]:
    """(H, W, 3) of 0..255 → (H, W) of 16..235; a grey (H, W, 1) picture is luminance already.

    Raises:
        LilliputError: Neither one nor three channels.
    """
    if picture.ndim != 3 or picture.shape[-1] not in (1, 3):
        raise LilliputError(
            f"luminance is of (H, W, 3) or (H, W, 1) pictures, not of shape {picture.shape}"
        )
    values = picture.astype(np.float64)
    return values[..., 0] if values.shape[-1] == 1 else 16.0 + values @ LUMINANCE


def psnr_y(ours: Array, truth: Array, *, shave: int) -> float:
    """Decibels of two (H, W, C) pictures on luminance, `shave` pixels of border left out.

    Raises:
        LilliputError: Pictures of different sizes, or nothing left inside the border.
    """
    a, b = _compared(ours, truth, shave, least=1)
    error = float(np.mean((a - b) ** 2))
    return MOST_DB if error == 0 else min(10.0 * np.log10(PEAK**2 / error), MOST_DB)


def ssim_y(ours: Array, truth: Array, *, shave: int) -> float:
    """Mean structural similarity of two (H, W, C) pictures on luminance, in [-1, 1].

    Raises:
        LilliputError: Pictures of different sizes, or less than a window inside the border.
    """
    a, b = _compared(ours, truth, shave, least=WINDOW)
    mean_a, mean_b = _blurred(a), _blurred(b)
    var_a = _blurred(a * a) - mean_a**2
    var_b = _blurred(b * b) - mean_b**2
    both = _blurred(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    over = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    under = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float(np.mean(over / under))


def _compared(
    ours: Array, truth: Array, shave: int, *, least: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both pictures' luminance inside the border."""
    if ours.shape != truth.shape:
        raise LilliputError(
            f"a picture of shape {ours.shape} cannot be compared with one of {truth.shape}",
            hint="is `scale` or `color` of the task what the network was made for?",
        )
    height, width = (side - 2 * shave for side in truth.shape[:2])
    if min(height, width) < least:
        raise LilliputError(
            f"a picture of {truth.shape[1]}×{truth.shape[0]} without a border of {shave} pixels "
            f"is less than {least}×{least}",
            hint="give larger pictures, or a smaller `shave`",
        )
    inner = np.s_[shave : shave + height, shave : shave + width]
    return luminance(ours)[inner], luminance(truth)[inner]


def _blurred(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Whole 11 × 11 Gaussian windows: (H, W) → (H - 10, W - 10)."""
    distance = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-(distance**2) / (2 * 1.5**2))
    window /= window.sum()
    for axis in (0, 1):
        views = np.lib.stride_tricks.sliding_window_view(plane, WINDOW, axis=axis)
        plane = views @ window
    return plane
