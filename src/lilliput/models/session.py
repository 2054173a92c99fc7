"""A torch network behind the interface of a loaded file, so that one evaluation loop scores both.

What comes out steers searches and trainings; a figure that a user sees is taken from a file.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lilliput.artifact import TensorSpec
from lilliput.context import Context
from lilliput.data.dataset import Array, Split
from lilliput.meter.accuracy import answers_of, score_file
from lilliput.network import Network, flat_outputs, output_names


class TorchSession:
    """Runs the module eagerly, in eval mode, without gradients."""

    def __init__(self, network: Network) -> None:
        self.inputs: tuple[TensorSpec, ...] = network.inputs
        self.load_seconds = 0.0
        self.conditions: dict[str, Any] = {"runtime": "torch eager", "estimated": True}
        self._module = network.module.eval()
        self._bound: tuple[torch.Tensor, ...] = network.example(1)
        with torch.no_grad():
            self.outputs = output_names(self._module(*self._bound))

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        self.bind(feeds)
        with torch.no_grad():
            return [t.detach().numpy() for t in flat_outputs(self._module(*self._bound))]

    def bind(self, feeds: Sequence[Array]) -> None:
        self._bound = tuple(torch.from_numpy(np.ascontiguousarray(feed)) for feed in feeds)

    def burst(self, count: int) -> NDArray[Any]:
        taken = np.zeros(count, np.int64)
        with torch.no_grad():
            for n in range(count):
                began = time.perf_counter_ns()
                self._module(*self._bound)
                taken[n] = time.perf_counter_ns() - began
        return taken

    def close(self) -> None:
        """Nothing to free."""


def scores_in_torch(network: Network, split: Split, context: Context) -> NDArray[np.float64]:
    """One score per example, from the torch network: to steer by, not to report."""
    with closing(TorchSession(network)) as session:
        return score_file(
            session, context.task, split, network.preprocessing, layout=context.data.layout
        )


def with_answers(split: Split, network: Network, context: Context) -> Split:
    """The split; where its examples have no truth, with the torch network's own in its place."""
    if split.targets is not None:
        return split
    how, layout = network.preprocessing, context.data.layout
    with closing(TorchSession(network)) as session:
        return Split(split.inputs, answers_of(session, context.task, split, how, layout=layout))
