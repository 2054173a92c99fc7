"""What a search may want small: the loss of quality, and costs that are counted or measured.

Counted costs are estimates that steer; of what is delivered, files are measured. Latency is always
measured, on the target, by the process that drives the search, while nothing else of it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from lilliput.codec.bill import GRAPH, HEADER
from lilliput.codec.container import encode
from lilliput.context import Context
from lilliput.export.onnx_file import export_network
from lilliput.graph.affine import VERSION
from lilliput.network import Network
from lilliput.prune.analysis import Analysis, op_macs
from lilliput.search.genomes import Variant
from lilliput.search.grids import FLOAT

Counted = Literal["params", "macs", "bops", "bytes", "coded_bytes"]

UNITS = {
    "params": "",
    "macs": "MACs",
    "bops": "bit operations",
    "bytes": "B",
    "coded_bytes": "B",
    "latency": "of the original's",
}
SCALE_BITS = 16
"""What the scale of a channel is taken to cost in a coded file."""


Axes = tuple[NDArray[np.int64], ...]
"""Of a weight: the class of each index along each of its axes, -1 where it is no channel."""


@dataclass(frozen=True)
class Counter:
    """Costs of variants, from the analysis of the original and, for coded bytes, their weights.

    `weights` are those in the original's file, see `weights_in`. `overhead_bytes` and
    `coded_overhead_bytes` are the graph's, in the file and in its packed form: the same for all
    variants.
    """

    analysis: Analysis
    weights: tuple[Axes, ...]
    overhead_bytes: int = 0
    coded_overhead_bytes: int = 0

    def of(self, variant: Variant, network: Network) -> dict[str, float]:
        """{cost: value} of all that are counted.

        Args:
            variant: What was changed.
            network: The changed network.
        """
        return {
            "params": float(self.analysis.params(variant.gone)),
            "macs": float(self.analysis.macs(variant.gone)),
            "bops": self.bops(variant),
            "bytes": self.file_bytes(variant),
            "coded_bytes": coded_bytes(network, variant.weight_bits) + self.coded_overhead_bytes,
        }

    def bops(self, variant: Variant) -> float:
        """Multiply-adds, each times the bits of its weight times those of its input."""
        keep = self.analysis.keeping(variant.gone)
        return sum(
            op_macs(cost, keep)
            * variant.weight_bits.get(cost.path, FLOAT)
            * variant.activation_bits.get(cost.path, FLOAT)
            for cost in self.analysis.costs
        )

    def file_bytes(self, variant: Variant) -> float:
        """Length of the float file: 4 bytes for each number in it, and what does not change."""
        keep = self.analysis.keeping(variant.gone)
        numbers = sum(int(np.prod([keep[axis].sum() for axis in axes])) for axes in self.weights)
        return 4.0 * numbers + self.overhead_bytes


def counter_of(network: Network, analysis: Analysis) -> Counter:
    """The counter of a network's variants, by what its own file holds."""
    content = float_file(network)
    weights = weights_in(onnx.load_model_from_string(content), analysis)
    overhead = len(content) - Counter(analysis, weights).file_bytes(Variant())
    parts = encode(content)[1].parts
    return Counter(analysis, weights, round(overhead), parts.get(GRAPH, 0) + parts.get(HEADER, 0))


def weights_in(file: onnx.ModelProto, analysis: Analysis) -> tuple[Axes, ...]:
    """The classes along each axis of the weights in the file of the network that was analysed.

    The file decides, for which norms are folded hangs on what lies around them: a folded one has
    left a bias as long as its layer is wide, whether or not that had one; others are there whole.
    """
    axes = {t.name: tuple(analysis.slots[n].classes for n in t.slots) for t in analysis.tensors}
    outputs = {layer.weight: layer.outputs for layer in analysis.layers}
    for node in file.graph.node:
        width = outputs.get(_unversioned(node.input[1])) if len(node.input) == 3 else None
        if width is not None:
            axes[_unversioned(node.input[2])] = (width,)
    names = [_unversioned(tensor.name) for tensor in file.graph.initializer]
    return tuple(axes[name] for name in names if name in axes)


def _unversioned(name: str) -> str:
    return name.split(VERSION)[0]


def float_file(network: Network) -> bytes:
    """The network's float file."""
    with TemporaryDirectory(prefix="lilliput-search-") as folder:
        return export_network(network, Path(folder) / "network.onnx").path.read_bytes()


def coded_bytes(network: Network, bits: Mapping[str, int]) -> float:
    """What an entropy coder needs for the weights, by the frequencies of their values alone.

    Weights on a grid: the entropy of their levels, and a scale a channel. Others: the entropy of
    sign and exponent, and 23 bits for the rest.
    """
    total = 0.0
    for name, parameter in network.module.named_parameters():
        values = parameter.detach().float().cpu()
        path, _, kind = name.rpartition(".")
        count = bits.get(path, FLOAT) if kind == "weight" else FLOAT
        total += grid_bits(values) if count < FLOAT else float_bits(values.numpy())
    return total / 8


def grid_bits(weight: torch.Tensor) -> float:
    """Bits for weights on a grid with a step for each output channel, (outputs, ...)."""
    flat = weight.flatten(1)
    nonzero = torch.where(flat == 0, torch.inf, flat.abs())
    step = nonzero.amin(1, keepdim=True)
    levels = torch.where(flat == 0, 0.0, torch.round(flat / step))
    return entropy_bits(levels.numpy()) + SCALE_BITS * len(flat)


def float_bits(values: NDArray[np.float32]) -> float:
    """Bits for float32 numbers whose last 23 bits are noise."""
    heads = np.ascontiguousarray(values).view(np.uint32) >> 23
    return entropy_bits(heads) + 23.0 * values.size


def entropy_bits(symbols: NDArray[np.generic]) -> float:
    """Bits of all symbols, integers of a small range, under an ideal code for their frequencies.

    >>> entropy_bits(np.array([0, 0, 1, 1]))
    4.0
    """
    if not symbols.size:
        return 0.0
    whole = np.asarray(symbols).astype(np.int64).ravel()
    counts = np.bincount(whole - whole.min())
    counts = counts[counts > 0]
    shares = counts / counts.sum()
    return float(-(counts * np.log2(shares)).sum()) + 0.0


def measured_latencies(
    networks: Mapping[str, Network], original: Network, context: Context
) -> dict[str, float]:
    """{key: time as a share of the original's}, each as its faster file, side by side."""
    from lilliput.search.probe import probe

    if not networks:
        return {}
    return {key: price.ratio for key, price in probe(networks, original, context).items()}


def widths_key(analysis: Analysis, gone: Sequence[int]) -> str:
    """Names the shapes of a variant: equal names take equal time, whatever the weights."""
    keep = analysis.keeping(gone)
    return ",".join(str(int(keep[slot.classes].sum())) for slot in analysis.slots)
