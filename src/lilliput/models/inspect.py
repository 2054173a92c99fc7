"""What a network is made of, what of it can be cut, and what cannot and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from torch import nn

from lilliput.artifact import TensorSpec
from lilliput.columns import aligned
from lilliput.network import Network
from lilliput.noun import Noun
from lilliput.prune.analysis import Analysis, Group, op_macs
from lilliput.prune.blocks import removable_blocks
from lilliput.prune.groups import analyse


class LayerRow(Noun):
    """One module with parameters of its own, or whose operation multiplies. For one example."""

    path: str
    kind: str
    weight: tuple[int, ...]
    params: int
    macs: int
    group: str | None = None


class GroupRow(Noun):
    """Channels that can only go together: `free` of `width` may go; `reasons` hold the others."""

    name: str
    width: int
    free: int
    layers: tuple[str, ...]
    reasons: tuple[str, ...] = ()


class BlockRow(Noun):
    """A submodule that can be left out whole, with what goes with it."""

    path: str
    params: int
    macs: int


class Inspection(Noun):
    """A network's parts; `str()` is the text for a terminal, `model_dump()` the JSON."""

    name: str
    inputs: tuple[TensorSpec, ...]
    params: int
    macs: int
    layers: tuple[LayerRow, ...]
    groups: tuple[GroupRow, ...]
    frozen: tuple[GroupRow, ...]
    blocks: tuple[BlockRow, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def inspect_network(network: Network, analysis: Analysis | None = None) -> Inspection:
    """Layers with their parameters and multiply-adds, groups, blocks; the network is only run.

    Args:
        network: What to look at.
        analysis: Of this network, if there is one already; making it takes most of the time.

    Raises:
        LilliputError: it does not run on inputs of its own declared shapes.
    """
    found = analyse(network) if analysis is None else analysis
    held = [group for group in found.groups if group not in found.prunable]
    return Inspection(
        name=network.name,
        inputs=network.inputs,
        params=network.params,
        macs=found.macs(),
        layers=tuple(_layers(network.module, found)),
        groups=tuple(_group(group) for group in found.prunable),
        frozen=tuple(_group(group) for group in held),
        blocks=tuple(
            BlockRow(path=b.path, params=b.params, macs=b.macs)
            for b in removable_blocks(network).values()
        ),
        notes=network.notes,
    )


def _group(group: Group) -> GroupRow:
    return GroupRow(
        name=group.name,
        width=group.width,
        free=len(group.classes),
        layers=group.layers,
        reasons=group.reasons,
    )


def _layers(module: nn.Module, analysis: Analysis) -> Iterator[LayerRow]:
    """In the order of the module's tree; a parameter with two owners counts at the first."""
    whole = analysis.keeping()
    macs: Counter[str] = Counter()
    for cost in analysis.costs:
        macs[cost.path] += round(op_macs(cost, whole))
    group_of = _groups_by_weight(analysis.groups)
    counted: set[int] = set()
    for path, part in module.named_modules():
        own = dict(part.named_parameters(recurse=False))
        if not own and path not in macs:
            continue
        weight = own.get("weight", next(iter(own.values()), None))
        fresh = [p for p in own.values() if id(p) not in counted]
        counted.update(map(id, fresh))
        name = f"{path}.weight" if path else "weight"
        yield LayerRow(
            path=path,
            kind=type(part).__name__,
            weight=() if weight is None else tuple(weight.shape),
            params=sum(p.numel() for p in fresh),
            macs=macs[path],
            group=group_of.get(name),
        )


def _groups_by_weight(groups: Iterable[Group]) -> dict[str, str]:
    """{tensor: the group of its first dimension}: the channels that a layer gives."""
    return {
        member.tensor: group.name for group in groups for member in group.members if not member.dim
    }


def _lines(found: Inspection) -> Iterator[str]:
    shapes = ", ".join(f"{s.name} {'×'.join(_size(n) for n in s.shape)}" for s in found.inputs)
    yield f"{found.name}: {found.params:,} parameters, {found.macs:,} multiply-adds"
    yield f"takes {shapes}"
    yield from (f"note: {note}" for note in found.notes)
    yield ""
    rows = [("layer", "kind", "weight", "parameters", "multiply-adds")]
    rows += [
        (r.path or "(itself)", r.kind, "×".join(map(str, r.weight)), f"{r.params:,}", f"{r.macs:,}")
        for r in found.layers
    ]
    yield from aligned(rows, right=(3, 4))
    yield ""
    yield f"{len(found.groups)} groups of channels can be cut"
    for group in found.groups:
        yield f"  {group.name}: {group.free} of {group.width}, in {_some(group.layers)}"
        yield from (f"    the others stay: {reason}" for reason in group.reasons)
    yield f"{len(found.frozen)} are frozen"
    for group in found.frozen:
        yield f"  {group.name}: {group.width}, in {_some(group.layers)}"
        yield from (f"    {reason}" for reason in group.reasons)
    yield f"{len(found.blocks)} blocks can be left out"
    for block in found.blocks:
        yield f"  {block.path}: {block.params:,} parameters, {block.macs:,} multiply-adds"


def _size(size: int | None) -> str:
    return "any" if size is None else str(size)


def _some(layers: tuple[str, ...]) -> str:
    shown = ", ".join(layer or "the network itself" for layer in layers[:6])
    return shown if len(layers) <= 6 else f"{shown} and {len(layers) - 6} more"
