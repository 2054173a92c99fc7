"""torch's two ONNX exporters behind one call, silenced, with their refusals made readable.

The TorchScript exporter is about twenty times faster; the newer one (torch.export) takes networks
that the first cannot trace. Neither is trusted: what they write is tidied, run and compared.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from lilliput.artifact import TensorSpec
from lilliput.errors import LilliputError, Refused
from lilliput.network import flat_outputs
from lilliput.onnx_io import MAX_BYTES

Exporter = Literal["torchscript", "dynamo"]

LOWEST_OPSET, DEFAULT_OPSET, TORCHSCRIPT_OPSET, HIGHEST_OPSET = 11, 13, 20, 23
DYNAMO_OPSET = 18
"""What the newer exporter writes natively; it lowers by conversion, which may fail."""

WRAPPER = "net."
"""The prefix under which the exporters see the network's own names."""


class CannotExportError(Exception):
    """One exporter's refusal; `needs` is the opset that would do, where it says so."""

    def __init__(self, exporter: Exporter, reason: str, needs: int | None = None) -> None:
        super().__init__(f"{exporter} exporter: {reason}")
        self.exporter, self.reason, self.needs = exporter, reason, needs


class Flat(nn.Module):
    """A network whose outputs, however nested, come out as a flat tuple of tensors."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return flat_outputs(self.net(*inputs))


def convert(
    module: nn.Module,
    example: tuple[Tensor, ...],
    specs: Sequence[TensorSpec],
    outputs: Sequence[str],
    exporter: Exporter,
    opset: int,
) -> onnx.ModelProto:
    """The module as the exporter writes it, raw, with our names for inputs and outputs.

    Raises:
        CannotExportError: the exporter failed; nothing was printed.
    """
    run = _torchscript if exporter == "torchscript" else _dynamo
    buffer = io.BytesIO()
    try:
        with quietly(), torch.no_grad():
            run(Flat(module).eval(), example, specs, list(outputs), opset, buffer)
    except (KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:  # whatever a layer provokes
        raise _reason(exporter, error) from error
    content = buffer.getvalue()
    if len(content) > MAX_BYTES:
        raise Refused("the network is larger than the 2 GiB that an ONNX file can hold")
    model = onnx.load_model_from_string(content)
    _check_sound(model, exporter)
    return model


def lowest_opset(wanted: int | None) -> int:
    """The opset to begin with: what was asked for, else 13 (per-channel scales exist from there).

    Raises:
        LilliputError: outside of what can be written.
    """
    if wanted is None:
        return DEFAULT_OPSET
    if not LOWEST_OPSET <= wanted <= HIGHEST_OPSET:
        raise LilliputError(
            f"opset {wanted} cannot be written",
            hint=f"choose one from {LOWEST_OPSET} to {HIGHEST_OPSET}, or leave it out",
        )
    return wanted


def _torchscript(
    module: nn.Module,
    example: tuple[Tensor, ...],
    specs: Sequence[TensorSpec],
    outputs: list[str],
    opset: int,
    buffer: io.BytesIO,
) -> None:
    # Folding is left to us: the exporter's own renames every weight that it touches.
    torch.onnx.export(
        module,
        example,
        buffer,  # type: ignore[arg-type]  # the TorchScript exporter takes streams
        dynamo=False,
        opset_version=opset,
        input_names=[spec.name for spec in specs],
        output_names=outputs,
        dynamic_axes={spec.name: axis_names(spec) for spec in specs if axis_names(spec)},
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,
    )


def _dynamo(
    module: nn.Module,
    example: tuple[Tensor, ...],
    specs: Sequence[TensorSpec],
    outputs: list[str],
    opset: int,
    buffer: io.BytesIO,
) -> None:
    auto = torch.export.Dim.AUTO
    shapes = tuple(dict.fromkeys(axis_names(spec), auto) for spec in specs)
    program = torch.onnx.export(
        module,
        example,
        dynamo=True,
        opset_version=max(opset, DYNAMO_OPSET),
        input_names=[spec.name for spec in specs],
        output_names=outputs,
        dynamic_shapes=(shapes,),
        optimize=True,
        verbose=False,
    )
    if program is None:
        raise CannotExportError("dynamo", "gave no program")
    model = program.model_proto
    if opset < DYNAMO_OPSET:
        model = onnx.version_converter.convert_version(model, opset)
    buffer.write(model.SerializeToString())


def axis_names(spec: TensorSpec) -> dict[int, str]:
    """{axis: symbol} of the free dimensions; the batch has one symbol for all inputs."""
    named = {2: "height", 3: "width"} if len(spec.shape) == 4 else {}
    return {
        axis: "batch" if axis == 0 else f"{spec.name}_{named.get(axis, axis)}"
        for axis, size in enumerate(spec.shape)
        if size is None
    }


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """No warnings, prints or log lines of the exporters; attention without its fused short cut.

    The fused path of nn.MultiheadAttention in eval mode has no ONNX counterpart.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    names = ("torch.onnx", "torch.export", "torch._dynamo", "onnxscript", "onnx_ir")
    before = {name: logging.getLogger(name).level for name in names}
    sink = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(sink),
        contextlib.redirect_stderr(sink),
    ):
        warnings.simplefilter("ignore")
        for name in names:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        torch.backends.mha.set_fastpath_enabled(False)
        # The TorchScript exporter prints its graph past Python's streams when it gives up.
        native: Any = torch._C
        native_log = getattr(native, "_jit_onnx_log", None)
        native._jit_onnx_log = lambda *_: None
        try:
            yield
        finally:
            native._jit_onnx_log = native_log
            torch.backends.mha.set_fastpath_enabled(fast)
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


def _reason(exporter: Exporter, error: Exception) -> CannotExportError:
    if isinstance(error, CannotExportError):
        return error
    text = str(error)
    needs = re.search(r"was added in version (\d+)", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = next((line for line in lines if "not supported" in line), lines[0] if lines else "")
    reason = re.sub(r"^<class '[\w.]+'>:\s*", "", telling) or type(error).__name__
    return CannotExportError(exporter, reason[:300], int(needs[1]) if needs else None)


def _check_sound(model: onnx.ModelProto, exporter: Exporter) -> None:
    foreign = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    if foreign and not model.functions:
        raise CannotExportError(
            exporter, f"wrote operators that only it knows ({', '.join(foreign)})"
        )


def input_gaps(model: onnx.ModelProto, specs: Sequence[TensorSpec]) -> list[Any]:
    """Declarations of the inputs that the exporter left out because the network ignores them."""
    present = {value.name for value in model.graph.input}
    made = []
    for spec in specs:
        if spec.name in present:
            continue
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
        symbols = axis_names(spec)
        dims = [symbols.get(axis, size) for axis, size in enumerate(spec.shape)]
        made.append(onnx.helper.make_tensor_value_info(spec.name, kind, dims))
    return made
