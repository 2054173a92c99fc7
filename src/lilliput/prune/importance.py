"""How much each class of channels matters: one number a class, larger is dearer.

Every criterion sums over all members of a class, so that coupled layers vote together.

Sources: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.1 (L1);
Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017,
section 3 (batch-norm scale); Molchanov et al., "Importance Estimation for Neural Network Pruning",
CVPR 2019, section 3.1 (Taylor); Theis et al., "Faster gaze prediction with dense networks and
Fisher pruning", 2018, section 2.1 (Fisher).
Differs: the norms take in the weights that read a channel besides those that make it; no sparsity
training precedes the batch-norm scale; gradients are those of batch means, not of examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lilliput.errors import LilliputError, Refused, nearest
from lilliput.network import Network, flat_outputs
from lilliput.prune.analysis import Analysis, Stored
from lilliput.prune.trace import evaluating

Criterion = Literal["l1", "l2", "bn_scale", "taylor", "fisher", "random"]
Scores = NDArray[np.float64]
"""(class_count,), at least 0; frozen classes have a score too, which nobody reads."""

Loss = Callable[[Tensor, Tensor], Tensor]

NEEDS_DATA = ("taylor", "fisher")


def class_scores(
    network: Network,
    analysis: Analysis,
    criterion: str,
    *,
    batches: Iterable[tuple[tuple[Any, ...], Any]] = (),
    loss: Loss | None = None,
    rng: np.random.Generator | None = None,
) -> Scores:
    """Scores of all classes by the named criterion.

    Args:
        network: Left as it is.
        analysis: Of this very network.
        criterion: "l1", "l2", "bn_scale", "taylor", "fisher" or "random".
        batches: (inputs, targets) as arrays or tensors, for "taylor" and "fisher".
        loss: Mean loss of a batch, for the same.
        rng: For "random".

    Raises:
        Refused: The network lacks what the criterion reads; the hint names another.
    """
    tensors = {name: p.detach() for name, p in network.module.named_parameters()}
    if criterion in ("l1", "l2"):
        return norms(analysis, tensors, power=int(criterion[1]))
    if criterion == "bn_scale":
        return norm_scales(analysis, tensors)
    if criterion in NEEDS_DATA:
        if loss is None:
            raise LilliputError(f"{criterion!r} needs batches and a loss")
        return gradient_scores(
            network, analysis, batches, loss, power=1 if criterion == "taylor" else 2
        )
    if criterion == "random":
        return (rng or np.random.default_rng(0)).random(analysis.class_count)
    known = ("l1", "l2", "bn_scale", *NEEDS_DATA, "random")
    raise LilliputError(f"no criterion {criterion!r}", hint=nearest(criterion, known))


def norms(analysis: Analysis, tensors: Mapping[str, Tensor], *, power: int) -> Scores:
    """Norm of all weights (not biases, not scales) of each class: sum |w|, or root of sum w²."""
    scores = np.zeros(analysis.class_count)
    for stored, values in _trainable(analysis, tensors):
        if len(stored.shape) > 1:
            _add(scores, analysis, stored, values.abs().pow(power))
    return scores if power == 1 else np.asarray(np.sqrt(scores))


def norm_scales(analysis: Analysis, tensors: Mapping[str, Tensor]) -> Scores:
    """Sum of |γ| over the batch norms of each class.

    Raises:
        Refused: A group that can be cut has no batch norm.
    """
    scores = np.zeros(analysis.class_count)
    met = np.zeros(analysis.class_count, dtype=bool)
    for stored, values in _trainable(analysis, tensors):
        if stored.norm_scale:
            _add(scores, analysis, stored, values.abs())
            classes = analysis.slots[stored.slots[0]].classes
            met[classes[classes >= 0]] = True
    for group in analysis.prunable:
        if not met[list(group.classes)].all():
            raise Refused(
                f"the channels of {group.name!r} pass through no batch norm with a scale",
                hint="use the criterion `l2`, which needs none, or protect that layer",
            )
    return scores


def gradient_scores(
    network: Network,
    analysis: Analysis,
    batches: Iterable[tuple[tuple[Any, ...], Any]],
    loss: Loss,
    *,
    power: int,
) -> Scores:
    """First-order change of the loss when a class goes, from w·∂L/∂w summed over each slice.

    The mean over batches of |Σ w·g| (power 1, Taylor) or of its square (power 2, Fisher), summed
    over the members of the class. Small batches come closer to the gradients of examples.
    """
    twin = network.copy()
    module = twin.module
    named = dict(module.named_parameters())
    wanted = {stored.name: stored for stored in analysis.tensors if stored.trainable}
    for parameter in named.values():
        parameter.requires_grad_()
    scores, seen = np.zeros(analysis.class_count), 0
    with evaluating(module), torch.enable_grad():
        for inputs, targets in batches:
            if targets is None:
                raise Refused(
                    "gradients need labels, and these examples have none",
                    hint="use the criterion `l2` or `bn_scale`",
                )
            module.zero_grad(set_to_none=True)
            outputs = module(*(torch.as_tensor(x) for x in inputs))
            loss(flat_outputs(outputs)[0], torch.as_tensor(targets)).backward()  # type: ignore[no-untyped-call]
            for name, parameter in named.items():
                if parameter.grad is not None and name in wanted:
                    change = parameter.detach() * parameter.grad
                    _add(scores, analysis, wanted[name], change, power=power)
            seen += 1
    if not seen:
        raise LilliputError("no batch to take gradients from", hint="give at least one batch")
    return scores / seen


def _trainable(
    analysis: Analysis, tensors: Mapping[str, Tensor]
) -> Iterable[tuple[Stored, Tensor]]:
    for stored in analysis.tensors:
        if stored.trainable and stored.name in tensors:
            yield stored, tensors[stored.name]


def _add(
    scores: Scores, analysis: Analysis, stored: Stored, values: Tensor, *, power: int | None = None
) -> None:
    """Add, to each class, the sum of `values` over its slices of the tensor.

    With a power the sum over all slices of a class in one dimension is raised to it first.
    """
    for dim, number in enumerate(stored.slots):
        classes = analysis.slots[number].classes
        if not (classes >= 0).any():
            continue
        others = [d for d in range(values.dim()) if d != dim]
        per_index = values.double().sum(others) if others else values.double()
        kept = classes >= 0
        sums = np.bincount(
            classes[kept], weights=per_index.cpu().numpy()[kept], minlength=len(scores)
        )
        scores += sums if power is None else np.abs(sums) ** power
