"""How a picture becomes a network's input: declared once, stored in the file, used everywhere."""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator

from lilliput.errors import LilliputError
from lilliput.noun import Noun

Positive = Annotated[float, Field(gt=0)]
Side = Annotated[int, Field(ge=1)]


class Preprocessing(Noun):
    """`(image * scale - mean) / std`, per channel, on (N, H, W, C) pictures of 0..255.

    `scale` is 1/255 for networks that were trained on 0..1, and 1 for networks fed raw bytes.
    `mean` and `std` hold one value per channel, or one value for all.
    `size` resizes pictures to (height, width) first; None keeps what comes.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    scale: Positive = 1.0 / 255.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Positive, ...] = (1.0,)
    channels: int = Field(3, ge=1)
    size: tuple[Side, Side] | None = None

    @model_validator(mode="after")
    def _for_each_channel(self) -> Self:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                raise ValueError(
                    f"{name} has {len(values)} values: give one for each of the {self.channels} "
                    "channels, or one for all"
                )
        return self

    def __call__(self, images: NDArray[np.generic]) -> NDArray[np.float32]:
        """(N, H, W, C) of 0..255 → (N, C, H, W) float32; `LilliputError` on another shape."""
        if images.ndim != 4 or images.shape[-1] != self.channels:
            raise LilliputError(
                f"preprocessing expects pictures of shape (N, H, W, {self.channels}), "
                f"got {tuple(images.shape)}",
                hint="set `channels` of the preprocessing to what the network's first layer takes",
            )
        mean = np.asarray(self.mean, np.float32)
        std = np.asarray(self.std, np.float32)
        scaled = images.astype(np.float32) * np.float32(self.scale)
        normed = (scaled - mean) / std
        return np.ascontiguousarray(normed.transpose(0, 3, 1, 2), dtype=np.float32)


IDENTITY = Preprocessing(scale=1.0, channels=3)
