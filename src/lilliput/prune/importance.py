"""How much each class of channels matters: one number a class, larger is dearer.

Every criterion sums over all members of a class, so that coupled layers vote together.

Sources: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.1 (L1);
Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017,
section 3 (batch-norm scale); Molchanov et al., "Importance Estimation for Neural Network Pruning",
CVPR 2019, section 3.1 (Taylor); Theis et al., "Faster gaze prediction with dense networks and
Fisher pruning", 2018, section 2.1 (Fisher). "output" is ours: Fisher's sum with the outputs
themselves in the place of the loss.
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

Criterion = Literal["l1", "l2", "bn_scale", "taylor", "fisher", "output", "random"]
Scores = NDArray[np.float64]
"""(class_count,), at least 0; frozen classes have a score too, which nobody reads."""

Loss = Callable[[Tensor, Tensor], Tensor]
Batches = Iterable[tuple[tuple[Any, ...], Any]]
Objective = Callable[[tuple[Tensor, ...], Any], Tensor]

NEEDS_LABELS = ("taylor", "fisher")
NEEDS_DATA = (*NEEDS_LABELS, "output")


def class_scores(
    network: Network,
    analysis: Analysis,
    criterion: str,
    *,
    batches: Batches = (),
    loss: Loss | None = None,
    rng: np.random.Generator | None = None,
) -> Scores:
    """Scores of all classes by the named criterion.

    Args:
        network: Left as it is.
        analysis: Of this very network.
        criterion: "l1", "l2", "bn_scale", "taylor", "fisher", "output" or "random".
        batches: (inputs, targets) as arrays or tensors, for "taylor", "fisher" and "output"
            (which does not look at the targets).
        loss: Mean loss of a batch, for "taylor" and "fisher".
        rng: For "output" and "random".

    Raises:
        Refused: The network lacks what the criterion reads; the hint names another.
    """
    rng = rng or np.random.default_rng(0)
    if criterion in ("l1", "l2", "bn_scale"):
        tensors = {name: p.detach() for name, p in network.module.named_parameters()}
        if criterion == "bn_scale":
            return norm_scales(analysis, tensors)
        return norms(analysis, tensors, power=int(criterion[1]))
    if criterion == "random":
        return rng.random(analysis.class_count)
    if criterion == "output":
        return gradient_scores(network, analysis, batches, signed_outputs(rng), power=2)
    if criterion not in NEEDS_LABELS:
        known = ("l1", "l2", "bn_scale", *NEEDS_DATA, "random")
        raise LilliputError(f"no criterion {criterion!r}", hint=nearest(criterion, known))
    if loss is None:
        raise LilliputError(f"{criterion!r} needs batches and a loss")
    power = 1 if criterion == "taylor" else 2
    return gradient_scores(network, analysis, batches, labelled(loss), power=power)


def labelled(loss: Loss) -> Objective:
    """The loss of the first output against the truth."""

    def objective(outputs: tuple[Tensor, ...], targets: Any) -> Tensor:
        if targets is None:
            raise Refused(
                "gradients need labels, and these examples have none",
                hint="use the criterion `output` or `l2`",
            )
        return loss(outputs[0], torch.as_tensor(targets))

    return objective


def signed_outputs(rng: np.random.Generator) -> Objective:
    """All outputs summed with random signs: the squared gradient of that is, on average, the sum
    of squared changes of all outputs of all examples. No labels, any task.
    """

    def objective(outputs: tuple[Tensor, ...], _targets: Any) -> Tensor:
        total = outputs[0].new_zeros(())
        for output in outputs:
            signs = rng.integers(0, 2, tuple(output.shape)) * 2 - 1
            total = total + (output * torch.from_numpy(signs).to(output)).sum()
        return total

    return objective


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
    batches: Batches,
    objective: Objective,
    *,
    power: int,
) -> Scores:
    """First-order change of the objective when a class goes: w·∂/∂w summed over its slices.

    Looked at where channels are read: there the sum is activation times gradient, the effect of
    the channel itself. A class that nothing reads is looked at where it is made. The mean over
    batches of |Σ w·g| (power 1) or of its square (power 2), summed over all readers.
    """
    twin = network.copy()
    module = twin.module
    named = dict(module.named_parameters())
    for parameter in named.values():
        if parameter.is_floating_point():
            parameter.requires_grad_()
    scores, unread, seen = np.zeros(analysis.class_count), np.zeros(analysis.class_count), 0
    with evaluating(module), torch.enable_grad():
        for inputs, targets in batches:
            module.zero_grad(set_to_none=True)
            outputs = flat_outputs(module(*(torch.as_tensor(x) for x in inputs)))
            if not any(output.requires_grad for output in outputs):
                raise Refused(
                    f"the outputs of {network.name!r} have no gradients, which this criterion "
                    "needs: its `forward` takes none, or gives whole numbers",
                    hint="use `criterion: l2`, which looks at the weights alone",
                )
            objective(outputs, targets).backward()  # type: ignore[no-untyped-call]
            changes = {n: p.detach() * p.grad for n, p in named.items() if p.grad is not None}
            for stored, change in _trainable(analysis, changes):
                _add(scores, analysis, stored, change, power=power, reads=True)
                _add(unread, analysis, stored, change, power=power, reads=False)
            seen += 1
    if not seen:
        raise LilliputError("no batch to take gradients from", hint="give at least one batch")
    return np.where(_has_reader(analysis), scores, unread) / seen


def _has_reader(analysis: Analysis) -> NDArray[np.bool_]:
    met = np.zeros(analysis.class_count, dtype=bool)
    for slot in analysis.slots:
        if slot.reads:
            met[slot.classes[slot.classes >= 0]] = True
    return met


def _trainable(
    analysis: Analysis, tensors: Mapping[str, Tensor]
) -> Iterable[tuple[Stored, Tensor]]:
    for stored in analysis.tensors:
        if stored.trainable and stored.name in tensors:
            yield stored, tensors[stored.name]


def _add(
    scores: Scores,
    analysis: Analysis,
    stored: Stored,
    values: Tensor,
    *,
    power: int | None = None,
    reads: bool | None = None,
) -> None:
    """Add, to each class, the sum of `values` over its slices of the tensor.

    With a power the sum over all slices of a class in one dimension is raised to it first. `reads`
    picks the dimensions by which channels are read.
    """
    for dim, number in enumerate(stored.slots):
        slot = analysis.slots[number]
        kept = slot.classes >= 0
        if not kept.any() or reads not in (None, slot.reads):
            continue
        others = [d for d in range(values.dim()) if d != dim]
        per_index = values.double().sum(others) if others else values.double()
        sums = np.bincount(
            slot.classes[kept], weights=per_index.cpu().numpy()[kept], minlength=len(scores)
        )
        scores += sums if power is None else np.abs(sums) ** power
