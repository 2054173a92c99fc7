"""Structured pruning: coupled channels, whole blocks, and cuts that are proven exact."""

from __future__ import annotations

from lilliput.prune.analysis import Analysis, Group
from lilliput.prune.blocks import Block, removable_blocks, remove
from lilliput.prune.cost import network_macs
from lilliput.prune.cutting import CutDiffers, cut
from lilliput.prune.edits import replay
from lilliput.prune.groups import analyse

__all__ = [
    "Analysis",
    "Block",
    "CutDiffers",
    "Group",
    "analyse",
    "cut",
    "network_macs",
    "removable_blocks",
    "remove",
    "replay",
]
