"""Public test equipment: tiny awkward networks, tiny data, and the contracts of what plugs in.

A package that adds a step, runtime or task inherits the contract's tests:

    from lilliput.testing import StepContract

    class TestMine(StepContract):
        stages = (Mine(), Mine(strength=0.5))
"""

from __future__ import annotations

from lilliput.testing.contracts import (
    EditContract,
    RuntimeContract,
    StepContract,
    TaskContract,
)
from lilliput.testing.search_contracts import EncodingContract, SearchContract
from lilliput.testing.tiny import Heard, tiny_context, tiny_data, tiny_network

__all__ = [
    "EditContract",
    "EncodingContract",
    "Heard",
    "RuntimeContract",
    "SearchContract",
    "StepContract",
    "TaskContract",
    "tiny_context",
    "tiny_data",
    "tiny_network",
]
