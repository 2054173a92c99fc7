"""A teacher's answers, remembered: a batch that comes again is not asked again.

Where the augmented views of the training examples repeat every few epochs, most of a training's
batches have been answered before. A teacher costs a third of a training step on a network that is
hardly smaller than it, and more than half on one that is much smaller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

Answer = tuple[Tensor | None, dict[str, Tensor]]
"""A teacher's output and its features by tap; nothing where there is no teacher."""

MOST_BYTES = 1_000_000_000
"""Answers that need more memory are asked for anew: class scores and pooled features fit, and
small pictures do."""


@dataclass
class Answers:
    """Answers by (view, number of the batch within it), for views that come round again.

    Source: Shen and Xing, "A Fast Knowledge Distillation Framework for Visual Recognition",
    ECCV 2022, section 3. Differs: whole augmented epochs repeat, and their answers stay in
    memory as they are, where the paper stores crops and the largest probabilities on disk.
    """

    views: int
    kept: dict[tuple[int, int], Answer] = field(default_factory=dict)

    def of(self, batch: tuple[int, int], ask: Callable[[], Answer]) -> Answer:
        """The answer to this batch, (view, number within it): from memory if it was seen."""
        if batch not in self.kept:
            self.kept[batch] = ask()
        return self.kept[batch]

    def view(self, epoch: int) -> int:
        """Which of the views this epoch shows."""
        return epoch % self.views


def affordable(*answer: Tensor, batches: int, views: int) -> bool:
    """Whether the answers to so many batches like this one may stay in memory."""
    return sum(part.nbytes for part in answer) * batches * views <= MOST_BYTES
