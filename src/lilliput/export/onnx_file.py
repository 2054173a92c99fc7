"""A torch network as an ONNX file that was checked, loaded, run and found equal."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from torch import nn

from lilliput.artifact import Artifact, ArtifactMetadata
from lilliput.data.dataset import Array
from lilliput.errors import LilliputError, Refused, VerificationFailed
from lilliput.export.expanding import unfold
from lilliput.export.naming import set_names
from lilliput.export.trace import (
    DYNAMO_OPSET,
    TORCHSCRIPT_OPSET,
    WRAPPER,
    CannotExportError,
    Exporter,
    convert,
    input_gaps,
    lowest_opset,
)
from lilliput.export.verify import Deviation, Probe, deviation, make_probes, output_shapes
from lilliput.graph import Graph
from lilliput.graph.tidy import tidy
from lilliput.network import Network
from lilliput.onnx_io import set_metadata, strip, write_model

if TYPE_CHECKING:
    from lilliput.tasks.base import Task


def export_network(
    network: Network,
    path: Path,
    *,
    metadata: ArtifactMetadata | None = None,
    opset: int | None = None,
    probe: Sequence[Array] = (),
    task: Task | None = None,
) -> Artifact:
    """Write the network as ONNX; nothing is written that was not found equal to torch.

    The file is self-contained and deterministic: batch-norm folded, constants computed, nodes and
    weights named by the path of their torch module, "batch" free where the input's batch is, the
    lowest opset that serves (13, or what an operator needs), our metadata inside. The fast
    TorchScript exporter goes first, torch.export's second; the first verified file is kept.

    Args:
        network: What to export; it is copied, never changed.
        path: Where to; it ends in ".onnx".
        metadata: Travels inside, inputs and version filled in; left out, the network's own
            preprocessing with them.
        opset: Insist on this one.
        probe: One batch of real network inputs, compared besides the random ones.
        task: Says how alike the outputs are in its own measure.

    Returns:
        The file, with exporter, opset, deviation and seconds in `facts`.

    Raises:
        VerificationFailed: no exporter gave a file that computes what torch computes.
        Refused: the network needs a higher opset than asked for.
    """
    started = time.perf_counter()
    module = copied_module(network)
    probes, names = make_probes(network, module, probe)
    model, facts = _first_verified(network, module, probes, names, opset, task)
    meta = completed_metadata(metadata, network)
    set_metadata(model, meta)
    onnx.checker.check_model(model)
    write_model(model, path)
    facts["export_seconds"] = time.perf_counter() - started
    return Artifact.of(path, metadata=meta).model_copy(update={"facts": facts})


def _first_verified(
    network: Network,
    module: nn.Module,
    probes: Sequence[Probe],
    names: Sequence[str],
    opset: int | None,
    task: Task | None,
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    failures: list[str] = []
    exporter: Exporter
    for exporter in ("torchscript", "dynamo"):
        try:
            model, used = _converted(network, module, probes[0], names, exporter, opset)
            tidied = _tidy(model, network, module, probes, names)
            found = deviation(tidied.SerializeToString(), probes, names, task=task)
        except CannotExportError as error:
            failures.append(str(error))
        except VerificationFailed as error:
            failures.append(f"{exporter} exporter: {error.thing}")
        except onnx.checker.ValidationError as error:
            failures.append(f"{exporter} exporter: invalid file: {str(error).splitlines()[0]}")
        else:
            return tidied, _facts(tidied, exporter, used, opset, found, failures)
    listing = "".join(f"\n  - {failure}" for failure in failures)
    raise VerificationFailed(
        f"network {network.name!r} could not be exported faithfully:{listing}",
        hint="a Python branch or a number taken from a tensor's shape in `forward` is the usual "
        "cause; write it with tensor operations",
    )


def _converted(
    network: Network,
    module: nn.Module,
    probe: Probe,
    names: Sequence[str],
    exporter: Exporter,
    wanted: int | None,
) -> tuple[onnx.ModelProto, int]:
    """The exporter's raw model at the lowest opset that serves, and that opset."""
    opset = lowest_opset(wanted)
    if exporter == "dynamo" and wanted is None:
        opset = DYNAMO_OPSET
    if exporter == "torchscript" and opset > TORCHSCRIPT_OPSET:
        raise CannotExportError(exporter, f"writes opset {TORCHSCRIPT_OPSET} at most")
    while True:
        try:
            model = convert(module, probe.inputs, network.inputs, names, exporter, opset)
        except CannotExportError as error:
            if error.needs is None or error.needs <= opset:
                raise
            if wanted is not None:
                raise Refused(
                    f"network {network.name!r} needs opset {error.needs}, and opset {wanted} "
                    f"was asked for ({error.reason})",
                    hint=f"ask for opset {error.needs}, or for none: the lowest that serves is "
                    "taken",
                ) from error
            opset = error.needs
        else:
            return model, opset


