"""PyTorch eager on exported programs (`.pt2`): a reference to compare with, never a target.

Lives in a child process, since torch's number of threads is a setting of the whole process. The
library is imported by its name: the device side of this package has no dependency on torch.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.artifact import TensorSpec
from lilliput.data.dataset import Array
from lilliput.errors import LilliputError
from lilliput.pt2_io import check_program, tensors_only
from lilliput.runtimes.base import RUNTIMES
from lilliput.runtimes.hosted import Hosted
from lilliput.runtimes.opening import installed_version
from lilliput.target import Target


class TorchSession:
    """An exported program run by torch's interpreter of it."""

    def __init__(self, path: Path, target: Target) -> None:
        check_program(path)
        torch = importlib.import_module("torch")
        start = time.perf_counter()
        with tensors_only():
            program = torch.export.load(str(path))
        self._module = program.module()
        self.load_seconds = time.perf_counter() - start
        self._torch = torch
        torch.set_num_threads(target.threads)
        self.inputs = _inputs(program)
        count = len(program.graph_signature.user_outputs)
        self.outputs = ("output",) if count == 1 else tuple(f"output_{n}" for n in range(count))
        self.conditions: dict[str, Any] = {
            "runtime": "torch",
            "version": installed_version("torch"),
            "threads": target.threads,
            "precision": "f32",
        }
        self._bound: list[Any] | None = None

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        """Inputs in the order of `inputs` → outputs in the order of `outputs`."""
        flatten = importlib.import_module("torch.utils._pytree").tree_leaves
        with self._torch.inference_mode():
            leaves = flatten(self._module(*self._tensors(feeds)))
        return [np.asarray(leaf) for leaf in leaves]

    def bind(self, feeds: Sequence[Array]) -> None:
        """Set the inputs that `burst` runs on."""
        self._bound = self._tensors(feeds)

    def burst(self, count: int) -> NDArray[np.int64]:
        """Run `count` times on the bound inputs; (count,) nanoseconds of each run."""
        if self._bound is None:
            raise LilliputError("burst before bind: there are no inputs to run on")
        times = np.empty(count, np.int64)
        with self._torch.inference_mode():
            for index in range(count):
                start = time.perf_counter_ns()
                self._module(*self._bound)
                times[index] = time.perf_counter_ns() - start
        return times

    def close(self) -> None:
        """Free the weights."""
        self._module = self._bound = None

    def _tensors(self, feeds: Sequence[Array]) -> list[Any]:
        return [self._torch.from_numpy(np.array(feed)) for feed in feeds]


def open_here(path: Path, target: Target) -> TorchSession:
    """Load the program in this process."""
    return TorchSession(path, target)


def _inputs(program: Any) -> tuple[TensorSpec, ...]:
    wanted = set(program.graph_signature.user_inputs)
    specs = []
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in wanted:
            value = node.meta["val"]
            shape = tuple(size if isinstance(size, int) else None for size in value.shape)
            dtype = str(value.dtype).removeprefix("torch.")
            specs.append(TensorSpec(name=node.name, shape=shape, dtype=dtype))
    return tuple(specs)


RUNTIMES.register("torch")(
    Hosted(
        "torch",
        "lilliput.runtimes.torch_eager",
        formats=(".pt2",),
        package="torch",
        install='pip install "lilliput[train]"',
        environment={"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"},
    )
)
