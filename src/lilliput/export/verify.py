"""Whether a file computes what its network computes: run both, compare, or deliver nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lilliput.artifact import TensorSpec
from lilliput.data.dataset import Array
from lilliput.errors import LilliputError, VerificationFailed
from lilliput.network import Network, flat_outputs, output_names
from lilliput.runtimes.quiet import quiet_telemetry

if TYPE_CHECKING:
    from lilliput.tasks.base import Task

RELATIVE_LIMIT, ABSOLUTE_FLOOR = 1e-4, 1e-6
"""A deviation may be this part of an output's largest value, plus the floor."""

PROBE_BATCHES = (2, 5)
"""Two batch sizes, neither of them 1: a batch that was baked into the file cannot fit both."""


@dataclass(frozen=True)
class Probe:
    """Inputs, what torch makes of them, and a word for them in messages."""

    inputs: tuple[Tensor, ...]
    expected: tuple[Array, ...]
    label: str

    @property
    def feeds(self) -> list[Array]:
        return [tensor.numpy() for tensor in self.inputs]


@dataclass(frozen=True)
class Deviation:
    """The largest differences over all probes and outputs; `relative` to an output's largest."""

    absolute: float
    relative: float
    agreement: tuple[str, float] | None = None

    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = {"max_abs_error": self.absolute, "max_rel_error": self.relative}
        if self.agreement is not None:
            found["agreement"] = {"measure": self.agreement[0], "value": self.agreement[1]}
        return found


def make_probes(
    network: Network, module: nn.Module, real: Sequence[Array] = ()
) -> tuple[list[Probe], tuple[str, ...]]:
    """Random inputs at two batch sizes (where free) and two sizes (where free), and real ones.

    Returns the probes and the names of the outputs.

    Raises:
        LilliputError: the network gives no tensor, or not a number.
    """
    inputs, label = network.example(PROBE_BATCHES[0]), f"random inputs, batch {PROBE_BATCHES[0]}"
    outputs = _run(network, module, inputs, label)
    names = output_names(outputs)
    if not names:
        raise LilliputError(f"network {network.name!r} gives no tensor, so there is no output")
    taken = {spec.name for spec in network.inputs}
    names = tuple(f"{name}_out" if name in taken else name for name in names)
    first = Probe(inputs, _arrays(network, outputs), label)
    _refuse_chance(network, first, _run(network, module, inputs, label))
    probes = [first]
    for inputs, label in _further(network, real):
        probes.append(Probe(inputs, _arrays(network, _run(network, module, inputs, label)), label))
    return probes, names


def deviation(
    content: bytes, probes: Sequence[Probe], names: Sequence[str], *, task: Task | None = None
) -> Deviation:
    """Load the file's bytes in ONNX Runtime, run every probe, compare with torch.

    Raises:
        VerificationFailed: it does not load or run, or deviates beyond the limit; the message
            names the output, the inputs and the largest error.
    """
    session = _session(content)
    inputs = [i.name for i in session.get_inputs()]
    worst = Deviation(0.0, 0.0)
    for probe in probes:
        try:
            got = session.run(None, dict(zip(inputs, probe.feeds, strict=True)))
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise VerificationFailed(f"the file does not run on {probe.label}: {reason}") from error
        for name, ours, expected in zip(names, got, probe.expected, strict=True):
            worst = _worse(worst, compare(name, ours, expected, probe.label))
        if task is not None and probe is probes[-1]:
            worst = replace(worst, agreement=task.agreement(got[0], probe.expected[0]))
    return worst


def output_shapes(
    specs: Sequence[TensorSpec], probes: Sequence[Probe], names: Sequence[str]
) -> list[list[int | str]]:
    """Dimensions of each output: a number where all probes agree, else "batch" or a symbol."""
    shapes: list[list[int | str]] = []
    free = any(spec.shape and spec.shape[0] is None for spec in specs)
    batches = [int(probe.inputs[0].shape[0]) for probe in probes]
    for position, name in enumerate(names):
        seen = [probe.expected[position].shape for probe in probes]
        dims: list[int | str] = []
        for axis, sizes in enumerate(zip(*seen, strict=True)):
            if free and axis == 0 and list(sizes) == batches:
                dims.append("batch")
            else:
                dims.append(sizes[0] if len(set(sizes)) == 1 else f"{name}_{axis}")
        shapes.append(dims)
    return shapes


