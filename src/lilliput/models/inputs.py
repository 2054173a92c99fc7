"""What a network takes: told, read off the data, and proven by running it once."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lilliput.artifact import TensorSpec
from lilliput.data.dataset import SPLITS, Array, Dataset, Split
from lilliput.errors import LilliputError, Refused
from lilliput.network import Network, flat_outputs
from lilliput.preprocessing import Preprocessing

if TYPE_CHECKING:
    from lilliput.tasks.base import Task

Specs = tuple[TensorSpec, ...]


def inputs_from_data(
    data: Dataset, preprocessing: Preprocessing, task: Task | None = None
) -> Specs:
    """Inputs of the shape of the data's first example; unnamed, the batch free.

    Raises:
        LilliputError: the data has no examples.
    """
    split = _first_split(data)
    if task is not None:
        batch = next(iter(task.batches(split, preprocessing, 1, layout=data.layout)))
        arrays: Sequence[Array] = batch.inputs
    elif data.layout == "image":
        picture = np.asarray(split.inputs[0])
        size = preprocessing.size or picture.shape[:2]
        arrays = [np.zeros((1, preprocessing.channels, *size), np.float32)]
    else:
        arrays = [np.asarray(split.inputs[0])[None]]
    return tuple(
        TensorSpec(
            name="",
            shape=(None, *array.shape[1:]),
            dtype="float32" if array.dtype.kind == "f" else str(array.dtype),
            sample=(1, *array.shape[1:]),
        )
        for array in arrays
    )


def channels_of(data: Dataset) -> int:
    """Channels of the data's first picture."""
    picture = np.asarray(_first_split(data).inputs[0])
    return int(picture.shape[-1]) if picture.ndim == 3 else 1


@dataclass(frozen=True)
class Proven:
    """Inputs that the module was seen to take, and sentences on what it does not."""

    inputs: Specs
    notes: tuple[str, ...] = ()


def prove_inputs(module: nn.Module, specs: Specs) -> Proven:
    """Run the module once at batch 1, then see whether batch and picture size are free.

    Unnamed inputs get the names of `forward`'s parameters. Height and width become free where the
    output is a picture whose size follows the input's, as in super-resolution; a classifier keeps
    the size that it was given, which runtimes are faster with.

    Raises:
        Refused: it does not run, with the shape and the layer that failed.
    """
    named = _named(module, specs)
    outputs = run_once(module, named)
    if not outputs:
        raise Refused(
            "the network gives no tensor",
            hint="`forward` returns a tensor, or a tuple, list or dictionary of tensors",
        )
    fixed, notes = _fixed_batch(module, named)
    if not fixed and _size_is_free(module, named, outputs):
        named = tuple(_with_free_size(spec) for spec in named)
    return Proven(fixed or named, notes)


def run_once(module: nn.Module, specs: Specs, *, batch: int = 1) -> tuple[Tensor, ...]:
    """The outputs on random inputs of these shapes.

    Raises:
        Refused: with the inputs' shapes, the layer that failed and what it said.
    """
    inputs = Network(module, specs).example(batch)
    path: list[str] = []
    try:
        with _entered(module) as path, torch.no_grad():
            return flat_outputs(module(*inputs))
    except Exception as error:
        shapes = ", ".join(f"{s.name} {tuple(x.shape)}" for s, x in zip(specs, inputs, strict=True))
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        layer = f" in layer {path[-1]!r}" if path and path[-1] else ""
        raise Refused(
            f"the network does not run on {shapes}:{layer} {reason}",
            hint="give the shape it was trained on with --input-shape (batch first), and "
            "see that the preprocessing's channels and size are those of its first layer",
        ) from error


def _first_split(data: Dataset) -> Split:
    for name in ("validation", *SPLITS):
        split: Split = getattr(data, name)
        if len(split):
            return split.head(1)
    raise LilliputError(
        f"the data {data.name!r} has no examples to read the input's shape from",
        hint="give it with --input-shape, e.g. 1x3x32x32",
    )


def _named(module: nn.Module, specs: Specs) -> Specs:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    own = [p.name for p in inspect.signature(module.forward).parameters.values() if p.kind in kinds]
    given = {spec.name for spec in specs if spec.name}
    names = []
    for place, spec in enumerate(specs):
        name = spec.name or (own[place] if place < len(own) else "")
        if not name or (not spec.name and name in given):
            name = "input" if len(specs) == 1 else f"input_{place}"
        names.append(name)
    return tuple(s.model_copy(update={"name": n}) for s, n in zip(specs, names, strict=True))


def _fixed_batch(module: nn.Module, specs: Specs) -> tuple[Specs, tuple[str, ...]]:
    """The inputs with a batch of 1 where the module takes no other, else nothing."""
    if all(spec.shape[:1] != (None,) for spec in specs):
        return (), ()
    try:
        run_once(module, specs, batch=3)
    except Refused as error:
        fixed = tuple(s.model_copy(update={"shape": (1, *s.shape[1:])}) for s in specs)
        return fixed, (f"the network takes one example at a time: {error.thing}",)
    return (), ()


def _size_is_free(module: nn.Module, specs: Specs, outputs: tuple[Tensor, ...]) -> bool:
    if any(len(spec.shape) != 4 for spec in specs) or any(o.dim() != 4 for o in outputs):
        return False
    if any(None in spec.shape[1:] for spec in specs):
        return False
    try:
        others = run_once(module, tuple(_taller(spec) for spec in specs))
    except Refused:
        return False
    pairs = list(zip(outputs, others, strict=True))
    return all(o.shape[2] != p.shape[2] and o.shape[3] == p.shape[3] for o, p in pairs)


def _taller(spec: TensorSpec) -> TensorSpec:
    # Doubling keeps whatever divisibility the network needs.
    batch, channels, height, width = spec.concrete(1)
    shape = (spec.shape[0], spec.shape[1], height * 2, width)
    return spec.model_copy(update={"shape": shape, "sample": (batch, channels, height * 2, width)})


def _with_free_size(spec: TensorSpec) -> TensorSpec:
    shape = (*spec.shape[:2], None, None)
    return spec.model_copy(update={"shape": shape, "sample": spec.concrete(1)})


@contextlib.contextmanager
def _entered(module: nn.Module) -> Iterator[list[str]]:
    """The paths of the modules that are running, outermost first; kept when one fails."""
    stack: list[str] = []
    handles: list[Any] = []
    for path, part in module.named_modules():

        def enter(_: nn.Module, __: Any, path: str = path) -> None:
            stack.append(path)

        def leave(_: nn.Module, __: Any, ___: Any) -> None:
            stack.pop()

        handles += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
    try:
        yield stack
    finally:
        for handle in handles:
            handle.remove()
