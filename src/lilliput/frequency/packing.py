"""Layers of a network into the packed form: transform, shared centres, residuals, integers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lilliput.errors import Refused
from lilliput.frequency.bases import Kind, basis_of
from lilliput.frequency.clusters import centres_of, nearest
from lilliput.frequency.form import ATTRIBUTE, LARGEST, PackedForm
from lilliput.frequency.shrinkage import hard, quantized, soft
from lilliput.frequency.transform import Sides, corner, enlarged, forward
from lilliput.network import Network, flat_outputs

Shrinkage = Literal["soft", "hard"]
FEW_KERNELS = 4
"""A centre must stand for this many kernels on average, or there are fewer centres."""


LARGEST_STEP = 4.0
"""Of the quantizer, in standard deviations of a layer."""

SAME = 1e-6
"""A standard deviation below this share of the largest value is rounding."""


@dataclass(frozen=True)
class Kernels:
    """A layer's weight seen as O × I kernels of h × w: `values` has that shape."""

    path: str
    values: NDArray[np.float64]
    kind: Kind
    linear: bool = False

    @property
    def sides(self) -> Sides:
        return (self.values.shape[2], self.values.shape[3])

    @property
    def count(self) -> int:
        return int(self.values.shape[0] * self.values.shape[1])


@dataclass(frozen=True)
class Settings:
    """How coarse a form is; lengths are in standard deviations of the layer's weights."""

    basis: Kind = "dct"
    centres: int = 0
    tables: Literal["shared", "layer"] = "layer"
    shrinkage: Shrinkage = "hard"
    step: float = 0.25


def kernels_of(network: Network, basis: Kind, paths: Sequence[str] | None = None) -> list[Kernels]:
    """The weights of all convolutions and linear layers as kernels.

    A linear layer behind a flattening is seen as kernels over the map that was flattened. Kernels
    of one pixel have no frequencies, and stay what they are. A weight that several layers share is
    left out: two forms of one weight would part.
    """
    flattened = flattened_maps(network)
    found = []
    for path, layer in _own_layers(network.module):
        if paths is not None and path not in paths:
            continue
        weight: Tensor = layer.weight  # type: ignore[assignment]
        values = weight.detach().cpu().double().numpy()
        if weight.dim() == 2:
            channels, height, width = flattened.get(path, (weight.shape[1], 1, 1))
            values = values.reshape(len(values), channels, height, width)
        one_pixel = values.shape[2] * values.shape[3] == 1
        kind = "identity" if one_pixel else basis
        found.append(Kernels(path, values, kind, linear=weight.dim() == 2))
    return found


def _own_layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    uses: dict[int, int] = {}
    for _, part in module.named_modules(remove_duplicate=False):
        weight = getattr(part, "weight", None)
        if isinstance(weight, nn.Parameter):
            uses[id(weight)] = uses.get(id(weight), 0) + 1
    for path, part in module.named_modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)) and uses.get(id(part.weight)) == 1:
            yield path, part


def flattened_maps(network: Network) -> dict[str, tuple[int, int, int]]:
    """{path of a linear layer: (C, H, W) of the map that it is fed flattened}.

    Found by one forward pass: a flattened map lies at the same place in memory.
    """
    maps: dict[int, tuple[int, int, int]] = {}
    found: dict[str, tuple[int, int, int]] = {}
    alive: list[Tensor] = []
    hooks = []

    def seen(_: nn.Module, inputs: Any, output: Any) -> None:
        for tensor in (*flat_outputs(inputs), *flat_outputs(output)):
            if tensor.dim() == 4:
                alive.append(tensor)
                maps[tensor.data_ptr()] = (tensor.shape[1], tensor.shape[2], tensor.shape[3])

    def fed(path: str, layer: nn.Linear) -> Any:
        def look(_: nn.Module, inputs: Any) -> None:
            first = flat_outputs(inputs)[0]
            shape = maps.get(first.data_ptr())
            if shape and first.dim() == 2 and int(np.prod(shape)) == layer.in_features:
                found[path] = shape

        return look

    module = network.copy().module.eval()
    for path, part in module.named_modules():
        if isinstance(part, nn.Linear):
            hooks.append(part.register_forward_pre_hook(fed(path, part)))
        hooks.append(part.register_forward_hook(seen))
    with torch.no_grad():
        module(*network.example(1))
    return {path: shape for path, shape in found.items() if shape[1] * shape[2] > 1}


def packed_forms(
    layers: Sequence[Kernels],
    settings: Settings,
    thresholds: Mapping[str, float],
    rng: np.random.Generator,
    *,
    share: float = 1.0,
) -> dict[str, PackedForm]:
    """{path: form} of these layers.

    Layers that share centres are brought to one frequency size and one amplitude; residuals are
    taken against centres that were shrunk and rounded already, so that their errors are coded too.

    Args:
        layers: What to pack.
        settings: See `Settings`.
        thresholds: {path: what is shrunk to nothing, in standard deviations}.
        rng: Seeds the centres.
        share: Of the thresholds, where more rounds of shrinking residuals will follow.
    """
    made: dict[str, PackedForm] = {}
    for group in _groups(layers, settings):
        bases = [basis_of(layer.kind, layer.values) for layer in group]
        units = [settings.step * _spread(layer.values) or 1.0 for layer in group]
        steps = [
            forward(layer.values, basis) / unit
            for layer, basis, unit in zip(group, bases, units, strict=True)
        ]
        _refuse_clipping(group, steps, settings.step)
        common = (max(x.sides[0] for x in group), max(x.sides[1] for x in group))
        spread = [
            enlarged(x, layer.sides, common).reshape(layer.count, -1)
            for x, layer in zip(steps, group, strict=True)
        ]
        centres = _centres(spread, group, settings, thresholds, rng)
        shared = torch.from_numpy(centres.astype(np.int8))
        for layer, basis, unit, vectors, own in zip(
            group, bases, units, spread, steps, strict=True
        ):
            places = list(corner(layer.sides, common))
            ids = nearest(vectors, centres.astype(np.float64)) if len(centres) else None
            taken = own.reshape(layer.count, -1)
            rest = taken - centres[ids][:, places] if ids is not None else taken
            cut = share * thresholds[layer.path] / settings.step
            made[layer.path] = _form(
                layer, basis, unit, shared, ids, places, _whole(rest, cut, settings.shrinkage)
            )
    return made


