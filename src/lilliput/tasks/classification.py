"""Classification: the share of right answers, learnt by cross-entropy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lilliput.data.dataset import SPLITS, Array, Dataset, Split
from lilliput.data.form import with_size
from lilliput.errors import LilliputError, Refused, nearest
from lilliput.noun import Noun
from lilliput.preprocessing import Preprocessing
from lilliput.tasks.base import TASKS, Batch, Metric

if TYPE_CHECKING:
    from torch import Tensor


SHIFTS = {"shift": 8, "nudge": 28}
"""{augmentation: the part of a side by which pictures are moved at most}."""

AUGMENTATIONS = ("flip", *SHIFTS)


@TASKS.register("classification")
class Classification(Noun):
    """One class of several for every example. Outputs are (N, classes) scores before softmax."""

    name: Literal["classification"] = "classification"
    top_k: int = Field(1, ge=1, description="an answer is right if it is among the k best")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="of the training loss")

    @property
    def metric(self) -> Metric:
        return Metric(f"top-{self.top_k}", "%")

    def prepare(self, dataset: Dataset) -> Dataset:
        """The data with int64 labels; unlabelled examples are fine.

        Raises:
            Refused: No examples at all; labels that are no class numbers or beyond the classes;
                pictures of different sizes; an augmentation that does not exist.
        """
        parts = {name: getattr(dataset, name) for name in SPLITS if len(getattr(dataset, name))}
        if not parts:
            raise Refused(
                f"the data {dataset.name!r} has no examples in any split",
                hint="give a source with pictures in it",
            )
        for name in dataset.augment:
            if name not in AUGMENTATIONS:
                raise Refused(f"no augmentation {name!r}", hint=nearest(name, AUGMENTATIONS))
        classes = len(dataset.classes)
        checked: dict[str, Any] = {
            name: _checked(part, classes, at=f"{dataset.name}, {name}")
            for name, part in parts.items()
        }
        return replace(dataset, **checked)

    def batches(
        self, split: Split, preprocessing: Preprocessing, size: int, *, layout: str = "image"
    ) -> Iterator[Batch]:
        for start in range(0, len(split), size):
            yield _batch(
                split.take(np.arange(start, min(start + size, len(split)))), preprocessing, layout
            )

    def training_batches(
        self,
        split: Split,
        preprocessing: Preprocessing,
        size: int,
        rng: np.random.Generator,
        *,
        layout: str = "image",
        augment: tuple[str, ...] = (),
    ) -> Iterator[Batch]:
        order = rng.permutation(len(split))
        for start in range(0, len(split) - size + 1, size):
            part = split.take(order[start : start + size])
            if layout == "image" and augment:
                pictures = _of_one_size(part, preprocessing.size)
                part = Split(augmented(pictures, augment, rng), part.targets)
            yield _batch(part, preprocessing, layout)

    def epoch_steps(self, split: Split, size: int) -> int:
        return len(split) // size

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        from torch.nn import functional as F

        return F.cross_entropy(output, target.long(), label_smoothing=self.label_smoothing)

    def imitation(self, student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor:
        """KL divergence of softened scores, times the temperature squared.

        Source: Hinton et al., arXiv 1503.02531, section 2.
        """
        from torch.nn import functional as F

        ours = F.log_softmax(student / temperature, 1)
        theirs = F.softmax(teacher / temperature, 1)
        return temperature**2 * F.kl_div(ours, theirs, reduction="batchmean")

    def scores(self, outputs: Array, targets: Array) -> NDArray[np.float64]:
        """100 where the truth is among the k best, else 0; an output with NaN is wrong."""
        truth = np.asarray(targets)[:, None]
        if outputs.ndim != 2:
            raise LilliputError(
                f"classification needs outputs of shape (N, classes), got {outputs.shape}",
                hint="is the network's first output its class scores?",
            )
        if len(truth) and truth.max() >= outputs.shape[1]:
            raise LilliputError(
                f"an example is of class {truth.max()}, and the network gives scores of "
                f"{outputs.shape[1]} classes, from 0 to {outputs.shape[1] - 1}",
                hint="give the data that the network was trained for, labels counted from 0",
            )
        values = outputs.astype(np.float64)
        best = np.argsort(-values, axis=1, kind="stable")[:, : self.top_k]
        right = (best == truth).any(1) & ~np.isnan(values).any(1)
        return np.asarray(100.0 * right, np.float64)

    def also(self, outputs: Array, targets: Array) -> dict[str, NDArray[np.float64]]:  # noqa: ARG002
        """Nothing beside the metric."""
        return {}

    def as_truth(self, outputs: Array) -> Array:
        return np.asarray(outputs.argmax(1))

    def agreement(self, ours: Array, reference: Array) -> tuple[str, float]:
        return "top-1 agreement, %", 100.0 * float((ours.argmax(1) == reference.argmax(1)).mean())

    def settings(self) -> dict[str, Any]:
        return self.model_dump()


def augmented(pictures: Array, changes: tuple[str, ...], rng: np.random.Generator) -> Array:
    """(N, H, W, C) pictures, each mirrored or moved by chance as `changes` allow."""
    if "flip" in changes:
        mirrored = rng.random(len(pictures)) < 0.5
        backwards = np.arange(pictures.shape[2])[::-1]
        pictures = pictures.copy()
        # `take` copies whole pixels, several times as fast as a view with a negative stride.
        pictures[mirrored] = np.take(pictures[mirrored], backwards, axis=2)
    for change in changes:
        if change in SHIFTS:
            pictures = shifted(pictures, SHIFTS[change], rng)
    return pictures


def shifted(pictures: Array, part: int, rng: np.random.Generator) -> Array:
    """Each picture moved by up to this part of its side, zeros where nothing was."""
    count, height, width = pictures.shape[:3]
    up, left = max(height // part, 1), max(width // part, 1)
    padded = np.pad(pictures, ((0, 0), (up, up), (left, left), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    rows = rng.integers(0, 2 * up + 1, count)
    columns = rng.integers(0, 2 * left + 1, count)
    return np.moveaxis(windows[np.arange(count), rows, columns], 1, -1)


def _batch(part: Split, preprocessing: Preprocessing, layout: str) -> Batch:
    targets = None if part.targets is None else np.asarray(part.targets)
    if layout != "image":
        return Batch((np.asarray(part.inputs),), targets)
    return Batch((preprocessing(_of_one_size(part, preprocessing.size)),), targets)


def _of_one_size(part: Split, size: tuple[int, int] | None) -> Array:
    """The pictures as one array, resized to `size` if that is declared."""
    if size is None and not part.uniform:
        shapes = sorted({np.shape(x) for x in part.inputs})
        raise LilliputError(
            f"pictures of one batch have different sizes, {shapes[0]} and {shapes[-1]}",
            hint="resize them to what the network takes: `preprocessing: {size: [H, W]}`, or "
            "--size HxW",
        )
    return np.asarray(with_size(part.inputs, size))


def _checked(split: Split, classes: int, *, at: str) -> Split:
    """The split with int64 class numbers, below `classes` where that is known (not 0)."""
    if not split.uniform:
        shapes = sorted({np.shape(x) for x in split.inputs})
        raise Refused(
            f"classification needs pictures of one size, got {shapes[0]} and {shapes[-1]}",
            at=at,
            hint="set the height and width that the network takes, for example "
            "`preprocessing: {size: [224, 224]}`, or --size 224x224",
        )
    if split.targets is None:
        return split
    labels = np.asarray(split.targets)
    if labels.dtype.kind not in "iu" or labels.shape != (len(split),) or labels.min() < 0:
        raise Refused(
            f"classification needs one class number from 0 for each example, got "
            f"{labels.dtype} of shape {labels.shape}",
            at=at,
            hint="give class numbers as integers, or leave the labels out",
        )
    if classes and labels.max() >= classes:
        raise Refused(
            f"an example is of class {labels.max()}, and there are {classes} classes, "
            f"from 0 to {classes - 1}",
            at=at,
            hint="count labels from 0, and name every class",
        )
    return Split(split.inputs, labels.astype(np.int64))
