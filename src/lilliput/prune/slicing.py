"""The exact cut: slice every tensor, and make the modules' own notes of their widths agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from lilliput.errors import LilliputError

Removal = tuple[str, int, int, tuple[int, ...]]
"""Tensor name, dimension, its size before, and the indices that go, ascending."""


def slice_module(module: nn.Module, removals: Iterable[Removal]) -> None:
    """Take indices out of parameters and buffers of `module`, in place.

    A tensor that is shared stays shared. Attributes that repeat a width (`out_channels`,
    `num_features`, `groups` of a depthwise convolution, ...) follow.

    Raises:
        LilliputError: A tensor is missing or has another size than the removal says.
    """
    by_tensor: dict[str, list[Removal]] = {}
    for removal in removals:
        by_tensor.setdefault(removal[0], []).append(removal)
    holders = _holders(module)
    changed: dict[int, tuple[str, nn.Module]] = {}
    depthwise = {id(part) for part in module.modules() if _is_depthwise(part)}
    for name, cuts in by_tensor.items():
        tensor = _find(module, name)
        smaller = _sliced(tensor, cuts)
        for path, owner, key in holders[id(tensor)]:
            if isinstance(tensor, nn.Parameter):
                owner._parameters[key] = smaller  # type: ignore[assignment]
            else:
                owner._buffers[key] = smaller
            fitted = _parametrized(module, path)
            changed[id(fitted)] = (path, fitted)
    for _, part in changed.values():
        _fit_attributes(part, depthwise=id(part) in depthwise)
    for part in module.modules():
        if isinstance(part, fx.GraphModule):
            _fit_graph(part)


def _find(module: nn.Module, name: str) -> Tensor:
    path, _, key = name.rpartition(".")
    try:
        owner = module.get_submodule(path)
    except AttributeError:
        owner = None
    tensor = None if owner is None else {**owner._parameters, **owner._buffers}.get(key)
    if tensor is None:
        raise LilliputError(
            f"the network has no tensor {name!r}",
            hint="these edits were made on a network of another class or configuration",
        )
    return tensor


def _sliced(tensor: Tensor, cuts: list[Removal]) -> Tensor:
    smaller = tensor.detach()
    for name, dim, size, gone in cuts:
        if dim >= tensor.dim() or tensor.shape[dim] != size or (gone and gone[-1] >= size):
            raise LilliputError(
                f"{name!r} has shape {tuple(tensor.shape)}, and the edit expects {size} in "
                f"dimension {dim}",
                hint="these edits were made on a network of another class or configuration",
            )
        keep = torch.ones(size, dtype=torch.bool)
        keep[list(gone)] = False
        smaller = smaller.index_select(dim, keep.nonzero().flatten().to(tensor.device))
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(smaller.contiguous(), requires_grad=tensor.requires_grad)
    return smaller.contiguous()


def _holders(module: nn.Module) -> Mapping[int, list[tuple[str, nn.Module, str]]]:
    """Every place that holds a tensor, by the tensor's id."""
    found: dict[int, list[tuple[str, nn.Module, str]]] = {}
    for path, part in module.named_modules():
        for key, tensor in [*part._parameters.items(), *part._buffers.items()]:
            if tensor is not None:
                found.setdefault(id(tensor), []).append((path, part, key))
    return found


def _parametrized(module: nn.Module, path: str) -> nn.Module:
    """The layer that a parametrization belongs to; any other module is itself."""
    head, found, _ = path.partition(".parametrizations.")
    if not found:
        head = path.removesuffix(".parametrizations")
    return module.get_submodule(head)


_Conv = nn.modules.conv._ConvNd
_Transposed = nn.modules.conv._ConvTransposeNd
_Norms = (nn.modules.batchnorm._NormBase,)


def _is_depthwise(part: nn.Module) -> bool:
    return isinstance(part, _Conv) and part.groups > 1 and part.groups == part.in_channels


def _fit_attributes(part: Any, *, depthwise: bool) -> None:
    """Make the widths that a module of torch's own remembers agree with its tensors."""
    if isinstance(part, _Conv):
        _fit_convolution(part, depthwise=depthwise)
    elif isinstance(part, nn.Linear):
        part.out_features, part.in_features = part.weight.shape
    elif isinstance(part, _Norms):
        held = part.weight if part.weight is not None else part.running_mean
        if held is not None:
            part.num_features = len(held)
    elif isinstance(part, nn.GroupNorm):
        if part.num_groups == part.num_channels:
            part.num_groups = len(part.weight)
        part.num_channels = len(part.weight)
    elif isinstance(part, nn.PReLU):
        part.num_parameters = len(part.weight)
    elif isinstance(part, nn.Embedding):
        part.num_embeddings, part.embedding_dim = part.weight.shape


def _fit_convolution(part: Any, *, depthwise: bool) -> None:
    first, second = part.weight.shape[:2]
    if isinstance(part, _Transposed):
        part.in_channels = first
        part.groups = first if depthwise else part.groups
        part.out_channels = second * part.groups
        return
    if depthwise:
        part.groups = first * part.groups // part.out_channels
    part.out_channels, part.in_channels = first, second * part.groups


_GRAPH_CONVS = {getattr(torch.ops.aten, name).default: 6 for name in ("conv1d", "conv2d", "conv3d")}


def _fit_graph(graph_module: fx.GraphModule) -> None:
    """Depthwise convolutions of an exported program hold their width as a number in the graph."""
    touched = False
    for node in graph_module.graph.nodes:
        place = _GRAPH_CONVS.get(node.target) if node.op == "call_function" else None
        if place is None or len(node.args) <= place or node.args[1].op != "get_attr":
            continue
        weight = _find(graph_module, node.args[1].target)
        if weight.shape[1] == 1 and node.args[place] > weight.shape[0]:
            node.update_arg(place, int(weight.shape[0]))
            touched = True
    if touched:
        graph_module.recompile()