def _spread(values: NDArray[np.float64]) -> float:
    """Standard deviation; of values that are all the same, their size."""
    spread, size = float(values.std()), float(np.abs(values).max(initial=0.0))
    return spread if spread > SAME * size else size


def _refuse_clipping(
    group: Sequence[Kernels], steps: Sequence[NDArray[np.float64]], step: float
) -> None:
    """Raise `Refused` where coefficients in steps are larger than 8 bits hold."""
    for layer, coefficients in zip(group, steps, strict=True):
        largest = float(np.abs(coefficients).max(initial=0.0))
        if largest > LARGEST + 0.5:
            enough = 1.01 * step * largest / LARGEST
            raise Refused(
                f"a step of {step:g} standard deviations is too small for the layer "
                f"{layer.path!r}: its largest coefficient is {largest:.0f} steps, and "
                f"{LARGEST} are the most that a file holds",
                hint=f"`step: {enough:.2g}` or larger"
                if enough <= LARGEST_STEP
                else f"leave it as it is: `exclude: [{layer.path}]`",
            )


def _groups(layers: Sequence[Kernels], settings: Settings) -> list[list[Kernels]]:
    """Layers that share centres: with cosines kernels of all sizes, otherwise those of one.

    Convolutions and linear layers do not: the latter have most of the kernels, and other ones.
    """
    if not settings.centres or settings.tables == "layer":
        return [[layer] for layer in layers]
    found: dict[tuple[Any, ...], list[Kernels]] = {}
    for layer in layers:
        sides = () if layer.kind == "dct" else layer.sides
        found.setdefault((layer.kind, layer.linear, *sides), []).append(layer)
    return list(found.values())


def _centres(
    spread: Sequence[NDArray[np.float64]],
    group: Sequence[Kernels],
    settings: Settings,
    thresholds: Mapping[str, float],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Whole numbers (K, F); none for kernels of one pixel, and where kernels are few."""
    vectors = np.concatenate(spread)
    count = min(settings.centres, len(vectors) // FEW_KERNELS)
    if count < 2 or vectors.shape[1] == 1:
        return np.zeros((0, vectors.shape[1]), np.int64)
    centres = centres_of(vectors, count, rng)
    cut = min(thresholds[layer.path] for layer in group) / settings.step
    # A centre is a mean of many: half of what a single coefficient must have is signal there.
    return _whole(centres, cut / 2, settings.shrinkage)


def _whole(steps: NDArray[np.float64], cut: float, shrinkage: Shrinkage) -> NDArray[np.int64]:
    """Coefficients in steps, shrunk with this threshold and rounded."""
    shrunk = (soft if shrinkage == "soft" else hard)(steps, 2 * cut)
    return quantized(shrunk, 1.0, LARGEST)


def _form(
    layer: Kernels,
    basis: NDArray[np.float64],
    unit: float,
    centres: Tensor,
    ids: NDArray[np.int64] | None,
    places: list[int],
    residuals: NDArray[np.int64],
) -> PackedForm:
    kernels = (layer.values.shape[0], layer.values.shape[1])
    form = PackedForm(layer.kind, kernels, layer.sides, (centres.shape[0], centres.shape[1]))
    form.residuals = torch.from_numpy(
        np.ascontiguousarray(residuals.T.reshape(-1, *kernels).astype(np.int8))
    )
    form.centres, form.places = centres, torch.tensor(places)
    if ids is not None:
        form.ids = torch.from_numpy(ids.reshape(kernels).astype(np.uint8))
    form.unit = torch.tensor(unit, dtype=torch.float32)
    form.basis = torch.tensor(basis, dtype=torch.float32)
    return form


def attach(layer: nn.Module, form: PackedForm) -> None:
    """Give a layer this form, and the weight that follows from it, in place."""
    layer.add_module(ATTRIBUTE, form)
    refresh(layer, form)


def refresh(layer: nn.Module, form: PackedForm) -> None:
    """Make the layer's weight what its form says, in place."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    with torch.no_grad():
        weight.copy_(form.expanded(weight.shape))


def shrunk_further(form: PackedForm, steps: Tensor, cut: float, shrinkage: Shrinkage) -> None:
    """Shrink and round residuals that were trained, in place; what is zero stays zero.

    Args:
        form: Its `residuals` say which may live, and are replaced.
        steps: (h w, O, I) the trained residuals.
        cut: The threshold in steps.
        shrinkage: "soft" takes the threshold off the others too.
    """
    values = steps.detach().cpu().double().numpy()
    whole = torch.from_numpy(_whole(values, cut, shrinkage).astype(np.int8))
    form.residuals = torch.where(form.residuals == 0, torch.zeros_like(whole), whole)
