"""What a source holds before anything is split, and pictures brought to one form."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lilliput.data.dataset import Array, Split
from lilliput.data.form import with_channels, with_size
from lilliput.errors import LilliputError
from lilliput.preprocessing import Preprocessing

WHOLE = "whole"
"""The part of a source that has no splits of its own, to be divided by us."""


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


def in_form(raw: Raw, preprocessing: Preprocessing) -> Raw:
    """Pictures with the channels and the size that are declared; the facts say what was changed.

    Raises:
        LilliputError: a number of channels that pictures cannot be brought to.
    """
    if raw.layout != "image":
        return raw
    channels, size = preprocessing.channels, preprocessing.size
    odd = sum(np.shape(x)[-1] != channels for p in raw.parts.values() for x in p.inputs)
    if odd and channels not in (1, 3):
        raise LilliputError(
            f"the preprocessing declares {channels} channels, and {odd} pictures of {raw.name!r} "
            "have others",
            hint="pictures are brought to 1 or 3 channels; give the others as float32 inputs",
        )
    parts = {
        name: Split(with_size(with_channels(part.inputs, channels), size), part.targets)
        for name, part in raw.parts.items()
    }
    facts = {**raw.facts, "converted": odd} if odd else dict(raw.facts)
    if size is not None and not _all_of(raw, size):
        facts["resized_to"] = list(size)
    return replace(raw, parts=parts, facts=facts)


def _all_of(raw: Raw, size: tuple[int, int]) -> bool:
    return all(np.shape(x)[:2] == size for part in raw.parts.values() for x in part.inputs)


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
