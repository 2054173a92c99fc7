"""Scripted machines and small files to measure."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lilliput.meter.layer_nets import layer_chain
from lilliput.runtimes.null import NullSession, VirtualClock

FEED = [np.zeros((1, 1), np.float32)]


class NoisyMachine:
    """Scripted sessions on a machine with drift, slow regimes, jitter and rare long stalls."""

    def __init__(
        self, seed: int, *, jitter: float = 0.06, stalls: float = 0.03, regime: float = 0.05
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.clock = VirtualClock()
        self._jitter, self._stalls, self._regime = jitter, stalls, regime
        self._state, self._then = 0.0, 0.0

    def session(self, milliseconds: float) -> NullSession:
        session = NullSession(times=self._times(milliseconds * 1e6), clock=self.clock)
        session.bind(FEED)
        return session

    def _times(self, nanoseconds: float) -> Callable[[int], np.ndarray]:
        def times(count: int) -> np.ndarray:
            now = self.clock()
            kept = np.exp(-(now - self._then) / 0.05)
            self._then = now
            shock = self._regime * self.rng.standard_normal()
            self._state = kept * self._state + np.sqrt(1 - kept**2) * shock
            level = nanoseconds * (1 + 0.1 * np.sin(0.5 * now)) * np.exp(self._state)
            own = (
                self._jitter * 0.7 * (self.rng.standard_normal(count) + self.rng.standard_normal())
            )
            stalled = self.rng.random(count) < self._stalls
            factor = np.where(stalled, 1 + self.rng.pareto(1.5, count), 1.0)
            return (level * np.exp(own) * factor).astype(np.int64)

        return times


@pytest.fixture
def noisy_machine() -> type[NoisyMachine]:
    return NoisyMachine


@pytest.fixture
def chain(tmp_path: Path) -> Callable[..., Path]:
    """Writes a `layer_chain` and gives its path."""

    def write(width: int, kind: str, precision: str = "fp32", **settings: int) -> Path:
        path = tmp_path / f"{kind}_{width}_{precision}.onnx"
        onnx.save(layer_chain(width, kind, precision, **settings), str(path))
        return path

    return write


@pytest.fixture
def classifier(tmp_path: Path) -> Callable[..., Path]:
    """A file that answers with its inputs' three channel means, for batches of a given size."""

    def write(batch: int | None = None) -> Path:
        graph = helper.make_graph(
            [
                helper.make_node("GlobalAveragePool", ["x"], ["p"]),
                helper.make_node("Flatten", ["p"], ["f"]),
                helper.make_node("MatMul", ["f", "w"], ["y"], name="head"),
            ],
            "means",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch or "n", 3, 4, 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch or "n", 3])],
            [numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")],
        )
        opsets = [helper.make_opsetid("", 17)]
        path = tmp_path / f"classifier_{batch}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
        return path

    return write
