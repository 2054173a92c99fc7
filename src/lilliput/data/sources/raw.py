"""What a source holds before anything is split, and pictures brought to one form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lilliput.data.dataset import Array, Split
from lilliput.errors import LilliputError

WHOLE = "whole"
"""The part of a source that has no splits of its own, to be divided by us."""

RGB_TO_GREY = np.array([0.299, 0.587, 0.114])
"""Luma weights of ITU-R BT.601, as picture libraries convert to grey."""


@dataclass(frozen=True)
class Shares:
    """How much of a source goes where: fractions of its examples, and at most so many.

    `calibration` examples are drawn from train; `apart` takes them out of it.
    """

    validation: float = 0.1
    test: float = 0.2
    most: int = 5000
    calibration: int = 512
    apart: bool = False


@dataclass(frozen=True)
class Raw:
    """Examples as their source has them.

    `parts` maps "train", "calibration", "validation" or "test" to what the source itself keeps
    apart, or `WHOLE` to examples that nobody has divided yet. Other fields as in `Dataset`.
    """

    name: str
    parts: dict[str, Split]
    layout: str = "image"
    augment: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    synthetic: bool = False
    alike: bool = True
    facts: dict[str, Any] = field(default_factory=dict)
    shares: Shares = field(default_factory=Shares)


def as_pictures(values: Array, *, at: str) -> tuple[Array, str]:
    """uint8 pictures (N, H, W), (N, H, W, C) or (N, C, H, W) → (N, H, W, C), and what was found.

    Where both readings are possible, channels are taken to be last. Alpha is dropped.

    Raises:
        LilliputError: the shape is none of these.
    """
    if values.ndim == 3:
        return values[..., None], "NHW"
    if values.ndim == 4:
        last, first = values.shape[-1], values.shape[1]
        if last in (1, 3):
            return values, "NHWC"
        if first in (1, 3):
            return values.transpose(0, 2, 3, 1), "NCHW"
        if last == 4:
            return values[..., :3], "NHWC, alpha dropped"
        if first == 4:
            return values[:, :3].transpose(0, 2, 3, 1), "NCHW, alpha dropped"
    raise LilliputError(
        f"uint8 array of shape {values.shape} is not a batch of pictures",
        at=at,
        hint="give (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels, "
        "or float32 for ready network inputs",
    )


def with_channels(inputs: Sequence[Array] | Array, channels: int) -> Sequence[Array] | Array:
    """Pictures (..., C) with this many channels: grey is repeated, colour becomes luma."""
    if isinstance(inputs, np.ndarray):
        return _recoloured(inputs, channels)
    return [_recoloured(picture, channels) for picture in inputs]


def _recoloured(pictures: Array, channels: int) -> Array:
    has = pictures.shape[-1]
    if has == channels:
        return pictures
    if has == 1:
        return np.repeat(pictures, channels, axis=-1)
    grey = np.rint(pictures[..., :3].astype(np.float32) @ RGB_TO_GREY.astype(np.float32))
    return grey.clip(0, 255).astype(np.uint8)[..., None]


def as_labels(values: Array, *, at: str, count: int) -> Array:
    """Labels as the tasks take them: (N, 1) loses its 1, integers become int64.

    Raises:
        LilliputError: there are not as many as examples, or they are objects.
    """
    if values.dtype == object:
        raise LilliputError("targets are objects, not numbers", at=at)
    if len(values) != count:
        raise LilliputError(
            f"{count} inputs, but {len(values)} targets", at=at, hint="give one target an input"
        )
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    return values.astype(np.int64) if values.dtype.kind in "iub" else values


def as_inputs(values: Array, *, at: str) -> tuple[Array, str, str]:
    """An array from outside as inputs, its layout ("image" or "tensor") and what was found.

    uint8 are pictures; floats become float32 network inputs; other integers stay as they are.

    Raises:
        LilliputError: neither pictures nor numbers.
    """
    if values.dtype == np.uint8:
        pictures, found = as_pictures(values, at=at)
        return pictures, "image", f"uint8 {found}"
    if values.dtype.kind == "f":
        return values.astype(np.float32, copy=False), "tensor", f"{values.dtype} ready inputs"
    if values.dtype.kind in "iu":
        return values, "tensor", f"{values.dtype} ready inputs"
    raise LilliputError(
        f"inputs of type {values.dtype} are neither pictures nor numbers",
        at=at,
        hint="give uint8 pictures of 0..255 or float32 network inputs",
    )
