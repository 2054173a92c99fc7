"""OpenVINO: reads the same ONNX and QDQ files. Lives in a child process.

On CPUs with bf16 units OpenVINO computes fp32 files in bf16 unless it is told not to, so the
precision is always set and what the library says it uses is recorded with every result.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.artifact import TensorSpec
from lilliput.data.dataset import Array
from lilliput.errors import LilliputError
from lilliput.runtimes.base import RUNTIMES, NodeTime
from lilliput.runtimes.hosted import Hosted
from lilliput.runtimes.opening import installed_version, with_samples
from lilliput.runtimes.quiet import quiet_telemetry
from lilliput.target import Target

PRECISIONS = ("f32", "bf16", "default")


class OpenVinoSession:
    """A compiled file; `burst` runs on preset tensors, which saves 35 to 55 µs a run."""

    def __init__(self, path: Path, target: Target) -> None:
        self._compiled, self.load_seconds = _compile(path, target)
        self.inputs = with_samples(path, [_spec(port) for port in self._compiled.inputs])
        self.outputs = tuple(_name(port) for port in self._compiled.outputs)
        self._request = self._compiled.create_infer_request()
        self._bound: Sequence[Array] | None = None
        self._others = False
        self.conditions: dict[str, Any] = {
            "runtime": "openvino",
            "version": installed_version("openvino"),
            "threads": target.threads,
            "precision": _hint(self._compiled),
            "precision_asked": target.precision,
            "pinned": False,
        }

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        """Inputs in the order of `inputs` → outputs in the order of `outputs`."""
        self._set(feeds)
        self._others = True
        self._request.infer()
        return [
            np.array(self._request.get_output_tensor(index).data)
            for index in range(len(self.outputs))
        ]

    def bind(self, feeds: Sequence[Array]) -> None:
        """Set the inputs that `burst` runs on."""
        self._set(feeds)
        self._bound, self._others = feeds, False

    def burst(self, count: int) -> NDArray[np.int64]:
        """Run `count` times on the bound inputs; (count,) nanoseconds of each run."""
        if self._bound is None:
            raise LilliputError("burst before bind: there are no inputs to run on")
        if self._others:
            self.bind(self._bound)
            self._request.infer()
        infer, clock = self._request.infer, time.perf_counter_ns
        times = np.empty(count, np.int64)
        for index in range(count):
            start = clock()
            infer()
            times[index] = clock() - start
        return times

    def close(self) -> None:
        """Free the compiled file."""
        self._request = self._compiled = None

    def _set(self, feeds: Sequence[Array]) -> None:
        import openvino

        for index, feed in enumerate(feeds):
            tensor = openvino.Tensor(np.ascontiguousarray(feed))
            self._request.set_input_tensor(index, tensor)


def open_here(path: Path, target: Target) -> OpenVinoSession:
    """Compile the file in this process."""
    return OpenVinoSession(path, target)


def profile_here(
    path: Path, target: Target, feeds: Sequence[Array], *, runs: int = 20
) -> list[NodeTime]:
    """Time per executed operator by OpenVINO's own counters, slowest first."""
    compiled, _ = _compile(path, target, PERF_COUNT=True)
    request = compiled.create_infer_request()
    totals: dict[str, list[float]] = {}
    facts: dict[str, Any] = {}
    import openvino

    for index, feed in enumerate(feeds):
        request.set_input_tensor(index, openvino.Tensor(np.ascontiguousarray(feed)))
    for _ in range(3):
        request.infer()
    for _ in range(runs):
        request.infer()
        for info in request.get_profiling_info():
            if info.status == openvino.ProfilingInfo.Status.EXECUTED:
                totals.setdefault(info.node_name, []).append(info.real_time.total_seconds())
                facts[info.node_name] = info
    nodes = [
        NodeTime(
            name=name,
            op=facts[name].node_type,
            seconds=float(np.median(times)),
            precision=_executed_precision(facts[name].exec_type),
            provider=facts[name].exec_type,
        )
        for name, times in totals.items()
    ]
    return sorted(nodes, key=lambda node: -node.seconds)


def _compile(path: Path, target: Target, **more: Any) -> tuple[Any, float]:
    quiet_telemetry()
    import openvino

    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": target.threads,
        "PERFORMANCE_HINT": "LATENCY",
        # A pinned thread cannot step aside for a neighbour: its times are the neighbour's.
        "ENABLE_CPU_PINNING": False,
        **more,
    }
    if target.precision != "default":
        settings["INFERENCE_PRECISION_HINT"] = target.precision
    start = time.perf_counter()
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    return compiled, time.perf_counter() - start


def _hint(compiled: Any) -> str:
    """What the library says it computes in ("f32", "bf16", ...)."""
    hint = compiled.get_property("INFERENCE_PRECISION_HINT")
    return str(hint.get_type_name() if hasattr(hint, "get_type_name") else hint)


def _executed_precision(exec_type: str) -> str:
    suffix = exec_type.rsplit("_", 1)[-1].lower()
    return {"i8": "int8", "u8": "int8", "f32": "fp32", "fp32": "fp32"}.get(suffix, suffix)


def _name(port: Any) -> str:
    names = port.get_names()
    return str(min(names)) if names else str(port.get_node().get_friendly_name())


def _spec(port: Any) -> TensorSpec:
    shape = tuple(
        dimension.get_length() if dimension.is_static else None
        for dimension in port.get_partial_shape()
    )
    dtype = np.dtype(port.get_element_type().to_dtype()).name
    return TensorSpec(name=_name(port), shape=shape, dtype=dtype)


RUNTIMES.register("openvino")(
    Hosted(
        "openvino",
        "lilliput.runtimes.ov",
        formats=(".onnx",),
        precisions=PRECISIONS,
        package="openvino",
        install='pip install "lilliput[openvino]"',
    )
)
