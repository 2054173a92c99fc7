"""What every runtime must be able to do with a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from lilliput.artifact import TensorSpec
from lilliput.data.dataset import Array
from lilliput.noun import Noun
from lilliput.registry import Registry
from lilliput.target import Target


class NodeTime(Noun):
    """One operator of the loaded graph: where it ran and its share of the time."""

    name: str
    op: str
    seconds: float
    precision: str = "fp32"
    provider: str = ""


class Computes(Protocol):
    """Whatever answers a batch: a loaded file, or an emulator of one."""

    inputs: tuple[TensorSpec, ...]

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        """Inputs in the order of `inputs` → the file's outputs, in their order."""


@runtime_checkable
class Session(Protocol):
    """A loaded file, ready to run. `close` frees it (and ends its child process, if any)."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    load_seconds: float
    conditions: dict[str, Any]

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        """Inputs in the order of `inputs` → outputs in the order of `outputs`."""

    def bind(self, feeds: Sequence[Array]) -> None:
        """Set the inputs that `burst` runs on, so that no copying is timed."""

    def burst(self, count: int) -> NDArray[Any]:
        """Run `count` times on the bound inputs; (count,) int64 nanoseconds of each run."""

    def close(self) -> None: ...


@runtime_checkable
class Runtime(Protocol):
    """A way to run files. Importing this object costs nothing; `load` imports the library.

    `formats` lists the file suffixes it opens. `unavailable()` returns None when it can be used
    here, else the reason and the exact command that installs it.
    """

    name: str
    formats: tuple[str, ...]
    precisions: tuple[str, ...]

    def unavailable(self) -> str | None: ...

    def load(self, path: Path, target: Target) -> Session: ...

    def profile(self, path: Path, target: Target, feeds: Sequence[Array]) -> list[NodeTime]:
        """Time per operator, slowest first; empty where the runtime cannot tell."""


RUNTIMES: Registry[Runtime] = Registry("runtime", "lilliput.runtimes")
