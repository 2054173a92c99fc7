"""How examples become a file's input; pictures brought to the size and channels it declares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lilliput.artifact import Artifact
from lilliput.data.dataset import Array, Dataset
from lilliput.errors import Refused
from lilliput.preprocessing import IDENTITY, Preprocessing

RGB_TO_GREY = np.array([0.299, 0.587, 0.114], np.float32)
"""Luma weights of ITU-R BT.601, as picture libraries convert to grey."""

SLICE = 4096
"""Pictures converted at a time, so that the floats between take little memory."""


def with_channels(inputs: Sequence[Array] | Array, channels: int) -> Sequence[Array] | Array:
    """Pictures (..., C) with 1 or 3 channels: grey is repeated, colour becomes luma, alpha goes."""
    if not isinstance(inputs, np.ndarray):
        return [_recoloured(picture, channels) for picture in inputs]
    if inputs.shape[-1] == channels:
        return inputs
    slices = [inputs[at : at + SLICE] for at in range(0, max(len(inputs), 1), SLICE)]
    return np.concatenate([_recoloured(part, channels) for part in slices])


def _recoloured(pictures: Array, channels: int) -> Array:
    has = pictures.shape[-1]
    if has == channels:
        return pictures
    if has == 1:
        return np.repeat(pictures, channels, axis=-1)
    if channels == 3:
        return pictures[..., :3]
    grey: Array = np.rint(pictures[..., :3].astype(np.float32) @ RGB_TO_GREY).clip(0, 255)
    return grey.astype(np.uint8)[..., None]


def with_size(
    inputs: Sequence[Array] | Array, size: tuple[int, int] | None
) -> Sequence[Array] | Array:
    """Pictures (H, W, C) resized to (height, width), as one array; as they are if `size` is None.

    Bilinear, the kernel widened when shrinking, which is what training code does by default. The
    whole picture is kept and its proportions are not: crop before if the network was trained so.
    """
    there = isinstance(inputs, np.ndarray) and inputs.shape[1:3] == size
    if size is None or there or not len(inputs):
        return inputs
    return np.stack([resized(np.asarray(picture), size) for picture in inputs])


def resized(picture: Array, size: tuple[int, int]) -> Array:
    """One uint8 picture (H, W, C) of any number of channels → (height, width, C)."""
    from PIL import Image

    if picture.shape[:2] == size:
        return picture
    height, width = size
    planes = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(picture[..., channel])).resize(
                (width, height), Image.Resampling.BILINEAR
            )
        )
        for channel in range(picture.shape[-1])
    ]
    return np.stack(planes, axis=-1)


def form_of(artifact: Artifact, data: Dataset) -> Preprocessing:
    """How examples become the file's input, by what it says of itself.

    Raises:
        Refused: It says nothing, and the examples are pictures.
    """
    if artifact.metadata.preprocessing is not None:
        return artifact.metadata.preprocessing
    if data.layout != "image":
        return IDENTITY
    raise Refused(
        f"{artifact.path.name} does not say how pictures become its input",
        hint="say it: --scale 1/255 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
    )
