"""The calibration examples as batches that can be gone through again and again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lilliput.artifact import TensorSpec
from lilliput.data.dataset import Array, Dataset, Split
from lilliput.encode.execute import Feeds
from lilliput.errors import Refused
from lilliput.preprocessing import Preprocessing
from lilliput.tasks.base import Task

BATCH = 32
JUDGED_SHARE = 0.25
"""Share of the examples that rungs are judged on and never fitted to."""

MOST_NUMBERS = 3_000_000
"""Input numbers in all: a few large pictures say as much as many small ones."""


@dataclass(frozen=True)
class Calibration:
    """Disjoint batches to fit to and to judge by."""

    fit: Feeds
    judge: Feeds
    count: int


def calibration_of(
    data: Dataset,
    task: Task,
    preprocessing: Preprocessing,
    inputs: tuple[TensorSpec, ...],
    *,
    images: int,
    rng: np.random.Generator,
) -> Calibration:
    """Draw `images` examples, from the calibration split or else from the training split.

    Pictures of different sizes come one by one; a file of fixed batch size is fed with exactly
    that, and what does not fill a batch is left out.

    Raises:
        Refused: too few examples.
    """
    split = data.calibration if len(data.calibration) else data.split("train")
    fixed = inputs[0].batch if inputs else None
    size = fixed or (BATCH if split.uniform else 1)
    order = _affordable(split, rng.permutation(len(split))[:images])
    judged = max(round(len(order) * JUDGED_SHARE), 1)
    parts = [order[judged:], order[:judged]]
    if fixed:
        parts = [part[: len(part) // fixed * fixed] for part in parts]
    if not all(len(part) for part in parts):
        raise Refused(
            f"{len(order)} calibration examples are too few for batches of {size}",
            hint="give more calibration pictures, or export with a free batch size",
        )

    def feeds(part: Split) -> Feeds:
        def batches() -> Iterator[tuple[Array, ...]]:
            for batch in task.batches(part, preprocessing, size, layout=data.layout):
                yield batch.inputs

        return batches

    fit, judge = (feeds(split.take(part)) for part in parts)
    return Calibration(fit, judge, sum(len(part) for part in parts))


def _affordable(split: Split, order: NDArray[np.intp]) -> NDArray[np.intp]:
    """The leading examples that stay within `MOST_NUMBERS`, at least 8."""
    sizes = np.cumsum([np.size(split.inputs[int(index)]) for index in order])
    return order[: max(int(np.searchsorted(sizes, MOST_NUMBERS, side="right")), 8)]
