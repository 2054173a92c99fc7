"""The reference evaluator of the onnx package: what a file means, operator by operator. Slow."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lilliput.artifact import Artifact, TensorSpec
from lilliput.data.dataset import Array, Dataset
from lilliput.data.form import form_of
from lilliput.errors import LilliputError
from lilliput.onnx_io import get_metadata, read_model
from lilliput.preprocessing import Preprocessing
from lilliput.runtimes.base import RUNTIMES, NodeTime, Session
from lilliput.runtimes.opening import check_feeds, installed_version, sampled
from lilliput.target import Target

if TYPE_CHECKING:
    from onnx import ModelProto


class ReferenceSession:
    """A file evaluated in numpy. Its times say nothing about any device."""

    def __init__(self, path: Path) -> None:
        start = time.perf_counter()
        self._evaluator = _evaluator(path)
        self.load_seconds = time.perf_counter() - start
        self.inputs, self.outputs = graph_specs(path)
        self.conditions: dict[str, Any] = {
            "runtime": "reference",
            "version": installed_version("onnx"),
            "threads": 1,
            "precision": "f32",
            "process": "own",
        }
        self._bound: list[Array] | None = None

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        """Inputs in the order of `inputs` → outputs in the order of `outputs`."""
        check_feeds(feeds, self.inputs)
        named = {spec.name: feed for spec, feed in zip(self.inputs, feeds, strict=True)}
        return [np.asarray(output) for output in self._evaluator.run(None, named)]

    def bind(self, feeds: Sequence[Array]) -> None:
        """Set the inputs that `burst` runs on."""
        check_feeds(feeds, self.inputs)
        self._bound = list(feeds)

    def burst(self, count: int) -> NDArray[np.int64]:
        """Run `count` times on the bound inputs; (count,) nanoseconds of each run."""
        if self._bound is None:
            raise LilliputError("burst before bind: there are no inputs to run on")
        times = np.empty(count, np.int64)
        for index in range(count):
            start = time.perf_counter_ns()
            self.run(self._bound)
            times[index] = time.perf_counter_ns() - start
        return times

    def close(self) -> None:
        """Nothing to free."""


class Reference:
    """Runs `.onnx` files by their specification, to judge the other runtimes by."""

    name = "reference"
    formats: tuple[str, ...] = (".onnx",)
    precisions: tuple[str, ...] = ("f32",)

    def unavailable(self) -> str | None:
        """None: onnx is part of the base install."""
        return None if installed_version("onnx") else "pip install onnx"

    def load(self, path: Path, target: Target) -> Session:  # noqa: ARG002  # the protocol's
        """Read the file; the target's threads do not matter."""
        try:
            return ReferenceSession(path)
        except Exception as error:
            raise LilliputError(
                f"the reference evaluator cannot load {path.name!r}: {error}", at=str(path)
            ) from error

    def profile(
        self,
        path: Path,  # noqa: ARG002  # the protocol's
        target: Target,  # noqa: ARG002  # the protocol's
        feeds: Sequence[Array],  # noqa: ARG002  # the protocol's
    ) -> list[NodeTime]:
        """Empty: numpy's times would mislead."""
        return []


def _evaluator(path: Path) -> Any:
    """onnx's evaluator, with what it lacks: DequantizeLinear below opset 19."""
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.ops import op_dequantize_linear

    versions = [n for n in vars(op_dequantize_linear) if n.startswith("DequantizeLinear_")]
    newest = max(versions, key=lambda name: int(name.rpartition("_")[2]))
    base = getattr(op_dequantize_linear, newest)
    dequantize = type("DequantizeLinear", (base,), {"op_domain": ""})
    model = read_model(path)
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    return ReferenceEvaluator(model, new_ops=[dequantize] if opset < 19 else None)


def graph_specs(path: Path) -> tuple[tuple[TensorSpec, ...], tuple[str, ...]]:
    """The inputs and output names that an ONNX file declares."""
    return model_specs(read_model(path))


def completed(
    artifact: Artifact, preprocessing: Preprocessing | None, data: Dataset | None
) -> Artifact:
    """An ONNX file with what one from elsewhere does not say about itself.

    Raises:
        Refused: Nobody says how the data's pictures become its input.
    """
    said = artifact.metadata
    form = preprocessing or (said.preprocessing if data is None else form_of(artifact, data))
    known = {"preprocessing": form, "inputs": said.inputs or graph_specs(artifact.path)[0]}
    return artifact.model_copy(update={"metadata": said.model_copy(update=known)})


def model_specs(model: ModelProto) -> tuple[tuple[TensorSpec, ...], tuple[str, ...]]:
    """The inputs and output names that a model declares, with its own sample shapes."""
    import onnx

    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    specs = []
    for value in graph.input:
        if value.name in constants:
            continue
        kind = value.type.tensor_type
        shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
        specs.append(TensorSpec(name=value.name, shape=shape, dtype=dtype))
    return sampled(get_metadata(model), specs), tuple(output.name for output in graph.output)


RUNTIMES.register("reference")(Reference())
