"""Which single weights stay: scores, budgets and patterns. Biases and norms are never asked.

Sources: Han et al., NIPS 2015, section 3 (magnitude); Lee et al., "Layer-adaptive sparsity for the
magnitude-based pruning", ICLR 2021, section 3 (LAMP); Theis et al., 2018, section 2.1 (Fisher);
Mishra et al., "Accelerating sparse deep neural networks", arXiv 2104.08378, section 3 (N:M).
Differs: a layer's threshold is not a multiple of its standard deviation: the share that stays is
given, and met to the weight. Small layers have a floor, for a ranking of all weights starves them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from lilliput.errors import LilliputError, Refused, nearest
from lilliput.network import Network
from lilliput.prune.protect import matching_modules

Score = Literal["magnitude", "lamp", "fisher"]
Tensors = Mapping[str, Tensor]
T = TypeVar("T")

TINY = 1e-30

VALUE_BITS = 2.5
"""Of a weight that stays, without its place."""


@dataclass(frozen=True)
class Plan:
    """How many weights stay.

    `density` is the share of all weights that `shares` does not name; None: those all stay.
    `shares` is {weight: share} and is met layer by layer. `scope` "global" ranks the weights of
    all layers together, "layer" gives each the same share. Layers of fewer than `small` weights
    keep at least the share `floor`, unless `shares` names them. `pattern` (n, m) keeps the n
    dearest of any m neighbours along the input channels, instead of all that.
    """

    density: float | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    scope: Literal["global", "layer"] = "global"
    floor: float = 0.2
    small: int = 5000
    pattern: tuple[int, int] | None = None

    def between(self, dense: Plan, level: float) -> Plan:
        """The plan on the way from `dense` (level 0) to this one (level 1)."""

        def mixed(first: float, last: float) -> float:
            return first + (min(first, last) - first) * level

        return replace(
            self,
            density=None if self.density is None else mixed(dense.density or 1.0, self.density),
            shares={n: mixed(dense.shares.get(n, 1.0), s) for n, s in self.shares.items()},
        )

    def keeping(self, size: int, density: float) -> int:
        """Weights that a layer of this size keeps at least, at this density."""
        share = max(density, self.floor) if size < self.small else density
        return min(size, max(round(share * size), 1))


def density_within(bits: float) -> float:
    """The share of the weights that may stay where a weight, gone or not, may take so many bits.

    The place of what stays costs its entropy, and a sign and a magnitude of few bits are coded for
    each: what trained ResNets take in int8 when their file is packed.
    """

    def cost(share: float) -> float:
        places = sum(-x * math.log2(x) for x in (share, 1 - share) if x > 0)
        return places + VALUE_BITS * share

    low, high = 0.0, 1.0
    if bits >= cost(high):
        return high
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) <= bits else (low, middle)
    return low


def weights_of(network: Network, protect: Sequence[str] = ()) -> dict[str, nn.Parameter]:
    """Kernels and matrices by name: float parameters of two dimensions or more, each once.

    Raises:
        Refused: A glob of `protect` matches nothing, or nothing is left.
    """
    spared = matching_modules(network, protect)
    found = {
        name: parameter
        for name, parameter in network.module.named_parameters()
        if parameter.ndim > 1
        and parameter.numel()
        and parameter.is_floating_point()
        and name.rpartition(".")[0] not in spared
    }
    if not found:
        raise Refused(
            f"{network.name!r} has no weights that may change", hint="protect fewer layers"
        )
    return found


def by_glob(names: Collection[str], globs: Mapping[str, T], *, at: str) -> dict[str, T]:
    """{weight: value} of the weights whose layer or own name a glob matches; the last one counts.

    Raises:
        Refused: A glob matches nothing.
    """
    found: dict[str, T] = {}
    layers = {name: name.rpartition(".")[0] for name in names}
    for glob, value in globs.items():
        matched = [n for n in names if fnmatchcase(n, glob) or fnmatchcase(layers[n], glob)]
        if not matched:
            raise Refused(f"no weight matches {glob!r}", at=at, hint=nearest(glob, layers.values()))
        found |= dict.fromkeys(matched, value)
    return found


def scores(kind: str, weights: Tensors, fisher: Tensors | None = None) -> dict[str, Tensor]:
    """A score for each weight, at least 0; the dearest are kept.

    Args:
        kind: "magnitude": |w|. "lamp": w² over the sum of all squares of the layer that are not
            smaller, so that the layers' scores can be compared. "fisher": w² times `fisher`.
        weights: By name, any shapes.
        fisher: Mean squared gradients of the same shapes, for "fisher".

    Raises:
        LilliputError: An unknown kind, or no gradients.
    """
    if kind == "magnitude":
        return {name: w.detach().abs() for name, w in weights.items()}
    if kind == "lamp":
        return {name: lamp(w.detach()) for name, w in weights.items()}
    if kind != "fisher":
        raise LilliputError(
            f"no score {kind!r}", hint=nearest(kind, ("magnitude", "lamp", "fisher"))
        )
    if fisher is None:
        raise LilliputError("the score 'fisher' needs squared gradients")
    # Weights that no gradient reached are still ranked among themselves.
    return {n: w.detach().square() * (fisher[n] + TINY) for n, w in weights.items()}


def lamp(weight: Tensor) -> Tensor:
    """w² / Σ v² over the weights v of the layer that are not smaller; the largest scores 1."""
    squares = weight.flatten().double().square()
    order = torch.argsort(squares, descending=True, stable=True)
    ranked = squares[order]
    scored = torch.empty_like(squares)
    scored[order] = ranked / ranked.cumsum(0).clamp_min(TINY)
    return scored.reshape(weight.shape)


def keep_masks(scored: Tensors, plan: Plan) -> dict[str, Tensor]:
    """Which weights stay, by name: boolean, in the shapes of their scores.

    Exactly `round(density * n)` weights stay of those that share a density, more only where floors
    ask for more; exactly `round(share * n)` of a weight that `plan.shares` names, at least one.
    """
    if plan.pattern is not None:
        return {name: pattern_mask(values, *plan.pattern) for name, values in scored.items()}
    masks = {
        name: top(scored[name], max(round(share * scored[name].numel()), 1))
        for name, share in plan.shares.items()
    }
    rest = {name: values for name, values in scored.items() if name not in masks}
    if plan.density is None:
        masks |= {n: torch.ones_like(v, dtype=torch.bool) for n, v in rest.items()}
    elif plan.scope == "layer":
        masks |= {n: top(v, plan.keeping(v.numel(), plan.density)) for n, v in rest.items()}
    elif rest:
        masks |= _together(rest, plan, plan.density)
    return {name: masks[name] for name in scored}


def _together(scored: Tensors, plan: Plan, density: float) -> dict[str, Tensor]:
    """One ranking over all weights, those that a floor keeps ahead of all others."""
    floors = {
        n: plan.keeping(v.numel(), 0.0) if v.numel() < plan.small else 1 for n, v in scored.items()
    }
    ranked = []
    for name, values in scored.items():
        flat = values.flatten().double().clone()
        flat[top(values, floors[name]).flatten()] = torch.inf
        ranked.append(flat)
    total = sum(len(flat) for flat in ranked)
    kept = top(torch.cat(ranked), max(round(density * total), sum(floors.values())))
    pieces = torch.split(kept, [len(flat) for flat in ranked])
    return {n: part.reshape(v.shape) for (n, v), part in zip(scored.items(), pieces, strict=True)}


def top(values: Tensor, count: int) -> Tensor:
    """A mask of exactly `count` of the largest values (all, if there are fewer)."""
    flat = values.flatten()
    mask = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    mask[torch.topk(flat, min(count, len(flat)), sorted=False).indices] = True
    return mask.reshape(values.shape)


def pattern_mask(values: Tensor, n: int, m: int) -> Tensor:
    """At most n of any m neighbours along dimension 1; a shorter group at the end counts too."""
    rows = values.movedim(1, -1)
    size = rows.shape[-1]
    padded = torch.nn.functional.pad(rows, (0, -size % m), value=-1.0)
    groups = padded.reshape(*padded.shape[:-1], -1, m)
    ranks = groups.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    kept = (ranks < n).reshape(padded.shape)[..., :size]
    return kept.movedim(-1, 1).contiguous()


def density_of(weights: Tensors) -> float:
    """Share of the weights that are not zero."""
    total = sum(w.numel() for w in weights.values())
    return sum(int(torch.count_nonzero(w)) for w in weights.values()) / max(total, 1)
