"""A trained torch network with all that a step must know about it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from lilliput.artifact import TensorSpec
from lilliput.preprocessing import IDENTITY, Preprocessing

Edit = Mapping[str, Any]
"""One structural change in JSON terms; `lilliput.prune.edits` replays it on a fresh network."""


@dataclass(frozen=True)
class Network:
    """A module in eval mode, what it takes and how pictures become that.

    Steps never change the network they are given: they `copy()` it and return another.
    `notes` are sentences about how it came in (a wrapper taken off, weights cast), for the user.
    `edits` lists every structural change since the user's own class built the module, so that a
    network whose widths no longer match that class can be rebuilt from the class, the edits and a
    plain state dict: no pickled code anywhere. `held` names the form that a step gave a parameter
    and that later trainings must keep: "zeros", "shared" or "fixed". `fixed` says why the module
    can be neither trained nor cut; "" where it can.
    """

    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    name: str = "network"
    preprocessing: Preprocessing = IDENTITY
    edits: tuple[Edit, ...] = field(default=())
    notes: tuple[str, ...] = ()
    held: Mapping[str, str] = field(default_factory=dict)
    fixed: str = ""

    def copy(self) -> Network:
        """A deep copy whose weights can be trained and cut freely."""
        return replace(self, module=copy.deepcopy(self.module))

    def edited(self, module: nn.Module, edit: Edit) -> Network:
        """The network after one structural change, which is remembered for replay."""
        return replace(self, module=module, edits=(*self.edits, edit))

    def example(self, batch: int = 2, *, seed: int = 0) -> tuple[Tensor, ...]:
        """Random inputs of the right shapes: integers for integer inputs, N(0, 1) otherwise."""
        generator = torch.Generator().manual_seed(seed)
        made = []
        for spec in self.inputs:
            shape = spec.concrete(batch)
            dtype = getattr(torch, spec.dtype)
            if dtype.is_floating_point:
                made.append(torch.randn(shape, generator=generator, dtype=dtype))
            else:
                made.append(torch.randint(0, 2, shape, generator=generator, dtype=dtype))
        return tuple(made)

    @property
    def fixed_batch(self) -> int | None:
        """The only batch size that the network takes; None where it is free."""
        return self.inputs[0].batch

    @property
    def params(self) -> int:
        """Number of trainable numbers; a parameter used twice counts once."""
        return sum(p.numel() for p in self.module.parameters())


def flat_outputs(outputs: Any) -> tuple[Tensor, ...]:
    """The tensors of any structure of outputs or arguments, in order.

    A tensor, or tuples, lists and mappings of such.
    """
    if isinstance(outputs, Tensor):
        return (outputs,)
    if isinstance(outputs, Mapping):
        return tuple(t for value in outputs.values() for t in flat_outputs(value))
    if isinstance(outputs, (tuple, list)):
        return tuple(t for value in outputs for t in flat_outputs(value))
    return ()


def output_names(outputs: Any) -> tuple[str, ...]:
    """A name for each tensor of `flat_outputs`: mapping keys are kept, others numbered."""
    if isinstance(outputs, Mapping):
        names: list[str] = []
        for key, value in outputs.items():
            inner = flat_outputs(value)
            names += [str(key)] if len(inner) == 1 else [f"{key}_{n}" for n in range(len(inner))]
        return tuple(names)
    tensors = flat_outputs(outputs)
    return ("output",) if len(tensors) == 1 else tuple(f"output_{n}" for n in range(len(tensors)))


def unwrap(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """Take off DataParallel, DistributedDataParallel and `torch.compile` wrappers.

    Returns the bare module and the names of the wrappers, outermost first.
    """
    removed: list[str] = []
    while True:
        inner = getattr(module, "_orig_mod", None)
        if isinstance(inner, nn.Module):
            removed.append("torch.compile")
            module = inner
            continue
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            removed.append(type(module).__name__)
            module = module.module
            continue
        return module, tuple(removed)


def unwrap_within(module: nn.Module) -> tuple[str, ...]:
    """Take the same wrappers off the modules inside, in place; what came off, and where."""
    removed: list[str] = []
    for path, part in list(module.named_modules()):
        for name, child in list(part.named_children()):
            bare, wrappers = unwrap(child)
            if wrappers:
                setattr(part, name, bare)
                place = f"{path}.{name}".removeprefix(".")
                removed += (f"{wrapper} of {place!r}" for wrapper in wrappers)
    return tuple(removed)
