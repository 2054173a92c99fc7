"""Examples in disjoint splits. Torch-free, so that a device can score a file with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.errors import LilliputError, nearest

SPLITS = ("train", "calibration", "validation", "test")

Array = NDArray[Any]


@dataclass(frozen=True)
class Split:
    """Examples of one purpose.

    `inputs` is one array of equal pictures (N, H, W, C) uint8, or a list of pictures (H, W, C) of
    different sizes, or (layout "tensor") ready network inputs (N, ...) that no preprocessing
    touches. `targets` runs parallel to it (labels, or the pictures to be produced); None when the
    examples are unlabelled.
    """

    inputs: Sequence[Array] | Array
    targets: Sequence[Any] | Array | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def uniform(self) -> bool:
        """Whether all inputs have one shape, so that they can be batched."""
        return isinstance(self.inputs, np.ndarray) or len({np.shape(x) for x in self.inputs}) <= 1

    def take(self, index: Sequence[int] | NDArray[np.intp]) -> Split:
        """The examples at these positions, in this order."""
        picked = np.asarray(index, dtype=np.intp)

        def at(values: Sequence[Any] | Array) -> Sequence[Any] | Array:
            return values[picked] if isinstance(values, np.ndarray) else [values[i] for i in picked]

        return Split(at(self.inputs), None if self.targets is None else at(self.targets))

    def head(self, count: int) -> Split:
        """The first ones; of a split that is sorted by class they are no `sample`."""
        return self.take(np.arange(min(count, len(self))))

    def sample(self, count: int, rng: np.random.Generator | None = None) -> Split:
        """At most `count` by chance, in their order; without `rng` always the same ones."""
        rng = np.random.default_rng(len(self)) if rng is None else rng
        return self.take(np.sort(rng.permutation(len(self))[:count]))

    def joined(self, other: Split) -> Split:
        """These examples and then the other's; unlabelled if either is."""

        def both(ours: Any, theirs: Any) -> Any:
            if isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray):
                return np.concatenate([ours, theirs])
            return [*ours, *theirs]

        labelled = self.targets is not None and other.targets is not None
        targets = both(self.targets, other.targets) if labelled else None
        return Split(both(self.inputs, other.inputs), targets)


EMPTY = Split(np.zeros((0, 1, 1, 1), np.uint8))


@dataclass(frozen=True)
class Dataset:
    """Disjoint splits of examples.

    Searches and selection look at `validation` only; `test` is read once, for final figures.
    `layout` is "image" (pictures of 0..255, channels last) or "tensor" (ready inputs).
    `augment` names the random changes that keep a picture's meaning: any of "flip" (left-right)
    and "shift" (by up to an eighth of its side).
    `synthetic` marks random data, asked for by name, and the report says so. `alike` says that test
    and validation are drawn from one population, so that their scores may be compared.
    """

    name: str
    train: Split = EMPTY
    calibration: Split = EMPTY
    validation: Split = EMPTY
    test: Split = EMPTY
    layout: str = "image"
    augment: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    synthetic: bool = False
    alike: bool = True
    facts: dict[str, Any] = field(default_factory=dict)

    def split(self, name: str) -> Split:
        """The named split, refusing an empty or unknown one."""
        if name not in SPLITS:
            raise LilliputError(f"no split {name!r}", hint=nearest(name, SPLITS))
        split: Split = getattr(self, name)
        if not len(split):
            raise LilliputError(
                f"the data {self.name!r} has no {name} examples",
                hint="give a source with this split, or more pictures",
            )
        return split

    def map_splits(self, change: Callable[[Split], Split]) -> Dataset:
        """The same data with every split that has examples passed through `change`."""
        changed = {n: change(getattr(self, n)) for n in SPLITS if len(getattr(self, n))}
        return replace(self, **changed)  # type: ignore[arg-type]  # keys are field names
