"""Weights and activations on grids of few bits, in torch: what a search judges and a file keeps.

Weights: symmetric, a scale for each output channel, 2ᵏ - 1 levels of k bits, zero among them; the
scale is the best of a few in squared error. Activations: one scale for a layer's input, from the
range that the original shows; unsigned where nothing is negative.

Source: DoReFa-Net (arXiv 1606.06160) for straight-through rounding. Differs: DoReFa's grid has no
zero and rescales every layer to 1, which breaks a pretrained network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lilliput.distill.companions import Companion
from lilliput.errors import LilliputError
from lilliput.network import Network
from lilliput.prune.grids import limit_of
from lilliput.prune.trace import evaluating

FLOAT = 32
SHRINKS = 40
"""Scales that are tried, from a quarter of the largest weight up."""

PATIENCE = 20
"""Steps of a training between two searches for scales."""


def best_scales(weight: Tensor, bits: int) -> Tensor:
    """The step between levels for each output channel, (outputs, 1, ...), by squared error.

    Args:
        weight: (outputs, ...).
        bits: 2 or more.
    """
    flat = weight.detach().flatten(1)
    largest = flat.abs().amax(1, keepdim=True).clamp_min(1e-12)
    best, error = largest / limit_of(bits), torch.full_like(largest, torch.inf)
    for share in np.linspace(0.25, 1.0, SHRINKS):
        scale = largest * float(share) / limit_of(bits)
        off = (rounded(flat, scale, bits) - flat).pow(2).sum(1, keepdim=True)
        best, error = torch.where(off < error, scale, best), torch.minimum(off, error)
    return best.reshape(-1, *[1] * (weight.ndim - 1))


def rounded(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    """The nearest level of each weight; zeros are positive, for a coder tells the two apart."""
    return (torch.clamp(torch.round(weight / scale), -limit_of(bits), limit_of(bits)) + 0.0) * scale


def on_grid(weight: Tensor, bits: int) -> Tensor:
    """The weights on their best grid; 32 bits leave them as they are."""
    if bits >= FLOAT:
        return weight
    return rounded(weight, best_scales(weight, bits), bits)


def with_weight_bits(network: Network, bits: Mapping[str, int]) -> Network:
    """The network with the weights of these layers on their grids.

    Such weights are held where they are: later trainings would leave the grid.

    Args:
        network: Left as it is.
        bits: {path of a layer: its bits}.
    """
    fewer = {path: count for path, count in bits.items() if count < FLOAT}
    fresh = network.copy()
    with torch.no_grad():
        for path, count in fewer.items():
            weight = _weight(fresh.module, path)
            weight.copy_(on_grid(weight, count))
    return held_on_grid(fresh, fewer)


def held_on_grid(network: Network, bits: Mapping[str, int]) -> Network:
    """The same network, the weights of the layers with fewer than 32 bits held where they are."""
    names = {f"{path}.weight": "fixed" for path, count in bits.items() if count < FLOAT}
    return replace(network, held={**network.held, **names})


def _weight(module: nn.Module, path: str) -> Tensor:
    weight = getattr(module.get_submodule(path), "weight", None)
    if not isinstance(weight, Tensor):
        raise LilliputError(f"the layer {path!r} has no weight")
    return weight


class _Through(nn.Module):
    """On the grid forwards, as if it were not there backwards.

    Scales are sought anew every `PATIENCE` steps: weights move little from one to the next.
    """

    scale: Tensor
    age: Tensor

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("scale", best_scales(weight, bits))
        self.register_buffer("age", torch.zeros((), dtype=torch.int64))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.no_grad():
            if self.training:
                self.age += 1
                if int(self.age) % PATIENCE == 0:
                    self.scale.copy_(best_scales(weight, self.bits))
            offset = rounded(weight, self.scale, self.bits) - weight
        return weight + offset


class OnGrid(Companion):
    """The student computes with weights on their grids, while gradients move what lies behind.

    Args:
        bits: {path of a layer: its bits}; 32 leaves a layer alone.
    """

    def __init__(self, bits: Mapping[str, int]) -> None:
        self.bits = {path: count for path, count in bits.items() if count < FLOAT}
        self._student: nn.Module | None = None

    def begin(self, student: nn.Module) -> None:
        self._student = student
        for path, count in self.bits.items():
            through = _Through(_weight(student, path), count)
            parametrize.register_parametrization(student.get_submodule(path), "weight", through)

    def end(self) -> None:
        assert self._student is not None
        for path, count in self.bits.items():
            part = self._student.get_submodule(path)
            parametrize.remove_parametrizations(part, "weight", leave_parametrized=False)
            weight = _weight(self._student, path)
            # Rounding what lies behind gives the grid itself, to the last bit.
            with torch.no_grad():
                weight.copy_(on_grid(weight, count))


def input_ranges(
    network: Network, paths: Sequence[str], batches: Iterable[Sequence[Any]]
) -> dict[str, tuple[float, float]]:
    """{path: (least, largest)} of what these layers read over the batches."""
    ranges: dict[str, tuple[float, float]] = {}

    def seen(path: str) -> Any:
        def hook(_part: nn.Module, args: tuple[Tensor, ...]) -> None:
            low, high = ranges.get(path, (0.0, 0.0))
            ranges[path] = (min(low, float(args[0].min())), max(high, float(args[0].max())))

        return hook

    module = network.copy().module
    for path in paths:
        module.get_submodule(path).register_forward_pre_hook(seen(path))
    with torch.no_grad(), evaluating(module):
        for batch in batches:
            module(*(torch.as_tensor(np.asarray(x)) for x in batch))
    return ranges


def activations_on_grid(x: Tensor, low: float, high: float, bits: int) -> Tensor:
    """2ᵏ levels from 0 to `high` where nothing is negative, else 2ᵏ - 1 about 0."""
    if bits >= FLOAT:
        return x
    if low >= 0:
        step = max(high, 1e-12) / (2**bits - 1)
        return torch.clamp(torch.round(x / step), 0.0, float(2**bits - 1)).mul(step)
    step = max(-low, high) / limit_of(bits)
    return torch.clamp(torch.round(x / step), -limit_of(bits), limit_of(bits)) * step


@contextmanager
def inputs_on_grids(
    module: nn.Module, bits: Mapping[str, int], ranges: Mapping[str, tuple[float, float]]
) -> Iterator[None]:
    """The module's layers read inputs of few bits, for the time being."""

    def rounding(path: str, count: int) -> Any:
        def hook(_part: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (activations_on_grid(args[0], *ranges[path], count), *args[1:])

        return hook

    handles = [
        module.get_submodule(path).register_forward_pre_hook(rounding(path, count))
        for path, count in bits.items()
        if count < FLOAT and path in ranges
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
