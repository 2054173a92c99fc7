"""torch-pruning as its own examples use it, on ResNets with zero-padded shortcuts.

Only the first convolution of each block is given to it: on the residual stream it couples channels
by equal number, which the padding shifts, and the result is silently wrong.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from lilliput.network import Network
from lilliput.prune import network_macs


def cut_by_torch_pruning(
    network: Network, max_macs: float, *, round_to: int | None = None
) -> Network:
    """Global group-norm pruning, raising the ratio until the multiply-adds fit."""
    import torch_pruning as tp

    for percent in range(30, 90):
        module = copy.deepcopy(network.module).eval()
        kept = [
            layer
            for path, layer in module.named_modules()
            if isinstance(layer, (nn.Conv2d, nn.Linear)) and not path.endswith(".conv1")
        ]
        pruner = tp.pruner.MetaPruner(
            module,
            torch.zeros(1, 3, 32, 32),
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            global_pruning=True,
            pruning_ratio=percent / 100,
            round_to=round_to,
            ignored_layers=[*kept, module.conv1],
        )
        pruner.step()
        cut = Network(module, network.inputs, "torch-pruning", network.preprocessing)
        if network_macs(cut) <= max_macs:
            return cut
    raise ValueError(f"no ratio reaches {max_macs:g} multiply-adds")
