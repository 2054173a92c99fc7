"""What "good" means for a network: its loss, its metric, its batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lilliput.data.dataset import Array, Dataset, Split
from lilliput.preprocessing import Preprocessing
from lilliput.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


class Metric(NamedTuple):
    """The figure that a user cares for: the mean of per-example scores, in `unit`."""

    name: str
    unit: str
    higher_is_better: bool = True


class Batch(NamedTuple):
    """Network inputs (each (N, ...) float32 or integer) and what they should give, if known."""

    inputs: tuple[Array, ...]
    targets: Array | None


@runtime_checkable
class Task(Protocol):
    """The only place that knows what a network is for; every step asks it.

    Scores are per example and their mean is the metric, so that a drop between two files can be
    paired example by example and given an interval. Arrays are numpy; only the two losses touch
    torch, and they import it when called.
    """

    @property
    def name(self) -> str: ...

    @property
    def metric(self) -> Metric: ...

    def prepare(self, dataset: Dataset) -> Dataset:
        """Check that the data suits the task, and add what can be derived (small pictures)."""

    def batches(
        self, split: Split, preprocessing: Preprocessing, size: int, *, layout: str = "image"
    ) -> Iterator[Batch]:
        """The split in order, unchanged, the last batch short if need be."""

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
        """One epoch: shuffled, augmented, the short last batch dropped."""

    def epoch_steps(self, split: Split, size: int) -> int:
        """How many batches `training_batches` gives for this split and batch size; maybe none."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean loss of the batch against the truth."""

    def imitation(self, student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor:
        """Mean loss of the batch against another network's output."""

    def scores(self, outputs: Array, targets: Array) -> NDArray[np.float64]:
        """One score per example, (N,); their mean is the metric in its unit."""

    def also(self, outputs: Array, targets: Array) -> dict[str, NDArray[np.float64]]:
        """Other figures that the field reports, by name, one value an example; often none."""

    def as_truth(self, outputs: Array) -> Array:
        """A network's outputs in the form of targets, to stand in for a truth that is not known."""

    def agreement(self, ours: Array, reference: Array) -> tuple[str, float]:
        """How alike two networks' outputs are: ("top-1 agreement, %", 99.2), ("PSNR, dB", 61)."""

    def settings(self) -> dict[str, Any]:
        """The task as JSON, enough to make it again: {"name": ..., settings}."""


TASKS: Registry[type[Task]] = Registry("task", "lilliput.tasks")
