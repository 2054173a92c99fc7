"""Whole residual blocks or layers whose removal keeps every shape.

On small networks removing a block is the cut that pays in full: its time goes with its
multiply-adds, where narrower layers save less than they should.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from lilliput.errors import LilliputError, Refused, nearest
from lilliput.network import Network, flat_outputs
from lilliput.prune.edits import put_identity, remove_edit
from lilliput.prune.labels import Ledger
from lilliput.prune.trace import run, trace

Calls = Mapping[str, Sequence[tuple[Any, Any]]]
"""For each module path, in the order of their first end, the inputs and output of each call."""


@dataclass(frozen=True)
class Block:
    """A submodule that can be left out. `macs` are those that go with it, for one example."""

    path: str
    macs: int
    params: int


def removable_blocks(network: Network) -> dict[str, Block]:
    """Submodules that `nn.Identity` can stand in for, by path, in the order they run.

    Each takes one tensor and gives one of the same shape, and holds at least one layer that
    multiplies. The outermost count, but what is only a row of several such blocks is seen as these
    blocks; none lies within another. Each was tried: the network runs without it and its
    outputs keep their shapes.
    """
    calls, outputs = _calls(network)
    shapes = [tuple(tensor.shape) for tensor in outputs]
    ledger = trace(network)
    found: dict[str, Block] = {}
    twin = copy.deepcopy(network.module)
    for path, module in network.module.named_modules():
        if not path or any(path.startswith(f"{taken}.") for taken in found):
            continue
        macs = _macs_within(ledger, path, network)
        if not macs or not _fits(calls, path) or _is_row(calls, path, module):
            continue
        if _runs_without(network, twin, path, shapes):
            params = sum(p.numel() for p in module.parameters())
            found[path] = Block(path, macs, params)
    order = list(calls)
    return dict(sorted(found.items(), key=lambda item: order.index(item[0])))


def remove(network: Network, path: str) -> Network:
    """The network with `nn.Identity` in the place of the block at `path`.

    Raises:
        Refused: No such module, or the network does not keep its shapes without it.
    """
    known = dict(network.module.named_modules())
    if not path or path not in known:
        raise Refused(f"no block {path!r} in {network.name!r}", hint=nearest(path, known))
    before = flat_outputs(run(network, network.module, network.example()))
    module = copy.deepcopy(network.module)
    if not _runs_without(network, module, path, [tuple(t.shape) for t in before]):
        can = ", ".join(removable_blocks(network)) or "none"
        raise Refused(
            f"{network.name!r} does not keep its shapes without {path!r}",
            hint=f"blocks that can be removed: {can}",
        )
    put_identity(module, path)
    return network.edited(module, remove_edit(path))


def ranked(saved: Mapping[str, float], losses: Mapping[str, float], whole: float) -> list[str]:
    """Paths of blocks, the best to remove first: by time saved per loss added.

    Args:
        saved: What each removal saves, in ms (or any other measure of cost).
        losses: The loss of the network without the block.
        whole: The loss with all blocks.

    A block whose removal saves nothing comes last, whatever it costs. One whose removal lowers
    the loss counts as costing next to nothing.
    """
    least = 1e-3 * max(abs(whole), 1e-6)

    def worth(path: str) -> float:
        return saved[path] / max(losses[path] - whole, least) if saved[path] > 0 else saved[path]

    return sorted(saved, key=worth, reverse=True)


def _calls(network: Network) -> tuple[dict[str, list[tuple[Any, Any]]], tuple[Tensor, ...]]:
    """What every module takes and gives in one run, and the network's outputs."""
    paths = {id(part): path for path, part in network.module.named_modules()}
    calls: dict[str, list[tuple[Any, Any]]] = {}

    def note(part: nn.Module, inputs: Any, output: Any) -> None:
        if id(part) in paths:
            calls.setdefault(paths[id(part)], []).append((inputs, output))

    handle = register_module_forward_hook(note)
    try:
        outputs = run(network, network.module, network.example())
    finally:
        handle.remove()
    return calls, flat_outputs(outputs)


def _fits(calls: Calls, path: str) -> bool:
    """Whether every call takes one tensor and gives one of its shape and type."""
    return bool(calls.get(path)) and all(
        len(inputs) == 1
        and isinstance(inputs[0], Tensor)
        and isinstance(output, Tensor)
        and inputs[0].shape == output.shape
        and inputs[0].dtype == output.dtype
        for inputs, output in calls[path]
    )


def _is_row(calls: Calls, path: str, module: nn.Module) -> bool:
    """Whether it only hands a tensor through a row of parts, two of them blocks that fit.

    Seen by what runs, not by the class: the input of each part is the output of the one before.
    """
    parts = {f"{path}.{name}": child for name, child in module.named_children()}
    parts = {name: child for name, child in parts.items() if name in calls}
    if any(len(calls[name]) != 1 for name in [path, *parts]):
        return False
    links: list[Any] = [calls[path][0][0][0]]
    for name in parts:
        inputs, output = calls[name][0]
        if len(inputs) != 1 or inputs[0] is not links[-1]:
            return False
        links.append(output)
    if links[-1] is not calls[path][0][1]:
        return False
    if len(parts) == 1:
        return all(_fits(calls, name) and _is_row(calls, name, parts[name]) for name in parts)
    return sum(_fits(calls, n) for n, part in parts.items() if len(list(part.children()))) >= 2


def _macs_within(ledger: Ledger, path: str, network: Network) -> int:
    batch = int(network.example()[0].shape[0])
    inside = (c for c in ledger.costs if c.path == path or c.path.startswith(f"{path}."))
    return round(sum(cost.macs for cost in inside) / batch)


def _runs_without(
    network: Network, twin: nn.Module, path: str, shapes: Sequence[tuple[int, ...]]
) -> bool:
    """Try `nn.Identity` at `path` of a copy that is put right afterwards."""
    parent_path, _, name = path.rpartition(".")
    parent = twin.get_submodule(parent_path)
    held = parent._modules[name]
    parent._modules[name] = nn.Identity()
    try:
        with torch.no_grad():
            outputs = flat_outputs(run(network, twin, network.example()))
    except LilliputError:
        return False
    finally:
        parent._modules[name] = held
    return [tuple(tensor.shape) for tensor in outputs] == list(shapes)
