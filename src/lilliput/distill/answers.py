"""A teacher's answers, remembered: a batch that comes again is not asked again.

Where the augmented views of the training examples repeat every few epochs, most of a training's
batches have been answered before. A teacher costs a third of a training step on a network that is
hardly smaller than it, and more than half on one that is much smaller. All trainings of a run see
the same views, so that what one was answered the next ones read.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lilliput.atomic import write_atomically
from lilliput.errors import CannotWrite

Answer = tuple[Tensor | None, dict[str, Tensor]]
"""A teacher's output and its features by tap; nothing where there is no teacher."""

MOST_BYTES = 1_000_000_000
"""Answers that need more memory are asked for anew: class scores and pooled features fit, and
small pictures do."""

MOST_STORED = 100_000_000
"""Bytes of answers that are kept on disk too, for the run's other trainings."""

OUTPUT = ""
"""In the place of a tap's name."""


@dataclass
class Answers:
    """Answers by (view, number of the batch within it), for views that come round again.

    `store` is where whole views are kept for other trainings, as `<store>-<view>.safetensors`.

    Source: Shen and Xing, "A Fast Knowledge Distillation Framework for Visual Recognition",
    ECCV 2022, section 3. Differs: whole augmented epochs repeat, and their answers are kept as
    they are, where the paper stores crops and the largest probabilities.
    """

    views: int
    store: Path | None = None
    kept: dict[int, dict[int, Answer]] = field(default_factory=dict)

    def of(self, batch: tuple[int, int], ask: Callable[[], Answer]) -> Answer:
        """The answer to this batch, (view, number within it): from memory if it was seen."""
        view, number = batch
        known = self.kept.setdefault(view, {})
        if number not in known:
            known[number] = ask()
        return known[number]

    def view(self, epoch: int) -> int:
        """Which of the views this epoch shows."""
        return epoch % self.views

    def begin(self, view: int) -> None:
        """Read what another training was answered about this view; a damaged file is none."""
        path = self._file(view)
        if path is None or view in self.kept or not path.is_file():
            return
        try:
            self.kept[view] = _unpacked(load(path.read_bytes()))
        except (SafetensorError, ValueError):
            path.unlink(missing_ok=True)

    def end(self, view: int) -> None:
        """Keep a view that was answered whole, if there is room, for the trainings to come."""
        path = self._file(view)
        if path is not None and not path.exists():
            with contextlib.suppress(CannotWrite):
                write_atomically(path, save(_packed(self.kept.get(view, {}))))

    def _file(self, view: int) -> Path | None:
        return self.store and self.store.with_name(f"{self.store.name}-{view}.safetensors")


def answers_like(
    inputs: tuple[Tensor, ...], answer: Answer, batches: int, views: int, folder: Path | None
) -> Answers | None:
    """A memory for so many batches like this one, in that folder too; None if they do not fit."""
    named = _packed({0: answer})
    if not affordable(*named.values(), batches=batches, views=views):
        return None
    if folder is None or not affordable(
        *named.values(), batches=batches, views=views, most=MOST_STORED
    ):
        return Answers(views)
    # Another teacher, precision or layer, other examples or batches: other bytes.
    digest = hashlib.sha256(save(named | {f"input {n}": x for n, x in enumerate(inputs)}))
    digest.update(f"{batches} batches".encode())
    return Answers(views, folder / digest.hexdigest()[:16])


def affordable(*answer: Tensor, batches: int, views: int, most: int = MOST_BYTES) -> bool:
    """Whether the answers to so many batches like this one may be kept, in memory unless said."""
    return sum(part.nbytes for part in answer) * batches * views <= most


def _packed(answers: dict[int, Answer]) -> dict[str, Tensor]:
    """{number/tap: tensor}, as a file has them: none may share its memory with another."""
    named: dict[str, Tensor] = {}
    for number, (output, features) in answers.items():
        parts = features if output is None else {OUTPUT: output, **features}
        named |= {f"{number}/{tap}": x.cpu().contiguous().clone() for tap, x in parts.items()}
    return named


def _unpacked(named: dict[str, Tensor]) -> dict[int, Answer]:
    parts: dict[int, dict[str, Tensor]] = {}
    for name, tensor in named.items():
        number, tap = name.split("/", 1)
        parts.setdefault(int(number), {})[tap] = tensor
    return {number: (found.pop(OUTPUT, None), found) for number, found in parts.items()}
