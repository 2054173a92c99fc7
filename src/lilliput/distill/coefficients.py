"""Kernels trained in the frequency domain: what is zero stays zero, what lives is rounded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lilliput.distill.companions import Companion
from lilliput.frequency.form import ATTRIBUTE, LARGEST, PackedForm


class Coefficients(Companion):
    """The residuals of packed layers are trained in place of their weights.

    Support, centres and their assignment are frozen. The forward pass sees rounded coefficients,
    the gradient passes as if they were not (straight-through), and since the basis is orthonormal
    a coefficient is trained as a weight would be.

    Source: CNNpack, section 3.4, as we read it (specification, section 2.6); straight-through
    rounding: Bengio et al., arXiv 1308.3432.
    Differs: the paper rounds after the training, not in it.

    Attributes:
        trained: {path: residuals in steps, (h w, O, I), not rounded}, after `end`.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = tuple(paths)
        self.layers: list[tuple[str, nn.Module, PackedForm]] = []
        self.trained: dict[str, Tensor] = {}

    def begin(self, student: nn.Module) -> None:
        self.layers = []
        for path in self.paths:
            layer = student.get_submodule(path)
            form = getattr(layer, ATTRIBUTE)
            self.layers.append((path, layer, form))
            parametrize.register_parametrization(layer, "weight", _Rounded(form), unsafe=True)

    def end(self) -> None:
        for path, layer, form in self.layers:
            held: nn.Parameter = layer.parametrizations["weight"].original  # type: ignore[index, union-attr]
            self.trained[path] = held.detach().cpu() / form.unit.cpu() * (form.residuals.cpu() != 0)
            form.residuals = rounded(held.detach() / form.unit, form.residuals != 0).to(torch.int8)
            with torch.no_grad():
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


class _Rounded(nn.Module):
    """Coefficients (h w, O, I) in the units of weights, to a weight."""

    def __init__(self, form: PackedForm) -> None:
        super().__init__()
        # In a list, since the layer holds it already: registered twice, it would be stored twice.
        self._form = [form]
        self._shape: torch.Size = torch.Size()

    def forward(self, held: Tensor) -> Tensor:
        form = self._form[0]
        steps = held / form.unit
        live = form.residuals != 0
        through = steps * live
        whole = through + (rounded(steps, live) - through).detach()
        return form.weight(whole, self._shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        form = self._form[0]
        self._shape = weight.shape
        return form.residuals_of(weight) * form.unit * (form.residuals != 0)


def rounded(steps: Tensor, live: Tensor) -> Tensor:
    """The nearest whole numbers that the form holds, zero where nothing may live."""
    return torch.round(steps).clamp(-LARGEST, LARGEST) * live
