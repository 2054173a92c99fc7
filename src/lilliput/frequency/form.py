"""The packed form of a layer's kernels: integers from which its weights follow."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from lilliput.frequency.bases import Kind
from lilliput.frequency.transform import Sides, cosine_basis

ATTRIBUTE = "packed_form"
"""Under this name a layer holds the form of its weight."""
LARGEST = 127
"""Of an integer in the form."""


class PackedForm(nn.Module):
    """weight = (residuals + centres[ids]) · unit · basis, the integers and the unit as buffers.

    Shapes, for O × I kernels of h × w:
        residuals (h w, O, I) int8: frequency first, so that a coder sees each by itself;
        centres (K, F) int8 and ids (O, I) uint8, both empty without centres; `places` (h w,) are
        this layer's frequencies among the F of the centres, which larger kernels may share;
        unit () float32: the quantizer's step;
        basis (h w, h w) float32: orthonormal rows; stored only where it was learned.
    """

    residuals: Tensor
    centres: Tensor
    ids: Tensor
    places: Tensor
    unit: Tensor
    basis: Tensor

    def __init__(
        self, kind: Kind, kernels: tuple[int, int], sides: Sides, centres: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__()
        self.kind, self.sides = kind, sides
        pixels = sides[0] * sides[1]
        basis = cosine_basis(sides) if kind == "dct" else np.eye(pixels)
        empty = kernels if centres[0] else (0, 0)
        self.register_buffer("residuals", torch.zeros(pixels, *kernels, dtype=torch.int8))
        self.register_buffer("centres", torch.zeros(centres, dtype=torch.int8))
        self.register_buffer("ids", torch.zeros(empty, dtype=torch.uint8))
        self.register_buffer("places", torch.arange(pixels))
        self.register_buffer("unit", torch.ones(()))
        self.register_buffer(
            "basis", torch.tensor(basis, dtype=torch.float32), persistent=kind == "svd"
        )

    def common(self) -> Tensor:
        """The centre of each kernel in steps, (h w, O, I) float32."""
        if not len(self.centres):
            return torch.zeros(self.residuals.shape, device=self.unit.device)
        chosen = self.centres[self.ids.long()][..., self.places]
        return chosen.permute(2, 0, 1).float()

    def expanded(self, shape: torch.Size) -> Tensor:
        """The weight that the integers stand for, of a layer whose weight has this shape."""
        return self.weight(self.residuals.float(), shape)

    def weight(self, residuals: Tensor, shape: torch.Size) -> Tensor:
        """The weight for other residuals (h w, O, I), in steps; gradients pass."""
        steps = (residuals + self.common()).flatten(1)
        kernels = steps.t() @ (self.basis * self.unit)
        return kernels.reshape(shape)

    def residuals_of(self, weight: Tensor) -> Tensor:
        """The residuals that a weight would have, in steps, not rounded: (h w, O, I)."""
        kernels = weight.reshape(-1, self.basis.shape[1])
        steps = (self.basis / self.unit) @ kernels.t()
        return steps.reshape(self.residuals.shape) - self.common()

    @property
    def live(self) -> tuple[int, int]:
        """How many residuals, and how many numbers of the centres, are not zero."""
        return int(torch.count_nonzero(self.residuals)), int(torch.count_nonzero(self.centres))


def form_of(layer: nn.Module) -> PackedForm | None:
    """The packed form that a layer holds, unless its weight no longer follows from it."""
    form = cast("PackedForm | None", getattr(layer, ATTRIBUTE, None))
    weight = getattr(layer, "weight", None)
    if form is None or not isinstance(weight, Tensor):
        return None
    if form.residuals.numel() != weight.numel():
        return None
    made = form.expanded(weight.shape)
    return form if torch.allclose(made, weight.detach().float(), rtol=1e-4, atol=1e-7) else None


def forms(module: nn.Module) -> dict[str, PackedForm]:
    """{path of the layer: its form}, of all layers whose weight follows from one."""
    found = {path: form_of(layer) for path, layer in module.named_modules()}
    return {path: form for path, form in found.items() if form is not None}