def _tidy(
    model: onnx.ModelProto,
    network: Network,
    module: nn.Module,
    probes: Sequence[Probe],
    names: Sequence[str],
) -> onnx.ModelProto:
    gaps = input_gaps(model, network.inputs)
    graph = Graph.of(model)
    order = {spec.name: place for place, spec in enumerate(network.inputs)}
    graph.inputs = sorted([*graph.inputs, *gaps], key=lambda value: order[value.name])
    for value, dims in zip(
        graph.outputs, output_shapes(network.inputs, probes, names), strict=True
    ):
        kind = value.type.tensor_type.elem_type
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, kind, dims))
    state = module.state_dict(keep_vars=True)

    def shared(a: str, b: str) -> bool:
        left, right = state.get(a.removeprefix(WRAPPER)), state.get(b.removeprefix(WRAPPER))
        if left is None or right is None:
            return True
        return bool(left.data_ptr() == right.data_ptr())

    tidy(graph, shared=shared)
    modules = [path for path, _ in module.named_modules()]
    set_names(graph, state, modules, WRAPPER)
    unfold(graph, module)
    tidied = graph.model()
    tidied.graph.name = network.name
    tidied.producer_name = "lilliput"
    tidied.producer_version = _version()
    strip(tidied)
    onnx.checker.check_model(tidied)
    return tidied


def _facts(
    model: onnx.ModelProto,
    exporter: Exporter,
    used: int,
    wanted: int | None,
    found: Deviation,
    failures: Sequence[str],
) -> dict[str, Any]:
    facts: dict[str, Any] = {"exporter": exporter, "opset": used, "nodes": len(model.graph.node)}
    if wanted is None and used != lowest_opset(None):
        facts["opset_reason"] = (
            "an operator of the network needs it"
            if exporter == "torchscript"
            else "the lowest that this exporter writes"
        )
    if failures:
        facts["rejected"] = list(failures)
    return facts | found.facts()


def copied_module(network: Network) -> nn.Module:
    """A copy of the network's module in eval mode.

    Raises:
        LilliputError: it holds something that cannot be copied.
    """
    try:
        return copy.deepcopy(network.module).eval()
    except (RuntimeError, TypeError) as error:
        raise LilliputError(
            f"network {network.name!r} cannot be copied: {error}",
            hint="does a module keep a computed tensor as an attribute? register it as a buffer",
        ) from error


def completed_metadata(metadata: ArtifactMetadata | None, network: Network) -> ArtifactMetadata:
    """The metadata with inputs and version filled in where it leaves them open.

    Whether the network's preprocessing is of any use, its examples decide: who gives metadata says.
    """
    given = metadata or ArtifactMetadata(preprocessing=network.preprocessing)
    return given.model_copy(
        update={
            "inputs": given.inputs or network.inputs,
            "version": given.version or _version(),
        }
    )


def _version() -> str:
    try:
        return version("lilliput")
    except PackageNotFoundError:
        return "0"
