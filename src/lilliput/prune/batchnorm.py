"""Running statistics of batch norms taken anew after a cut.

A network that lost channels or blocks sees other means and variances than those it remembers;
with fresh ones most of the accuracy that a cut seems to cost is back, without any training.
Source: Li et al., "EagleEye", ECCV 2020, section 3.3 (adaptive batch normalization).
Differs: statistics are the average over the batches with equal weights, not a moving one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lilliput.data.dataset import Array
from lilliput.errors import LilliputError
from lilliput.network import Network
from lilliput.prune.trace import evaluating

Inputs = Sequence[Array | Tensor]


def reestimate(network: Network, batches: Iterable[Inputs]) -> Network:
    """The network with the statistics of its batch norms measured on these inputs.

    Args:
        network: Left as it is. Without batch norms that keep statistics it is returned unchanged.
        batches: Network inputs, (N, ...) each, as arrays or tensors; no labels are needed.

    Raises:
        LilliputError: There was no batch.
    """
    fresh = network.copy()
    norms: list[Any] = [part for part in fresh.module.modules() if _keeps_statistics(part)]
    if not norms:
        return network
    device = next((p.device for p in fresh.module.parameters()), torch.device("cpu"))
    momenta = [norm.momentum for norm in norms]
    seen = 0
    with torch.no_grad(), evaluating(fresh.module):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum, norm.training = None, True
        for batch in batches:
            fresh.module(*(_tensor(x).to(device) for x in batch))
            seen += 1
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum, norm.training = momentum, False
    if not seen:
        raise LilliputError(
            "no batch to take batch-norm statistics from", hint="give at least one batch of inputs"
        )
    return fresh


def _keeps_statistics(part: nn.Module) -> bool:
    return isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None


def _tensor(value: Array | Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value