def _run(network: Network, module: nn.Module, inputs: tuple[Tensor, ...], label: str) -> Any:
    with torch.no_grad():
        try:
            return module(*inputs)
        except Exception as error:
            raise LilliputError(
                f"network {network.name!r} does not run on {label}: {error}",
                hint="declare the input's shape as the network needs it: a number, not free, "
                "where it takes one size only",
            ) from error


def _further(network: Network, real: Sequence[Array]) -> Iterator[tuple[tuple[Tensor, ...], str]]:
    if any(spec.shape and spec.shape[0] is None for spec in network.inputs):
        batch = PROBE_BATCHES[1]
        yield network.example(batch, seed=1), f"random inputs, batch {batch}"
    other = _other_size(network)
    if other is not None:
        shape = "x".join(map(str, other.inputs[0].concrete(1)[1:]))
        yield other.example(1, seed=2), f"random inputs of size {shape}"
    if len(real):
        yield tuple(torch.from_numpy(np.ascontiguousarray(a)) for a in real), "real inputs"


def _arrays(network: Network, outputs: Any) -> tuple[Array, ...]:
    arrays = tuple(tensor.detach().numpy() for tensor in flat_outputs(outputs))
    if not all(np.isfinite(array).all() for array in arrays):
        raise LilliputError(
            f"network {network.name!r} gives values that are not finite",
            hint="look for NaN in its weights, or a division by zero",
        )
    return arrays


def _refuse_chance(network: Network, probe: Probe, again: Any) -> None:
    for value, second in zip(probe.expected, flat_outputs(again), strict=True):
        if not np.array_equal(value, second.detach().numpy()):
            raise LilliputError(
                f"network {network.name!r} gives two answers to one input, though in eval mode",
                hint="a dropout or noise in `forward` ignores `self.training`; a file cannot",
            )


def _other_size(network: Network) -> Network | None:
    """The network with free heights and widths made unequal, or None where none is free."""
    specs = []
    for spec in network.inputs:
        shape = list(spec.concrete(1))
        free = [axis for axis in range(1, len(shape)) if spec.shape[axis] is None]
        # Doubling keeps whatever divisibility the network needs; one axis alone shows a swap.
        for axis in free[:1]:
            shape[axis] *= 2
        specs.append(spec.model_copy(update={"sample": tuple(shape)}))
    if all(None not in spec.shape[1:] for spec in network.inputs):
        return None
    return replace(network, inputs=tuple(specs))


def _session(content: bytes) -> Any:
    quiet_telemetry()
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise VerificationFailed(f"ONNX Runtime does not load the file: {reason}") from error


def compare(name: str, ours: Array, expected: Array, label: str) -> Deviation:
    """How far one output of a file is from torch's.

    Raises:
        VerificationFailed: another shape, or beyond the limit.
    """
    if ours.shape != expected.shape:
        raise VerificationFailed(
            f"output {name!r} has shape {ours.shape} in the file and {expected.shape} in torch, "
            f"on {label}"
        )
    if not expected.size:
        return Deviation(0.0, 0.0)
    difference = np.abs(ours.astype(np.float64) - expected.astype(np.float64))
    worst, scale = float(difference.max()), float(np.abs(expected).max())
    if not worst <= RELATIVE_LIMIT * scale + ABSOLUTE_FLOOR:
        raise VerificationFailed(
            f"output {name!r} deviates from torch by {worst:.3g} (largest value {scale:.3g}), "
            f"on {label}"
        )
    return Deviation(worst, worst / max(scale, ABSOLUTE_FLOOR))


def _worse(a: Deviation, b: Deviation) -> Deviation:
    return Deviation(max(a.absolute, b.absolute), max(a.relative, b.relative), a.agreement)
