"""Classification: the share of right answers, learnt by cross-entropy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lilliput.data.dataset import Array, Dataset, Split
from lilliput.errors import Refused
from lilliput.noun import Noun
from lilliput.preprocessing import Preprocessing
from lilliput.tasks.base import TASKS, Batch, Metric

if TYPE_CHECKING:
    from torch import Tensor


@TASKS.register("classification")
class Classification(Noun):
    """One class of several for every example. Outputs are (N, classes) scores before softmax."""

    name: Literal["classification"] = "classification"
    top_k: int = Field(1, ge=1, description="an answer is right if it is among the k best")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="of the training loss")

    metric: ClassVar[Metric] = Metric("top-1", "%")

    def prepare(self, dataset: Dataset) -> Dataset:
        """Refuses labels that are no class numbers; unlabelled examples are fine."""
        return dataset.map_splits(_with_class_numbers)

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
                part = Split(augmented(np.asarray(part.inputs), augment, rng), part.targets)
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
        truth = np.asarray(targets)[:, None]
        best = np.argsort(-outputs, axis=1, kind="stable")[:, : self.top_k]
        return np.asarray(100.0 * (best == truth).any(1), np.float64)

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
        pictures = np.where(mirrored[:, None, None, None], pictures[:, :, ::-1], pictures)
    return shifted(pictures, rng) if "shift" in changes else pictures


def shifted(pictures: Array, rng: np.random.Generator) -> Array:
    """Each picture moved by up to an eighth of its side, zeros where nothing was."""
    count, height, width = pictures.shape[:3]
    up, left = max(height // 8, 1), max(width // 8, 1)
    padded = np.pad(pictures, ((0, 0), (up, up), (left, left), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    rows = rng.integers(0, 2 * up + 1, count)
    columns = rng.integers(0, 2 * left + 1, count)
    return np.moveaxis(windows[np.arange(count), rows, columns], 1, -1)


def _batch(part: Split, preprocessing: Preprocessing, layout: str) -> Batch:
    inputs = np.asarray(part.inputs)
    targets = None if part.targets is None else np.asarray(part.targets)
    return Batch((preprocessing(inputs) if layout == "image" else inputs,), targets)


def _with_class_numbers(split: Split) -> Split:
    if split.targets is None:
        return split
    labels = np.asarray(split.targets)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or (len(labels) and labels.min() < 0):
        raise Refused(
            f"classification needs one class number from 0 for each example, got "
            f"{labels.dtype} of shape {labels.shape}",
            hint="give class numbers as integers, or leave the labels out",
        )
    return Split(split.inputs, labels.astype(np.int64))
