"""How much the network's outputs care for each single weight: mean squared gradients.

Source: Theis et al., "Faster gaze prediction with dense networks and Fisher pruning", 2018, 2.1.
Differs: of the outputs with random signs, not of the loss: it needs no labels, works for any task,
and does not vanish on examples that a trained network gets right.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from lilliput.context import Context
from lilliput.errors import LilliputError
from lilliput.network import Network, flat_outputs
from lilliput.prune.from_context import GRADIENT_BATCH, examples
from lilliput.prune.importance import Batches, signed_outputs
from lilliput.prune.trace import evaluating

Importance = Annotated[
    Literal["none", "fisher"],
    Field(description="whether errors count as much as the outputs care for the weight"),
]
ScoreImages = Annotated[int, Field(ge=1, description="examples for the importance")]


def squared_gradients(
    network: Network, batches: Batches, names: Collection[str], rng: np.random.Generator
) -> dict[str, Tensor]:
    """Mean over the batches of the squared gradient of the outputs, for the named parameters.

    Args:
        network: Left as it is.
        batches: (inputs, targets); targets are not looked at. Small batches tell more.
        names: Of parameters.
        rng: Draws the signs.

    Raises:
        LilliputError: There was no batch.
    """
    module = network.copy().module
    chosen = {name: p for name, p in module.named_parameters() if name in names}
    for parameter in chosen.values():
        parameter.requires_grad_()
    sums = {name: torch.zeros_like(p) for name, p in chosen.items()}
    objective, seen = signed_outputs(rng), 0
    with evaluating(module), torch.enable_grad():
        for inputs, targets in batches:
            module.zero_grad(set_to_none=True)
            outputs = flat_outputs(module(*(torch.as_tensor(x) for x in inputs)))
            objective(outputs, targets).backward()  # type: ignore[no-untyped-call]
            for name, parameter in chosen.items():
                if parameter.grad is not None:
                    sums[name] += parameter.grad.square()
            seen += 1
    if not seen:
        raise LilliputError("no batch to take gradients from", hint="give at least one batch")
    return {name: total / seen for name, total in sums.items()}


def importance_of(
    network: Network, context: Context, names: Collection[str], count: int
) -> dict[str, Tensor]:
    """`squared_gradients` on about `count` training examples of the run, a few at a time."""
    batches = examples(network, context, count, GRADIENT_BATCH["output"])
    return squared_gradients(network, batches, names, context.rng("importance", "signs"))
