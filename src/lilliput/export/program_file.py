"""A torch network as a `.pt2`, the file of the runtime `torch`."""

from __future__ import annotations

import inspect
import io
from pathlib import Path
from typing import Any

import torch

from lilliput.artifact import Artifact, ArtifactMetadata
from lilliput.atomic import write_atomically
from lilliput.errors import LilliputError, VerificationFailed
from lilliput.export.onnx_file import completed_metadata, copied_module
from lilliput.export.trace import axis_names, quietly
from lilliput.export.verify import compare, make_probes
from lilliput.network import Network, flat_outputs
from lilliput.pt2_io import check_program, tensors_only


def export_pt2(
    network: Network, path: Path, *, metadata: ArtifactMetadata | None = None
) -> Artifact:
    """Write the network as an exported program; opened again and compared with torch eager.

    Free dimensions stay free where the program allows it. The file cannot carry our metadata, so
    only the returned artifact does.

    Raises:
        LilliputError: another suffix, or torch.export cannot follow the network.
        VerificationFailed: the file computes something else.
    """
    if path.suffix != ".pt2":
        raise LilliputError(f"an exported program ends in .pt2, not {path.name!r}")
    module = copied_module(network)
    probes, names = make_probes(network, module)
    auto = torch.export.Dim.AUTO
    shapes = tuple(dict.fromkeys(axis_names(spec), auto) for spec in network.inputs)
    try:
        with quietly(), torch.no_grad():
            program = torch.export.export(
                module, probes[0].inputs, dynamic_shapes=_by_parameter(module, shapes)
            )
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise LilliputError(
            f"torch.export cannot follow network {network.name!r}: {reason}",
            hint="a Python branch on values in `forward` is the usual cause",
        ) from error
    write_atomically(path, _saved(program))
    try:
        check_program(path)
        with tensors_only(), quietly():
            again = torch.export.load(str(path)).module()
        for probe in probes:
            with torch.no_grad():
                got = [t.detach().numpy() for t in flat_outputs(again(*probe.inputs))]
            for name, ours, expected in zip(names, got, probe.expected, strict=True):
                compare(name, ours, expected, probe.label)
    except (LilliputError, RuntimeError, AssertionError) as error:
        path.unlink(missing_ok=True)
        raise VerificationFailed(
            f"the program of network {network.name!r} is not faithful: {error}"
        ) from error
    return Artifact.of(path, metadata=completed_metadata(metadata, network))


def _by_parameter(module: torch.nn.Module, shapes: tuple[Any, ...]) -> tuple[Any, ...]:
    """torch.export wants the shapes of `*inputs` nested once more than those of named ones."""
    first = next(iter(inspect.signature(module.forward).parameters.values()))
    return (shapes,) if first.kind is first.VAR_POSITIONAL else shapes


def _saved(program: Any) -> bytes:
    """The archive without stack traces, which name the user's folders, and without the time."""
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()
