"""Where a training gets its inputs: an endless supply cut into epochs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lilliput.context import Context
from lilliput.data.dataset import Dataset
from lilliput.network import Network
from lilliput.preprocessing import Preprocessing
from lilliput.tasks.base import Task


class Source(Protocol):
    """Batches of one epoch; the same generator state gives the same batches."""

    @property
    def labelled(self) -> bool:
        """Whether batches carry the truth."""

    def epoch(self, rng: np.random.Generator) -> Iterator[tuple[tuple[Tensor, ...], Tensor | None]]:
        """(inputs, target or None) of each batch."""

    def steps(self) -> int:
        """Number of batches of an epoch."""


@dataclass(frozen=True)
class Examples:
    """The training split of a data set, shuffled and augmented as its task says."""

    data: Dataset
    task: Task
    preprocessing: Preprocessing
    batch_size: int = 128

    @property
    def labelled(self) -> bool:
        return self.data.train.targets is not None

    @property
    def size(self) -> int:
        """Examples of a batch: as asked for, or as many as there are."""
        return max(min(self.batch_size, self.task.epoch_steps(self.data.train, 1)), 1)

    def epoch(self, rng: np.random.Generator) -> Iterator[tuple[tuple[Tensor, ...], Tensor | None]]:
        batches = self.task.training_batches(
            self.data.split("train"),
            self.preprocessing,
            self.size,
            rng,
            layout=self.data.layout,
            augment=self.data.augment,
        )
        for batch in batches:
            inputs = tuple(torch.from_numpy(np.ascontiguousarray(x)) for x in batch.inputs)
            yield inputs, None if batch.targets is None else torch.as_tensor(batch.targets)

    def steps(self) -> int:
        return max(self.task.epoch_steps(self.data.train, self.size), 1)


def examples_for(network: Network, context: Context, batch_size: int) -> Examples:
    """The context's training examples; a network of one batch size gets batches of that."""
    size = network.fixed_batch or batch_size
    return Examples(context.data, context.task, network.preprocessing, size)
