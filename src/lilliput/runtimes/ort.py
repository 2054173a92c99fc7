"""ONNX Runtime: the default target. Runs in our own process; its threads sleep between runs.

Settings: no spinning after a run (two sessions that spin fight over the cores: a comparison of a
file with itself then shows 0.7 to 1.4), one operator at a time, all graph optimizations.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lilliput.artifact import TensorSpec
from lilliput.data.dataset import Array
from lilliput.errors import LilliputError
from lilliput.runtimes.base import RUNTIMES, NodeTime, Session
from lilliput.runtimes.opening import check_feeds, installed_version, with_samples
from lilliput.runtimes.quiet import quiet_telemetry
from lilliput.target import Target

if TYPE_CHECKING:
    import onnx

PROVIDERS = ["CPUExecutionProvider"]
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
}


class OrtSession:
    """A loaded file. `burst` runs on bound inputs, so that only the run itself is timed."""

    def __init__(self, path: Path, target: Target) -> None:
        self._session, self.load_seconds = _start(path, _options(target))
        self.inputs = with_samples(path, [_spec(i) for i in self._session.get_inputs()])
        self.outputs = tuple(output.name for output in self._session.get_outputs())
        self.conditions: dict[str, Any] = {
            "runtime": "onnxruntime",
            "version": installed_version("onnxruntime"),
            "threads": target.threads,
            "precision": "f32",
            "optimization": "all",
            "process": "own",
        }
        self._binding: Any = None
        self._bound: list[Array] = []

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        """Inputs in the order of `inputs` → outputs in the order of `outputs`."""
        check_feeds(feeds, self.inputs)
        named = {spec.name: feed for spec, feed in zip(self.inputs, feeds, strict=True)}
        return list(self._session.run(None, named))

    def bind(self, feeds: Sequence[Array]) -> None:
        """Set the inputs that `burst` runs on; they are kept until the next call."""
        check_feeds(feeds, self.inputs)
        self._bound = [np.ascontiguousarray(feed) for feed in feeds]
        binding = self._session.io_binding()
        for spec, feed in zip(self.inputs, self._bound, strict=True):
            binding.bind_cpu_input(spec.name, feed)
        for name in self.outputs:
            binding.bind_output(name)
        self._binding = binding

    def burst(self, count: int) -> NDArray[np.int64]:
        """Run `count` times on the bound inputs; (count,) nanoseconds of each run."""
        if self._binding is None:
            raise LilliputError("burst before bind: there are no inputs to run on")
        run, binding, clock = (
            self._session.run_with_iobinding,
            self._binding,
            time.perf_counter_ns,
        )
        times = np.empty(count, np.int64)
        for index in range(count):
            start = clock()
            run(binding)
            times[index] = clock() - start
        return times

    def close(self) -> None:
        """Free the session's memory and threads."""
        self._session = self._binding = None
        self._bound = []


class OnnxRuntime:
    """Runs `.onnx` files on the CPU provider of ONNX Runtime."""

    name = "onnxruntime"
    formats: tuple[str, ...] = (".onnx",)
    precisions: tuple[str, ...] = ("f32",)

    def unavailable(self) -> str | None:
        """None when it can be used, else the command that installs it."""
        return None if installed_version("onnxruntime") else "pip install onnxruntime"

    def load(self, path: Path, target: Target) -> Session:
        """Load the file; raises `LilliputError` with the library's own words if it cannot."""
        return open_here(path, target)

    def profile(self, path: Path, target: Target, feeds: Sequence[Array]) -> list[NodeTime]:
        """Median seconds of each operator of the optimized graph over 20 runs, slowest first."""
        return profile_here(path, target, feeds)


def open_here(path: Path, target: Target) -> OrtSession:
    """Load the file in this process."""
    return OrtSession(path, target)


def profile_here(
    path: Path, target: Target, feeds: Sequence[Array], *, runs: int = 20, warmup: int = 3
) -> list[NodeTime]:
    """Time per operator by ORT's own profiler; (its bookkeeping adds about 1 µs an operator)."""
    with tempfile.TemporaryDirectory(prefix="lilliput-") as folder:
        options = _options(target)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session, _ = _start(path, options)
        inputs = [_spec(i) for i in session.get_inputs()]
        check_feeds(feeds, inputs)
        named = {spec.name: feed for spec, feed in zip(inputs, feeds, strict=True)}
        for _ in range(warmup + runs):
            session.run(None, named)
        events = json.loads(Path(session.end_profiling()).read_text())
    return _node_times(events, warmup=warmup)


def optimized_graph(path: Path, target: Target) -> onnx.ModelProto:
    """The graph that ONNX Runtime really runs here: fused, folded, laid out for this CPU."""
    import onnx

    with tempfile.TemporaryDirectory(prefix="lilliput-") as folder:
        saved = Path(folder) / "optimized.onnx"
        options = _options(target)
        options.optimized_model_filepath = str(saved)
        _start(path, options)
        return onnx.load(str(saved))


def _options(target: Target) -> Any:
    quiet_telemetry()
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = target.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _start(path: Path, options: Any) -> tuple[Any, float]:
    """The library's session and the seconds that it took to make."""
    import onnxruntime as ort

    start = time.perf_counter()
    try:
        session = ort.InferenceSession(str(path), options, providers=PROVIDERS)
    except Exception as error:
        raise LilliputError(
            f"onnxruntime cannot load {path.name!r}: {str(error).strip().splitlines()[0]}",
            at=str(path),
            hint="run onnx.checker on the file; an opset newer than the runtime knows is the "
            "usual cause",
        ) from error
    return session, time.perf_counter() - start


def _spec(value: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in value.shape)
    dtype = _DTYPES.get(value.type, value.type.removeprefix("tensor(").removesuffix(")"))
    return TensorSpec(name=value.name, shape=shape, dtype=dtype)


def _node_times(events: Sequence[dict[str, Any]], *, warmup: int) -> list[NodeTime]:
    """Profile events → one median per node, the first `warmup` runs of each left out."""
    micros: dict[str, list[float]] = defaultdict(list)
    facts: dict[str, dict[str, Any]] = {}
    for event in events:
        name = event.get("name", "")
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        key = name.removesuffix("_kernel_time")
        micros[key].append(float(event["dur"]))
        facts[key] = event.get("args", {})
    nodes = [
        NodeTime(
            name=key,
            op=facts[key].get("op_name", ""),
            seconds=float(np.median(durations[warmup:] or durations)) * 1e-6,
            precision=_precision(facts[key]),
            provider=facts[key].get("provider", ""),
        )
        for key, durations in micros.items()
    ]
    return sorted(nodes, key=lambda node: -node.seconds)


def _precision(facts: dict[str, Any]) -> str:
    """What the operator computes in: int8 if its first input is an 8-bit tensor."""
    first: dict[str, Any] = next(iter(facts.get("input_type_shape", [])), {})
    kind = next(iter(first), "float")
    return {"uint8": "int8", "int8": "int8", "float16": "fp16", "float": "fp32"}.get(kind, kind)


RUNTIMES.register("onnxruntime")(OnnxRuntime())
