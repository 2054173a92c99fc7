"""Tiny awkward networks: whatever is done to networks is tried on all of them.

Each holds one construct that breaks tools for pruning, export or quantization in the wild. They
build in milliseconds, with seeded weights and shaken batch norms, and run on 8×8 pictures.
"""

from __future__ import annotations

from lilliput.testing.zoo import attention, convolutions, joins, layers, views
from lilliput.testing.zoo.entry import BUILDERS, Builder, shake, tiny

__all__ = ["Builder", "shake", "tiny", "zoo"]

assert all((attention, convolutions, joins, layers, views))  # each enters its networks


def zoo() -> dict[str, Builder]:
    """Name → function that builds the network, the same one each time."""
    return dict(BUILDERS)
