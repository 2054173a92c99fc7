"""What is left of each layer answers as the whole layer did: a least-squares fit in closed form.

For every convolution and linear map, the weights that read the kept channels are chosen so that the
kept outputs come as near as possible to what they were, over some examples of the original:

    min ||Y - X_S V||² + ρ ||V - W_S||²,    V = (G_SS + ρ I)⁻¹ (G_S: W + ρ W_S),    G = Xᵀ X

X are the layer's unfolded inputs in the original network, Y = X W. G is summed once; after that any
cut costs one small linear system a layer, and no example.

Source: Wang et al., "Towards Evolutionary Compression", KDD 2018, the refining of parameters.
Differs: X_S are inputs in the original network and not in the cut one; a bias is fitted along, as
the weight of an input that is always 1; ρ draws towards the weights that are there and not towards
zero, so that no ρ fits worse than cutting alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.network import Network
from lilliput.prune.analysis import Analysis, Layer
from lilliput.prune.trace import evaluating

RIDGE = 1e-4
"""ρ, as a share of the mean of G's diagonal."""

MOST_INPUTS = 5000
"""Unfolded inputs of a layer beyond which its G would take too much memory and time."""


@dataclass(frozen=True)
class Gram:
    """G of a layer, (inputs, inputs), and how many of its columns belong to one channel."""

    matrix: Tensor
    taps: int


def grams(
    network: Network, analysis: Analysis, batches: Iterable[Sequence[Any]]
) -> dict[str, Gram]:
    """{path: G} of every layer that can be fitted.

    Args:
        network: The original; left as it is.
        analysis: Of this very network.
        batches: Network inputs, (N, ...) each, as arrays or tensors.
    """
    module = network.copy().module
    fitted = _fitted(analysis)
    owners = Counter(id(p) for _, p in module.named_parameters(remove_duplicate=False))
    parts = {
        path: part
        for path, part in module.named_modules()
        if path in fitted and owners[id(part.weight)] == 1
    }
    sums = {path: torch.zeros(()) for path, part in parts.items() if _fits(part)}
    handles = [parts[path].register_forward_pre_hook(_adding(sums, path)) for path in sums]
    with torch.no_grad(), evaluating(module):
        for batch in batches:
            module(*(torch.as_tensor(np.asarray(x)) for x in batch))
    for handle in handles:
        handle.remove()
    return {
        path: Gram(total, _taps(parts[path])) for path, total in sums.items() if total.ndim == 2
    }


def refitted(
    cut: Network,
    original: Network,
    analysis: Analysis,
    gone: Collection[int],
    known: dict[str, Gram],
    *,
    ridge: float = RIDGE,
) -> Network:
    """The cut network with the weights of its layers fitted.

    Args:
        cut: `original` without the classes `gone`; left as it is.
        original: What the analysis and the sums are of.
        analysis: Of the original.
        gone: Classes that were cut.
        known: From `grams`.
        ridge: ρ, as a share of the mean of G's diagonal.
    """
    fresh = cut.copy()
    keep = analysis.keeping(gone)
    before, after = (dict(n.module.named_modules()) for n in (original, fresh))
    for layer in analysis.layers:
        gram = known.get(layer.path)
        if gram is None or layer.inputs is None or layer.outputs is None:
            continue
        columns, rows = keep[layer.inputs], keep[layer.outputs]
        if columns.all() or not columns.any():
            continue
        _refit(before[layer.path], after[layer.path], gram, columns, rows, ridge)
    return fresh


def least_squares(gram: Tensor, kept: Tensor, weights: Tensor, ridge: float) -> Tensor:
    """V of shape (outputs, kept): (G_SS + ρ I)⁻¹ (G_S: W + ρ W_S).

    Args:
        gram: (inputs, inputs).
        kept: Places of the inputs that are left.
        weights: (outputs, inputs).
        ridge: ρ, as a share of the mean of G's diagonal.
    """
    gram, weights = gram.double(), weights.double()
    inner = gram[kept][:, kept]
    rho = ridge * inner.diagonal().mean().clamp_min(1e-12)
    system = inner + rho * torch.eye(len(kept), dtype=torch.float64)
    # Shrunk towards the weights that are there, so that a direction without any input keeps them.
    target = gram[kept] @ weights.T + rho * weights.T[kept]
    solved: Tensor = torch.linalg.solve(system, target)
    return solved.T


def _refit(
    before: nn.Module,
    after: nn.Module,
    gram: Gram,
    columns: NDArray[np.bool_],
    rows: NDArray[np.bool_],
    ridge: float,
) -> None:
    weight: Tensor = before.weight.detach()  # type: ignore[operator]
    flat = weight.flatten(1)[torch.from_numpy(rows)]
    bias: Tensor | None = before.bias  # type: ignore[assignment]
    kept = torch.from_numpy(np.flatnonzero(np.repeat(columns, gram.taps)))
    if bias is not None:
        chosen = bias.detach()[torch.from_numpy(rows)]
        flat = torch.cat([flat, chosen[:, None]], 1)
        kept = torch.cat([kept, torch.tensor([len(gram.matrix) - 1])])
        solved = least_squares(gram.matrix, kept, flat, ridge)
    else:
        solved = least_squares(gram.matrix[:-1, :-1], kept, flat, ridge)
    with torch.no_grad():
        if bias is not None:
            after.bias.copy_(solved[:, -1])  # type: ignore[operator]
            solved = solved[:, :-1]
        after.weight.copy_(solved.reshape(after.weight.shape))  # type: ignore[operator,arg-type]


def _fitted(analysis: Analysis) -> dict[str, Layer]:
    """Layers whose weight is (outputs, inputs, ...), each run once: what they read is one thing."""
    paths = [layer.path for layer in analysis.layers]
    return {
        layer.path: layer
        for layer in analysis.layers
        if paths.count(layer.path) == 1
        and layer.weight == f"{layer.path}.weight"
        and layer.inputs is not None
        and layer.outputs is not None
    }


def _fits(part: nn.Module) -> bool:
    if isinstance(part, nn.Linear):
        return part.in_features <= MOST_INPUTS
    if type(part) is not nn.Conv2d or part.groups != 1 or part.padding_mode != "zeros":
        return False
    return not isinstance(part.padding, str) and part.in_channels * _taps(part) <= MOST_INPUTS


def _taps(part: nn.Module) -> int:
    return int(np.prod(part.kernel_size)) if isinstance(part, nn.Conv2d) else 1


def _adding(sums: dict[str, Tensor], path: str) -> Any:
    def hook(part: nn.Module, args: tuple[Tensor, ...]) -> None:
        rows = _unfolded(part, args[0])
        ones = torch.cat([rows, torch.ones(len(rows), 1)], 1)
        sums[path] = sums[path] + ones.T @ ones

    return hook


def _unfolded(part: nn.Module, x: Tensor) -> Tensor:
    """(places, inputs): all that each output is a weighted sum of."""
    if isinstance(part, nn.Conv2d):
        columns: Tensor = F.unfold(
            x,
            part.kernel_size,
            dilation=part.dilation,
            padding=part.padding,  # type: ignore[arg-type]
            stride=part.stride,
        )
        return columns.transpose(1, 2).reshape(-1, columns.shape[1]).float()
    return x.reshape(-1, x.shape[-1]).float()
