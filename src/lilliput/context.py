"""All that a step may use of the world; steps have no other way to reach it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np

from lilliput.budget import Budget
from lilliput.target import Target

if TYPE_CHECKING:
    from lilliput.candidate import Candidate
    from lilliput.data.dataset import Dataset
    from lilliput.network import Network
    from lilliput.tasks.base import Task

T = TypeVar("T")

Precision = Literal["float32", "bfloat16"]
"""What convolutions and matrix products of a training are computed in; weights stay float32."""


class Journal(Protocol):
    """The run's memory: what was noted is on disk before the call returns."""

    def note(self, event: str, /, **facts: Any) -> None:
        """Append one event; `facts` must go to JSON."""

    def once(self, key: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Do `work` unless an earlier session of this run finished it; returns its result."""

    def recall(self, key: str) -> dict[str, Any] | None:
        """The result of `once` under this key; None if it was not done yet."""


class Progress(Protocol):
    """Says how far a long job is, with an estimate of the rest, to whoever watches."""

    def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
        """Yield the items, showing label, count and time left if it takes more than 2 s."""

    def say(self, line: str) -> None:
        """One line for the user, now."""


class SilentJournal:
    """Remembers nothing on disk: for tests and for the Python functions outside a run."""

    def note(self, event: str, /, **facts: Any) -> None:
        return None

    def once(self, key: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return work()

    def recall(self, key: str) -> dict[str, Any] | None:
        return None


class SilentProgress:
    """Shows nothing."""

    def track(self, items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
        yield from items

    def say(self, line: str) -> None:
        return None


@dataclass(frozen=True)
class Context:
    """What a stage works with.

    `original` is the uncompressed network (or file): the reference of every comparison, and the
    teacher unless `other_teacher` is given. `folder` is where files may be written, `networks`
    where weights of networks on their way go (the same, unless given). `root` is the run's folder,
    to which stored paths are relative. `checkpoints` is a folder for the state of trainings that
    must survive a crash; None where there is no run. `answers` is one for what a teacher answered,
    for the trainings to come. `workers` says who evaluates a search's candidates: a number of
    processes, "ray" or "ray://host:port". `timing_seconds` is the longest that one session of the
    stopwatch may take.
    """

    data: Dataset
    task: Task
    target: Target
    original: Candidate
    folder: Path
    other_teacher: Network | None = None
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    device: str = "cpu"
    train_threads: int = 1
    train_precision: Precision = "float32"
    workers: str = "1"
    timing_seconds: float = 20.0
    journal: Journal = field(default_factory=SilentJournal)
    progress: Progress = field(default_factory=SilentProgress)
    checkpoints: Path | None = None
    answers: Path | None = None
    networks: Path | None = None
    root: Path | None = None

    @property
    def teacher(self) -> Network | None:
        """Whom students imitate; None where the original is a file and there is no other."""
        return self.other_teacher or self.original.network

    def the_teacher(self) -> Network:
        """The same; raises `LilliputError` where there is none."""
        return self.teacher or self.original.the_network()

    def network_path(self, name: str) -> Path:
        """Where the weights of the network candidate `name` are kept."""
        return (self.networks or self.folder) / f"{name}.safetensors"

    def rng(self, *names: object) -> np.random.Generator:
        """A generator that depends on the run's seed and these names, and on nothing else."""
        return np.random.default_rng(self.derived_seed(*names))

    def derived_seed(self, *names: object) -> int:
        text = "/".join([str(self.seed), *map(str, names)])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "little")
