"""Weights that are rounded to a grid in every forward pass, while they and its step learn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lilliput.distill.companions import Companion, parameters_of

LEAST = 0.05
"""A step never shrinks below this share of the first one, nor turns negative."""


@dataclass(frozen=True)
class Grid:
    """`steps` is (C,) along the weight's dimension 0, or (1,); integers are -limit to limit."""

    steps: Tensor
    limit: int

    def shaped(self, weight: Tensor) -> Tensor:
        """The steps in a shape that the weight can be divided by."""
        return self.steps.to(weight).reshape(-1, *[1] * (weight.ndim - 1))


class LearnedSteps(Companion):
    """Rounding is straight-through: a weight's gradient is that of its rounded value, zero where it
    is clipped. The step's gradient is Σ g (q - w/s), Σ ±g Q where clipped, over √(n Q).

    The student computes with the rounded weights; the hidden ones are put in their place while the
    optimiser works. What comes out lies on the grid.

    Source: Esser et al., "Learned step size quantization", ICLR 2020, sections 2.1 and 2.2.
    Differs: the parameter is the step as a share of the first one, its gradient divided by it: the
    same under SGD, and under Adam a learning rate that means the same for every layer. Weights are
    swapped, not parametrized, so that tied ones stay tied and no name changes.
    """

    def __init__(self, grids: Mapping[str, Grid]) -> None:
        self.grids = dict(grids)
        self.weights: dict[str, nn.Parameter] = {}
        self.shares: dict[str, nn.Parameter] = {}
        self.hidden: dict[str, Tensor] = {}
        self.student: nn.Module | None = None

    def begin(self, student: nn.Module) -> None:
        self.student = student
        found = parameters_of(student, tuple(self.grids))
        self.weights = dict(zip(self.grids, found, strict=True))
        for number, (name, grid) in enumerate(self.grids.items()):
            share = nn.Parameter(torch.ones_like(grid.steps, device=self.weights[name].device))
            student.register_parameter(_key(number), share)
            self.shares[name] = share
        self._round()

    def graded(self, share: float) -> None:  # noqa: ARG002
        with torch.no_grad():
            for name, weight in self.weights.items():
                if weight.grad is not None:
                    self._grade(name, weight, weight.grad)
                weight.copy_(self.hidden[name])

    def stepped(self, share: float) -> None:  # noqa: ARG002
        self._round()

    def parameters(self) -> Iterable[nn.Parameter]:
        return self.shares.values()

    def end(self) -> None:
        """The grids become those that were learnt."""
        assert self.student is not None
        for number, name in enumerate(self.grids):
            delattr(self.student, _key(number))
            self.grids[name] = Grid(self._steps(name).flatten().cpu(), self.grids[name].limit)
        self.shares = {}

    def facts(self) -> dict[str, float]:
        moved = [float(share.detach().log2().abs().max()) for share in self.shares.values()]
        return {"largest step change (octaves)": max(moved, default=0.0)}

    def state(self) -> dict[str, Any]:
        return {"hidden": self.hidden}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.hidden = dict(state["hidden"])

    def _steps(self, name: str) -> Tensor:
        weight, grid = self.weights[name], self.grids[name]
        return grid.shaped(weight) * self.shares[name].detach().reshape(
            -1, *[1] * (weight.ndim - 1)
        )

    def _grade(self, name: str, weight: nn.Parameter, gradient: Tensor) -> None:
        limit, share = self.grids[name].limit, self.shares[name]
        scaled = self.hidden[name] / self._steps(name)
        inside = scaled.abs() <= limit
        whole = scaled.round().clamp(-limit, limit)
        moves = gradient * torch.where(inside, whole - scaled, whole)
        per_step = moves.flatten(1).sum(1) if len(share) > 1 else moves.sum().reshape(1)
        balance = math.sqrt(weight.numel() / len(share) * limit)
        share.grad = per_step / balance / self.grids[name].steps.to(per_step)
        gradient.mul_(inside)

    def _round(self) -> None:
        with torch.no_grad():
            for name, weight in self.weights.items():
                self.shares[name].clamp_(min=LEAST)
                self.hidden[name] = weight.detach().clone()
                steps, limit = self._steps(name), self.grids[name].limit
                # + 0.0: a rounded -0.3 would be -0.0.
                weight.copy_((weight / steps).round().clamp(-limit, limit).add(0.0) * steps)


def _key(number: int) -> str:
    return f"lilliput_step_{number}"
