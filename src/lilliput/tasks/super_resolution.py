"""Super-resolution: a small picture in, the same picture `scale` times as large out.

Measured as the literature does: PSNR on luminance, a border of `scale` pixels left out, the mean
over pictures; low-resolution inputs are the antialiased bicubic reduction of the true picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lilliput.data.dataset import Array, Dataset, Split
from lilliput.errors import LilliputError, Refused
from lilliput.noun import Noun
from lilliput.preprocessing import Preprocessing
from lilliput.tasks.base import TASKS, Batch, Metric
from lilliput.tasks.image_quality import MOST_DB, WINDOW, luminance, psnr_y, ssim_y
from lilliput.tasks.resize import resize

if TYPE_CHECKING:
    from torch import Tensor

SAME_REDUCTION = 0.4
"""Mean distance in levels of 255. Pillow's bicubic reductions of Set5 and T91 are 0.1 to 0.3 from
ours, its Lanczos ones 0.5 and more, JPEG files of quality 95 two and more.
"""


@TASKS.register("super_resolution")
class SuperResolution(Noun):
    """Networks of RGB pictures, or of luminance alone (`color: y`).

    The network's output is a picture of 0..`255 / output_scale`.

    Differs: luminance is kept in 8 bits like every picture. Networks of luminance score about
    0.05 dB less at 35 dB than where it stays in floating point.
    """

    name: Literal["super_resolution"] = "super_resolution"
    scale: int = Field(2, ge=1, le=16, description="how many times larger")
    color: Literal["rgb", "y"] = Field("rgb", description="what the network takes and gives")
    patch: int = Field(48, ge=4, description="side of a training input, in pixels")
    patches_per_image: int = Field(16, ge=1, description="patches of each picture an epoch")
    reduced_to: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (1.0, 0.9, 0.8, 0.7, 0.6),
        min_length=1,
        description="shares of its size to one of which a picture is reduced before a training "
        "patch is cut: more pictures, and sharper ones, from few",
    )
    shave: int | None = Field(None, ge=0, description="border left out of scores; unset: scale")
    output_scale: float = Field(255.0, gt=0, description="brings the output to 0..255")

    metric: ClassVar[Metric] = Metric("PSNR on luminance", "dB")

    @property
    def border(self) -> int:
        """Pixels of border that scores leave out."""
        return self.scale if self.shave is None else self.shave

    def prepare(self, dataset: Dataset) -> Dataset:
        """Pairs of small and true pictures in every split.

        Splits of pictures alone become pairs: the true picture is cropped to a multiple of `scale`
        and reduced. Pairs are checked and kept, so that preparing twice changes nothing.

        Raises:
            Refused: What is no 8-bit picture of one or three channels, is too small to be scored,
                or a pair whose sizes do not differ by `scale`.
        """
        if dataset.layout != "image":
            raise Refused(
                f"super_resolution needs pictures, and the data {dataset.name!r} are ready tensors",
                hint="give uint8 pictures (H, W, C), for example as a folder",
            )
        return dataset.map_splits(self._paired)

    def _paired(self, split: Split) -> Split:
        targets = split.targets
        # Class numbers say nothing about a picture: they are left behind.
        if targets is None or not len(split) or np.ndim(targets[0]) != 3:
            pairs = [self._pair(np.asarray(picture)) for picture in split.inputs]
        else:
            both = zip(split.inputs, targets, strict=True)
            pairs = [self._kept(np.asarray(small), np.asarray(true)) for small, true in both]
        return Split([small for small, _ in pairs], [true for _, true in pairs])

    def _pair(self, picture: Array) -> tuple[Array, Array]:
        true = self._in_color(picture)
        height, width = (side - side % self.scale for side in true.shape[:2])
        true = self._scorable(true[:height, :width])
        return resize(true, height // self.scale, width // self.scale), true

    def _kept(self, small: Array, true: Array) -> tuple[Array, Array]:
        if tuple(self.scale * side for side in small.shape[:2]) != true.shape[:2]:
            raise Refused(
                f"a picture of shape {small.shape} has a true one of shape {true.shape}",
                hint=f"the task's `scale` is {self.scale}: give pairs of that ratio, or true "
                "pictures alone",
            )
        return self._in_color(small), self._scorable(self._in_color(true))

    def _scorable(self, true: Array) -> Array:
        least = max(2 * self.scale, 2 * self.border + 1)
        if min(true.shape[:2]) < least:
            raise Refused(
                f"a picture of {true.shape[1]}×{true.shape[0]} is too small",
                hint=f"with scale {self.scale} and a border of {self.border} pixels left out, "
                f"pictures need {least} pixels a side",
            )
        return true

    def _in_color(self, picture: Array) -> Array:
        if picture.ndim != 3 or picture.dtype != np.uint8 or picture.shape[-1] not in (1, 3):
            raise Refused(
                f"super_resolution needs pictures, got {picture.dtype} of shape {picture.shape}",
                hint="give uint8 pictures (H, W, 3) or (H, W, 1): a folder, or the named sets "
                "t91, set5, set14",
            )
        if self.color == "rgb":
            return picture if picture.shape[-1] == 3 else np.repeat(picture, 3, -1)
        return np.floor(luminance(picture) + 0.5).astype(np.uint8)[..., None]

    def batches(
        self, split: Split, preprocessing: Preprocessing, size: int, *, layout: str = "image"
    ) -> Iterator[Batch]:
        """One picture a batch, since their sizes differ; `size` is for pictures of one size."""
        count = size if split.uniform else 1
        for start in range(0, len(split), count):
            part = split.take(np.arange(start, min(start + count, len(split))))
            pictures = np.stack([np.asarray(x) for x in part.inputs])
            inputs = preprocessing(pictures) if layout == "image" else pictures
            targets = None if part.targets is None else np.stack(list(part.targets))
            yield Batch((inputs,), targets)

    def training_batches(
        self,
        split: Split,
        preprocessing: Preprocessing,
        size: int,
        rng: np.random.Generator,
        *,
        layout: str = "image",
        augment: tuple[str, ...] = (),  # noqa: ARG002  # turns and mirrors keep any patch's meaning
    ) -> Iterator[Batch]:
        """Random patches, turned and mirrored; targets (N, C, H, W) in the output's own range.

        Patches are also cut from pictures reduced to one of `reduced_to`, unless the first pair is
        no bicubic reduction: nobody could make the small pictures of others anew.

        Source: Dong, Loy, Tang, "Accelerating the Super-Resolution Convolutional Neural Network",
        ECCV 2016, section 4.1. Differs: squares are reduced as they are drawn, not whole pictures
        beforehand.
        """
        if split.targets is None or layout != "image":
            raise LilliputError("super_resolution trains on pictures; call `prepare` first")
        shares = self.reduced_to if _is_reduction(split.inputs[0], split.targets[0]) else (1.0,)
        order = rng.permutation(np.repeat(np.arange(len(split)), self.patches_per_image))
        for start in range(0, len(order) - size + 1, size):
            pairs = [
                self._patch(split.inputs[n], split.targets[n], float(rng.choice(shares)), rng)
                for n in order[start : start + size]
            ]
            side = min(small.shape[0] for small, _ in pairs)
            small = np.stack([pair[0][:side, :side] for pair in pairs])
            large = self.scale * side
            true = np.stack([pair[1][:large, :large] for pair in pairs])
            targets = true.astype(np.float32).transpose(0, 3, 1, 2) / np.float32(self.output_scale)
            yield Batch((preprocessing(small),), np.ascontiguousarray(targets))

    def _patch(
        self, small: Array, true: Array, share: float, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Aligned squares of both pictures, reduced to this share, in one of eight positions."""
        scale, (height, width) = self.scale, small.shape[:2]
        side = min(self.patch, height, width)
        across = min(round(scale * side / share), scale * height, scale * width)
        if across > scale * side:
            outer = resize(_square(true, across, rng), scale * side, scale * side)
            inner = resize(outer, side, side)
        else:
            y, x = (int(rng.integers(0, length - side + 1)) for length in (height, width))
            inner = small[y : y + side, x : x + side]
            outer = true[scale * y : scale * (y + side), scale * x : scale * (x + side)]
        turns, mirrored = int(rng.integers(0, 4)), bool(rng.integers(0, 2))
        pair = (np.rot90(inner, turns), np.rot90(outer, turns))
        return (pair[0][:, ::-1], pair[1][:, ::-1]) if mirrored else pair

    def epoch_steps(self, split: Split, size: int) -> int:
        return len(split) * self.patches_per_image // size

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean absolute error, which gives a higher PSNR than the squared one."""
        from torch.nn import functional as F

        return F.l1_loss(output, target)

    def imitation(self, student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor:  # noqa: ARG002
        """Mean absolute error against the teacher's picture; there is nothing to soften."""
        from torch.nn import functional as F

        return F.l1_loss(student, teacher)

    def pictures(self, outputs: Array) -> NDArray[np.uint8]:
        """(N, C, H, W) as the network gives them → (N, H, W, C) uint8."""
        values = np.clip(outputs.astype(np.float64) * self.output_scale, 0, 255)
        return np.floor(values + 0.5).astype(np.uint8).transpose(0, 2, 3, 1)

    def as_truth(self, outputs: Array) -> Array:
        return self.pictures(outputs)

    def scores(self, outputs: Array, targets: Array) -> NDArray[np.float64]:
        """PSNR in dB of each picture, (N,).

        Raises:
            LilliputError: The outputs are no pictures of the targets' size.
        """
        sizes = np.shape(targets)[1:3]
        if outputs.ndim != 4 or outputs.shape[2:] != sizes:
            raise LilliputError(
                f"super_resolution with scale {self.scale} needs pictures of shape (N, C, "
                f"{', '.join(map(str, sizes))}) here, and the network gives {outputs.shape}",
                hint="give an upscaling network, and set the task's `scale` to its own",
            )
        pairs = zip(self.pictures(outputs), targets, strict=True)
        return np.array([psnr_y(ours, true, shave=self.border) for ours, true in pairs])

    def also(self, outputs: Array, targets: Array) -> dict[str, NDArray[np.float64]]:
        """SSIM on luminance; NaN where a picture is smaller than its window."""
        side = WINDOW + 2 * self.border
        values = [
            ssim_y(ours, true, shave=self.border) if min(true.shape[:2]) >= side else np.nan
            for ours, true in zip(self.pictures(outputs), targets, strict=True)
        ]
        return {"SSIM on luminance": np.array(values, np.float64)}

    def agreement(self, ours: Array, reference: Array) -> tuple[str, float]:
        """PSNR of one output against the other, over all pixels and channels."""
        error = float(np.mean((ours.astype(np.float64) - reference) ** 2)) * self.output_scale**2
        decibels = MOST_DB if error == 0 else min(10.0 * np.log10(255.0**2 / error), MOST_DB)
        return "PSNR between the outputs, dB", float(decibels)

    def settings(self) -> dict[str, Any]:
        return self.model_dump()


def _square(picture: Array, side: int, rng: np.random.Generator) -> Array:
    y, x = (int(rng.integers(0, length - side + 1)) for length in picture.shape[:2])
    return picture[y : y + side, x : x + side]


def _is_reduction(small: Array, true: Array) -> bool:
    """Whether this is the bicubic reduction of the true picture, by whatever program.

    Programs differ most along the border, which is left out; a picture that is all border is none.
    """
    apart = np.abs(resize(true, *small.shape[:2]).astype(np.float64) - small)[4:-4, 4:-4]
    return apart.size > 0 and float(apart.mean()) < SAME_REDUCTION
