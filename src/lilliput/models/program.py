"""A `.pt2` of `torch.export` as a network: a fixed graph with its weights, and no class."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lilliput.artifact import TensorSpec
from lilliput.errors import Refused
from lilliput.models.inputs import run_once
from lilliput.network import Network
from lilliput.preprocessing import IDENTITY, Preprocessing
from lilliput.pt2_io import check_program, tensors_only

LIMITS = (
    "an exported program is a fixed graph in eval mode: it can be exported to ONNX, quantized, "
    "measured and be a teacher; steps that train or cut need the class that built it"
)


class Program(nn.Module):
    """The graph as a module that can be put into either mode, of which it knows only eval."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    def train(self, mode: bool = True) -> Program:
        """Only the flag changes: the graph was fixed when it was exported."""
        self.training = mode
        return self

    def forward(self, *inputs: Tensor) -> Any:
        return self.graph(*inputs)


def open_program(path: Path, *, preprocessing: Preprocessing = IDENTITY) -> Network:
    """The program in the file, checked before torch may touch it.

    Raises:
        LilliputError: no such file, or no `.pt2`.
        Refused: something in it could run code, it takes keyword arguments, or it does not run.
    """
    check_program(path)
    with tensors_only():
        try:
            program = torch.export.load(str(path))
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
            raise Refused(
                f"torch {torch.__version__} cannot open {str(path)!r}: {reason}",
                hint="export the program again with this version of torch",
            ) from error
    inputs = _inputs(program, path)
    module = Program(_graph(program)).eval()
    run_once(module, inputs, batch=1 if inputs[0].shape[0] is None else int(inputs[0].shape[0]))
    notes = [LIMITS]
    if inputs[0].shape[0] is not None:
        notes.append(f"its batch is fixed at {inputs[0].shape[0]}, as it was exported")
    return Network(module, inputs, path.stem, preprocessing, notes=tuple(notes), fixed=LIMITS)


def _graph(program: Any) -> nn.Module:
    # Newer versions of torch add a guard that tracing cannot follow; shapes are checked by us.
    guarded = "check_guards" in inspect.signature(program.module).parameters
    graph: nn.Module = program.module(check_guards=False) if guarded else program.module()
    return graph


def _inputs(program: Any, path: Path) -> tuple[TensorSpec, ...]:
    examples, keywords = program.example_inputs or ((), {})
    if keywords:
        raise Refused(
            f"{str(path)!r} takes keyword arguments ({', '.join(keywords)})",
            hint="export it with positional inputs only",
        )
    wanted = list(program.graph_signature.user_inputs)
    values = {n.name: n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"}
    specs = []
    for place, name in enumerate(wanted):
        value = values.get(name)
        if not isinstance(value, Tensor):
            raise Refused(f"{str(path)!r} takes {name!r}, which is no tensor")
        shape = tuple(size if isinstance(size, int) else None for size in value.shape)
        sample = tuple(examples[place].shape) if place < len(examples) else None
        dtype = str(value.dtype).removeprefix("torch.")
        specs.append(TensorSpec(name=name, shape=shape, dtype=dtype, sample=sample))
    return tuple(specs)
