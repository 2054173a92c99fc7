"""The layers of a packed network as the multiplication counter sees them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lilliput.frequency.form import PackedForm, forms
from lilliput.frequency.multiplications import LayerWork, Transform
from lilliput.network import Network

TRANSFORMS: dict[str, Transform] = {"dct": "fast", "svd": "naive", "identity": "none"}
"""Cosines have a fast transform of rows and columns; learned pictures have none."""


def work_of(network: Network) -> list[LayerWork]:
    """One entry for each packed layer, at the size of the network's example input."""
    packed = forms(network.module)
    positions: dict[str, int] = {}
    module = network.copy().module.eval()

    def seen(path: str) -> Any:
        def keep(_: nn.Module, __: Any, output: Tensor) -> None:
            positions[path] = output[0, 0].numel() if output.dim() == 4 else 1

        return keep

    for path in packed:
        module.get_submodule(path).register_forward_hook(seen(path))
    with torch.no_grad():
        module(*network.example(1))
    return [
        _entry(path, network.module.get_submodule(path), form, positions[path])
        for path, form in packed.items()
        if path in positions
    ]


def _entry(path: str, layer: nn.Module, form: PackedForm, positions: int) -> LayerWork:
    _, outputs, inputs = form.residuals.shape
    centres = form.centres[:, form.places] if len(form.centres) else form.centres
    return LayerWork(
        name=path,
        outputs=outputs,
        inputs=inputs,
        height=form.sides[0],
        width=form.sides[1],
        maps=layer.in_channels if isinstance(layer, nn.Conv2d) else None,
        positions=positions,
        residuals=form.live[0],
        centres=int(torch.count_nonzero(centres)),
        transform=TRANSFORMS[form.kind],
    )
