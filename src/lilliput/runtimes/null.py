"""A runtime whose times and outputs are scripted: for tests, and to prove the stopwatch's sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.artifact import TensorSpec
from lilliput.data.dataset import Array
from lilliput.errors import LilliputError
from lilliput.runtimes.base import RUNTIMES, NodeTime, Session
from lilliput.runtimes.opening import check_feeds
from lilliput.runtimes.reference import graph_specs
from lilliput.target import Target

Times = Callable[[int], NDArray[np.int64]]
Outputs = Callable[[Sequence[Array]], list[Array]]


@dataclass
class VirtualClock:
    """A clock that only scripted runs move; call it for the seconds since it was made."""

    nanoseconds: int = 0

    def __call__(self) -> float:
        return self.nanoseconds * 1e-9


def constant(nanoseconds: int) -> Times:
    """Every run takes this long."""
    return lambda count: np.full(count, nanoseconds, np.int64)


@dataclass
class NullSession:
    """A session without a file: `times(count)` and `outputs(feeds)` are all it does."""

    times: Times = field(default_factory=lambda: constant(1_000_000))
    answer: Outputs | None = None
    inputs: tuple[TensorSpec, ...] = (TensorSpec(name="input", shape=(None, 1)),)
    outputs: tuple[str, ...] = ("output",)
    clock: VirtualClock = field(default_factory=VirtualClock)
    load_seconds: float = 0.0
    conditions: dict[str, Any] = field(
        default_factory=lambda: {"runtime": "null", "threads": 1, "process": "own"}
    )
    bound: bool = False

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        """The scripted outputs; without a script one zero an example."""
        check_feeds(feeds, self.inputs)
        if self.answer is not None:
            return self.answer(feeds)
        return [np.zeros((len(feeds[0]), 1), np.float32) for _ in self.outputs]

    def bind(self, feeds: Sequence[Array]) -> None:
        """Accept the inputs."""
        check_feeds(feeds, self.inputs)
        self.bound = True

    def burst(self, count: int) -> NDArray[np.int64]:
        """The next `count` scripted times in nanoseconds; the virtual clock moves by their sum."""
        if not self.bound:
            raise LilliputError("burst before bind: there are no inputs to run on")
        times = np.asarray(self.times(count), np.int64)
        self.clock.nanoseconds += int(times.sum())
        return times

    def close(self) -> None:
        """Nothing to free."""


class NullRuntime:
    """Opens `.onnx` files without running them.

    Args:
        script: {file stem: times}; a file without an entry takes one millisecond a run.
        outputs: What every file answers; zeros when None.
        nodes: What `profile` reports.
    """

    name = "null"
    formats: tuple[str, ...] = (".onnx",)
    precisions: tuple[str, ...] = ("f32",)

    def __init__(
        self,
        script: dict[str, Times] | None = None,
        *,
        outputs: Outputs | None = None,
        nodes: Sequence[NodeTime] = (),
    ) -> None:
        self.script, self.answer, self.nodes = dict(script or {}), outputs, list(nodes)
        self.clock = VirtualClock()

    def unavailable(self) -> str | None:
        """None: nothing to install."""
        return None

    def load(self, path: Path, target: Target) -> Session:
        """Read the file's inputs and outputs; its weights are never used."""
        inputs, outputs = graph_specs(path)
        return NullSession(
            times=self.script.get(path.stem, constant(1_000_000)),
            answer=self.answer,
            inputs=inputs,
            outputs=outputs,
            clock=self.clock,
            conditions={"runtime": "null", "threads": target.threads, "process": "own"},
        )

    def profile(
        self,
        path: Path,  # noqa: ARG002  # the protocol's
        target: Target,  # noqa: ARG002  # the protocol's
        feeds: Sequence[Array],  # noqa: ARG002  # the protocol's
    ) -> list[NodeTime]:
        """The scripted nodes, slowest first."""
        return sorted(self.nodes, key=lambda node: -node.seconds)


def open_here(path: Path, target: Target) -> Session:
    """Open the file in a child process, as a foreign runtime would be."""
    return NullRuntime().load(path, target)


RUNTIMES.register("null")(NullRuntime())
