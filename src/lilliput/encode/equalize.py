"""Cross-layer equalization over the whole graph, residual streams included.

One scale quantizes all channels of an activation, so a channel that stays small gets few levels.
Scaling a channel up where it is made and down where it is read changes nothing in float, if only
positively homogeneous operators stand between. Source: Nagel et al., "Data-Free Quantization",
ICCV 2019, arXiv 1906.04721, section 4.1; by the ranges of activations as in Xiao et al.,
SmoothQuant, arXiv 2211.10438, section 4.

Differs: the sources equalize one layer with the next; here channels that additions,
concatenations and shared weights tie together are scaled together, so that whole residual streams
take part. Weights have a scale per output channel and need no equalizing themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from lilliput.data.dataset import Array
from lilliput.encode.execute import Execution, Feeds
from lilliput.encode.integers import to_rows
from lilliput.encode.layers import Layer, by_weight, layers_of, per_channel
from lilliput.graph import Graph, attributes
from lilliput.graph.affine import scaled
from lilliput.graph.shapes import inferred_shapes

if TYPE_CHECKING:
    import onnx

MOST = 64.0
"""No channel is scaled by more than this: what never fires carries no information on its range."""

HOMOGENEOUS = frozenset(
    ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity", "Dropout")
)


class Coupling:
    """Which channels of which tensors must be scaled alike (union-find), and which not at all."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.counts = _channel_counts(graph)
        self.ids: dict[str, Array] = {}
        self.parent: list[int] = []
        self.frozen: set[int] = set()
        for name in graph.input_names:
            self._freeze(self._fresh(name))
        for node in graph.nodes:
            self._visit(node)
        for name in graph.pinned:
            if name in self.ids:
                self._freeze(self.ids[name])
        self._share_weights()

    def groups(self, tensor: str) -> Array:
        """(C,) group of each channel; -1 where it may not be scaled."""
        roots = np.array([self._root(i) for i in self.ids[tensor]], np.int64)
        stuck = {self._root(i) for i in self.frozen}
        return np.where(np.isin(roots, list(stuck)), -1, roots)

    def _fresh(self, tensor: str, count: int | None = None) -> Array:
        size = self.counts.get(tensor, 0) if count is None else count
        ids = np.arange(len(self.parent), len(self.parent) + size)
        self.parent.extend(ids.tolist())
        self.ids[tensor] = ids
        return ids

    def _freeze(self, ids: Array) -> None:
        self.frozen.update(int(i) for i in ids)

    def _root(self, index: int) -> int:
        while self.parent[index] != index:
            self.parent[index] = self.parent[self.parent[index]]
            index = self.parent[index]
        return index

    def _tie(self, first: Array, second: Array) -> None:
        for a, b in zip(first, second, strict=True):
            self.parent[self._root(int(b))] = self._root(int(a))

    def _visit(self, node: onnx.NodeProto) -> None:
        op, inputs, outputs = node.op_type, list(node.input), list(node.output)
        known = self.ids.get(inputs[0]) if inputs else None
        if known is not None and self._passes(node, op, inputs, outputs, known):
            return
        if op in ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization"):
            weighted = all(self.graph.constants.get(i) is not None for i in inputs[1:] if i)
            norm = op == "BatchNormalization" and not self._alone({node.name}, inputs[1:3])
            fixed = op in ("ConvTranspose", "MatMul") or not weighted or norm or self._unusual(node)
            if fixed or op == "BatchNormalization":
                self._freeze_inputs(inputs)
            made = self._fresh(outputs[0])
            if fixed:
                self._freeze(made)
            return
        self._freeze_inputs(inputs)
        for name in outputs:
            self._freeze(self._fresh(name))

    def _unusual(self, node: onnx.NodeProto) -> bool:
        """A Gemm whose channels are not axis 1 of its input, or whose bias is not one of each."""
        if node.op_type != "Gemm":
            return False
        bias = self.graph.constants.get(node.input[2]) if len(node.input) > 2 else None
        count = self.counts.get(node.output[0], 0)
        return bool(attributes(node).get("transA")) or not (
            bias is None or per_channel(bias, count)
        )

    def _freeze_inputs(self, inputs: Iterable[str]) -> None:
        for name in inputs:
            if name in self.ids:
                self._freeze(self.ids[name])

    def _passes(
        self, node: onnx.NodeProto, op: str, inputs: list[str], outputs: list[str], known: Array
    ) -> bool:
        """Whether the node hands scaled channels on; the output's channels are then tied."""
        if op in HOMOGENEOUS:
            self.ids[outputs[0]] = known
            return True
        ways = {
            "Add": self._add,
            "Concat": self._concat,
            "Slice": self._slice,
            "Pad": self._pad,
            "Flatten": self._flatten,
            "DepthToSpace": self._shuffle,
        }
        made = ways[op](node, inputs, known) if op in ways and len(known) else None
        if made is not None:
            self.ids[outputs[0]] = made
        return made is not None

    def _add(self, _: onnx.NodeProto, inputs: list[str], known: Array) -> Array | None:
        other = self.ids.get(inputs[1])
        if other is None or len(other) != len(known):
            return None
        self._tie(known, other)
        return known

    def _concat(self, node: onnx.NodeProto, inputs: list[str], _: Array) -> Array | None:
        parts = [self.ids[name] for name in inputs if len(self.ids.get(name, ()))]
        whole = attributes(node).get("axis") == 1 and len(parts) == len(inputs)
        return np.concatenate(parts) if whole else None

    def _slice(self, _: onnx.NodeProto, inputs: list[str], known: Array) -> Array | None:
        axes = self.graph.constants.get(inputs[3]) if len(inputs) > 3 else None
        return None if axes is None or 1 in axes or (axes < 0).any() else known

    def _flatten(self, node: onnx.NodeProto, _: list[str], known: Array) -> Array | None:
        return known if self.counts.get(node.output[0]) == len(known) else None

    def _pad(self, node: onnx.NodeProto, inputs: list[str], known: Array) -> Array | None:
        pads = self.graph.constants.get(inputs[1]) if len(inputs) > 1 else None
        fill = self.graph.constants.get(inputs[2]) if len(inputs) > 2 and inputs[2] else np.zeros(1)
        if pads is None or fill is None or fill.any() or len(pads) < 4 or (pads < 0).any():
            return None
        before, after = int(pads[1]), int(pads[len(pads) // 2 + 1])
        empty = self._fresh(node.output[0], before + after)
        return np.concatenate([empty[:before], known, empty[before:]])

    def _shuffle(self, node: onnx.NodeProto, _: list[str], known: Array) -> Array | None:
        facts = attributes(node)
        square = int(facts["blocksize"]) ** 2
        if len(known) % square:
            return None
        crd = facts.get("mode", b"DCR") == b"CRD"
        parts = known.reshape(-1, square).T if crd else known.reshape(square, -1)
        for part in parts[1:]:
            self._tie(parts[0], part)
        return np.asarray(parts[0])

    def _share_weights(self) -> None:
        """Channels of layers that share a weight are scaled alike; none where others read it."""
        for sharing in by_weight(layers_of(self.graph)).values():
            first, *others = sharing
            nodes = {layer.node for layer in sharing}
            fixed = len({(x.op, x.axis) for x in sharing}) > 1 or first.op not in ("Conv", "Gemm")
            if fixed or not self._alone(nodes, [first.weight, *(x.bias for x in sharing)]):
                self._freeze_inputs(name for x in sharing for name in (x.input, x.output))
                continue
            for layer in others:
                for a, b in ((first.input, layer.input), (first.output, layer.output)):
                    if a in self.ids and b in self.ids and len(self.ids[a]) == len(self.ids[b]):
                        self._tie(self.ids[a], self.ids[b])

    def _alone(self, nodes: Collection[str], constants: Iterable[str]) -> bool:
        """Whether no other nodes read the constants."""
        return all(r.name in nodes for name in constants if name for r in self.graph.readers[name])


def channel_ranges(
    graph: Graph, tensors: Iterable[str], feeds: Feeds, *, threads: int = 1
) -> dict[str, Array]:
    """{tensor: (C,)} the largest magnitude of each channel, averaged over batches."""
    names = list(tensors)
    execution = Execution(graph.model(), names, threads=threads)
    sums: dict[str, Array] = {}
    count = 0
    for values in execution.over(feeds):
        count += 1
        for name in names:
            value = values[name]
            if value.ndim < 2:
                continue
            axes = tuple(axis for axis in range(value.ndim) if axis != 1)
            largest = np.abs(value).max(axis=axes).astype(np.float64)
            sums[name] = sums.get(name, 0.0) + largest
    return {name: total / max(count, 1) for name, total in sums.items()}


def column_sizes(graph: Graph, layer: Layer) -> Array:
    """(C,) largest weight that reads each input channel, as a share of its row's largest."""
    rows = to_rows(graph.weights(layer.weight), layer.axis).astype(np.float64)
    share = np.abs(rows) / np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-30)
    if layer.op != "Conv":
        return np.asarray(share.max(axis=0))
    per_group = graph.weights(layer.weight).shape[1]
    taps = share.reshape(layer.groups, -1, share.shape[1] // per_group, per_group)
    return np.asarray(taps.max(axis=(1, 2)).reshape(-1))


def equalizing_scales(
    graph: Graph, coupling: Coupling, ranges: Mapping[str, Array], *, strength: float = 0.5
) -> dict[int, float]:
    """{group: factor}: channels with small ranges and large weights grow, the others shrink.

    With strength 1/2 the range of a channel (as a share of its tensor's) and the weights that
    read it (as a share of their rows') become equal, as in the source. A group that several
    tensors hold takes the geometric mean of what they ask for.
    """
    wanted: dict[int, list[float]] = {}
    held: dict[int, list[float]] = {}
    for tensor, sizes in ranges.items():
        _wish(coupling, tensor, sizes, wanted)
    for layer in layers_of(graph):
        if layer.op in ("Conv", "Gemm"):
            _wish(coupling, layer.input, column_sizes(graph, layer), held)
    most = np.log(MOST)
    factors: dict[int, float] = {}
    for group, logs in wanted.items():
        wish = float(np.mean(logs)) - float(np.mean(held.get(group, [0.0])))
        factors[group] = float(np.exp(strength * np.clip(wish, -most, most)))
    return factors


def _wish(coupling: Coupling, tensor: str, sizes: Array, into: dict[int, list[float]]) -> None:
    """Note the log of how far below the tensor's largest each channel's size lies."""
    top = float(sizes.max()) if sizes.size else 0.0
    if tensor not in coupling.ids or len(coupling.ids[tensor]) != len(sizes) or top <= 0:
        return
    for group, size in zip(coupling.groups(tensor), sizes, strict=True):
        if group >= 0 and size > 0:
            into.setdefault(int(group), []).append(float(np.log(top / size)))


def equalize(graph: Graph, factors: Mapping[int, float], coupling: Coupling) -> Graph:
    """The same function with every coupled channel multiplied by its factor inside the graph."""
    after = graph.copy()
    done: set[str] = set()

    def factor_of(tensor: str) -> Array | None:
        groups = coupling.groups(tensor) if tensor in coupling.ids else ()
        found = np.array([factors.get(int(g), 1.0) for g in groups])
        return None if (found == 1.0).all() else found

    for layer in layers_of(graph):
        ins, outs = factor_of(layer.input), factor_of(layer.output)
        if layer.op not in ("Conv", "Gemm"):
            continue
        if layer.weight not in done:
            done.add(layer.weight)
            after.constants[layer.weight] = _rescaled(graph, layer, ins=ins, outs=outs)
        if layer.bias and layer.bias not in done and outs is not None:
            done.add(layer.bias)
            bias = graph.weights(layer.bias)
            after.constants[layer.bias] = (bias * outs).astype(bias.dtype)
    for node in graph.nodes:
        outs = factor_of(node.output[0]) if node.op_type == "BatchNormalization" else None
        if outs is None:
            continue
        for name in node.input[1:3]:
            value = graph.weights(name)
            after.constants[name] = (value * outs).astype(value.dtype)
    return after


def equalized(
    graph: Graph,
    tensors: Iterable[str],
    feeds: Feeds,
    *,
    strength: float = 0.5,
    threads: int = 1,
) -> Graph:
    """Measure the channels of `tensors` and equalize them: the whole of this module in one call."""
    coupling = Coupling(graph)
    ranges = channel_ranges(graph, tensors, feeds, threads=threads)
    return equalize(graph, equalizing_scales(graph, coupling, ranges, strength=strength), coupling)


def scale_float_inputs(
    graph: Graph,
    layers: Iterable[Layer],
    ranges: Mapping[str, Array],
    *,
    strength: float = 0.5,
) -> Graph:
    """The same function with a per-channel scale in front of layers that a float operator feeds.

    After a GELU or the like no scale can be moved back through, so an explicit one is put there
    (a batch norm, which runtimes fold into their layouts), and the layer's weights undo it. It
    is for layers whose input float operators make anyhow: elsewhere it would break int8 apart.
    """
    after = graph.copy()
    for layer in layers:
        sizes = ranges.get(layer.input)
        if layer.op != "Conv" or sizes is None or layer.input in graph.input_names:
            continue
        if len(graph.readers[layer.weight]) > 1 or not sizes.size or sizes.max() <= 0:
            continue
        held = column_sizes(graph, layer)
        want = np.log(sizes.max() / np.maximum(sizes, sizes.max() / MOST))
        have = np.log(held.max() / np.maximum(held, held.max() / MOST))
        factors = np.exp(strength * (want - have))
        _insert_scale(after, layer, factors)
        after.constants[layer.weight] = _rescaled(graph, layer, ins=factors)
    return after


def _insert_scale(graph: Graph, layer: Layer, factors: Array) -> None:
    from onnx import helper

    result = graph.fresh(f"{layer.input}_scaled_for_{layer.path}")
    count = len(factors)
    values = {"scale": factors, "shift": np.zeros(count), "mean": np.zeros(count)}
    values["var"] = np.ones(count)
    names = []
    for part, value in values.items():
        names.append(graph.fresh(f"{result}_{part}"))
        graph.constants[names[-1]] = value.astype(np.float32)
    norm = helper.make_node(
        "BatchNormalization", [layer.input, *names], [result], name=f"{result}_norm", epsilon=0.0
    )
    node = graph.named[layer.node]
    node.input[0] = result
    graph.insert(norm, node)


def _rescaled(
    graph: Graph, layer: Layer, *, ins: Array | None = None, outs: Array | None = None
) -> Array:
    """The layer's weight times its outputs' factors, over its inputs' factors."""
    weight = graph.weights(layer.weight)
    wide = scaled(
        weight,
        graph.named[layer.node],
        outs=outs,
        ins=None if ins is None else 1.0 / ins,
    )
    return wide.astype(weight.dtype)


def _channel_counts(graph: Graph) -> dict[str, int]:
    """{tensor: size of axis 1} of the tensors with two or more axes whose size is known."""
    return {
        name: shape[1]
        for name, shape in inferred_shapes(graph).items()
        if len(shape) >= 2 and isinstance(shape[1], int)
    }
