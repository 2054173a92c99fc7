"""Multiply-adds of a network, counted while it runs once."""

from __future__ import annotations

from lilliput.network import Network
from lilliput.prune.trace import trace


def network_macs(network: Network) -> int:
    """Multiply-adds of convolutions, linear maps and attention for one example.

    Element-wise work, norms and pooling are not counted, as is the custom of the field.

    Raises:
        LilliputError: The network does not run on inputs of its own declared shapes.
    """
    ledger = trace(network)
    total = sum(cost.macs for cost in ledger.costs)
    batch = int(network.example()[0].shape[0])
    return round(total / batch)
