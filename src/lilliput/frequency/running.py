"""A convolution that runs in the frequency domain: fixed pictures first, then a mixture of them.

Source: CNNpack, section 3.3 (responses of the bases are shared by all filters).
Differs: the paper sums few coefficients of each kernel, which no dense runtime does faster; here
all kernels of a layer keep the same few bases, and the sum is a smaller dense 1×1 convolution.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lilliput.frequency.bases import Kind, basis_of
from lilliput.frequency.transform import Floats, zigzag

AT_ONCE = 4
"""Examples whose responses are held at a time."""


class FrequencyConv2d(nn.Module):
    """Depthwise convolutions with m pictures, then a 1×1 mixture: (N, I, ...) → (N, O, ...).

    With all h · w pictures it is the spatial layer, to float rounding. The input is repeated m
    times and each copy meets one picture, instead of one depthwise layer with m outputs a channel:
    the same products, which ONNX Runtime runs two to three times faster, because its blocked
    layout knows depthwise layers of one output a channel only.
    """

    def __init__(self, like: nn.Conv2d, count: int) -> None:
        super().__init__()
        channels = like.in_channels * count
        self.count = count
        self.bases = nn.Conv2d(
            channels,
            channels,
            like.kernel_size,  # type: ignore[arg-type]
            like.stride,  # type: ignore[arg-type]
            like.padding,  # type: ignore[arg-type]
            like.dilation,  # type: ignore[arg-type]
            groups=channels,
            bias=False,
        )
        self.mix = nn.Conv2d(channels, like.out_channels, 1, bias=like.bias is not None)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.mix(self.bases(torch.cat([x] * self.count, 1)))
        return mixed


def can_run(layer: nn.Module) -> bool:
    """Whether a layer has such a form: a plain convolution with kernels of more than a pixel."""
    return (
        isinstance(layer, nn.Conv2d)
        and type(layer).forward is nn.Conv2d.forward
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and layer.kernel_size != (1, 1)
    )


def pads_of(layer: nn.Conv2d) -> tuple[int, int, int, int]:
    """Rows above, columns left, rows below and columns right that the layer pads its input by."""
    if not isinstance(layer.padding, str):
        rows, columns = layer.padding
        return rows, columns, rows, columns
    if layer.padding == "valid":
        return 0, 0, 0, 0
    rows, columns = (
        step * (side - 1) for step, side in zip(layer.dilation, layer.kernel_size, strict=True)
    )
    return rows // 2, columns // 2, rows - rows // 2, columns - columns // 2


def running_form(layer: nn.Conv2d, basis: Floats, kept: Sequence[int]) -> FrequencyConv2d:
    """The layer with these rows of an orthonormal basis (h w, h w); the others are dropped.

    What is dropped changes the weights by exactly the energy of its coefficients (Parseval).
    """
    made = FrequencyConv2d(layer, len(kept))
    pictures = torch.tensor(basis[list(kept)], dtype=layer.weight.dtype)
    with torch.no_grad():
        coefficients = layer.weight.flatten(2) @ pictures.t().to(layer.weight.device)
        made.mix.weight.copy_(coefficients.transpose(1, 2).reshape(made.mix.weight.shape))
        each = pictures.reshape(len(kept), 1, 1, *layer.kernel_size)
        made.bases.weight.copy_(
            each.expand(-1, layer.in_channels, -1, -1, -1).reshape(made.bases.weight.shape)
        )
        if made.mix.bias is not None and layer.bias is not None:
            made.mix.bias.copy_(layer.bias)
    return made.to(layer.weight.device).train(layer.training)


def basis_for(layer: nn.Conv2d, kind: Kind) -> NDArray[np.float64]:
    """The basis of this layer's kernels, (h w, h w)."""
    return basis_of(kind, layer.weight.detach().cpu().double().numpy())


def energies(layer: nn.Conv2d, basis: Floats, inputs: Tensor) -> NDArray[np.float64]:
    """What each basis picture adds to the layer's outputs on these inputs, (h w,).

    The sum over kernels of the squared coefficient times the mean square of the picture's response
    in that input channel; correlations between responses are left out.
    """
    weight = layer.weight.detach().double().cpu()
    pictures = torch.tensor(np.array(basis), dtype=torch.float64)
    squares = (weight.flatten(2) @ pictures.t()).square().sum(0)
    each = pictures.float().reshape(-1, 1, *layer.kernel_size).to(inputs.device)

    def total(part: Tensor) -> Tensor:
        apart = part.flatten(0, 1)[:, None]
        responses = torch.nn.functional.conv2d(
            apart, each, None, layer.stride, layer.padding, layer.dilation
        )
        power = responses.square().mean((2, 3))
        return power.reshape(*part.shape[:2], -1).sum(0)

    # As many responses as pictures of the basis: of all examples at once they fill the memory.
    power = torch.stack([total(part) for part in torch.split(inputs, AT_ONCE)]).sum(0) / len(inputs)
    found: NDArray[np.float64] = (squares * power.cpu().double()).sum(0).numpy()
    return found


class Ranked(NamedTuple):
    """A layer's patterns, rows of `basis`, strongest first, and what the first of them carry."""

    layer: nn.Conv2d
    basis: NDArray[np.float64]
    order: list[int]
    carried: list[float]

    def fewest(self, share: float) -> int:
        """The fewest patterns that carry this share of the layer's response."""
        return min(1 + bisect_left(self.carried, share * (1 - 1e-12)), len(self.order))

    def form(self, count: int) -> FrequencyConv2d:
        """The layer with its so many strongest patterns."""
        return running_form(self.layer, self.basis, self.order[:count])


def ranked(layer: nn.Conv2d, kind: Kind, inputs: Tensor) -> Ranked:
    """The layer's patterns by their energy on these inputs; those that carry none are left out."""
    basis = basis_for(layer, kind)
    energy = energies(layer, basis, inputs)
    order = strongest(energy, 1.0, (layer.kernel_size[0], layer.kernel_size[1]))
    along = np.cumsum(energy[order])
    carried = along / along[-1] if along[-1] > 0 else np.ones_like(along)
    return Ranked(layer, basis, order, carried.tolist())


def strongest(energy: NDArray[np.float64], share: float, sides: tuple[int, int]) -> list[int]:
    """The fewest bases that have this share of the energy, strongest first; low ones of equals."""
    rank = {u * sides[1] + v: number for number, (u, v) in enumerate(zigzag(sides))}
    order = sorted(range(len(energy)), key=lambda j: (-energy[j], rank[j]))
    along = np.cumsum(energy[order])
    count = 1 + int(np.searchsorted(along, share * along[-1] * (1 - 1e-12)))
    return order[: min(count, len(order))]
