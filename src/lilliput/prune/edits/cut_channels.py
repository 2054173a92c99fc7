"""Indices taken out of tensors: channels that went together."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from torch import nn

from lilliput.errors import LilliputError
from lilliput.network import Edit
from lilliput.prune.edits.registry import EDITS
from lilliput.prune.slicing import Removal, slice_module

CUT = "cut_channels"


def cut_edit(removals: Iterable[Removal]) -> Edit:
    """The edit that takes these indices out of these tensors."""
    return {
        "edit": CUT,
        "removed": [
            {"tensor": name, "dim": dim, "of": size, "indices": list(indices)}
            for name, dim, size, indices in removals
        ],
    }


@EDITS.register(CUT)
def cut_channels(module: nn.Module, edit: Edit) -> None:
    """Take the indices out, in place."""
    removed = edit.get("removed")
    if not isinstance(removed, (list, tuple)):
        raise LilliputError(f"malformed cut {edit!r:.80}", hint="the file is damaged")
    slice_module(module, [_removal(entry) for entry in removed])


def _removal(entry: Any) -> Removal:
    """A removal from its JSON; what a damaged file may ask for is refused."""
    try:
        name, dim, size = str(entry["tensor"]), int(entry["dim"]), int(entry["of"])
        indices = tuple(int(index) for index in entry["indices"])
    except (KeyError, TypeError, ValueError) as error:
        raise LilliputError(
            f"malformed removal {entry!r:.80}", hint="the file is damaged"
        ) from error
    ascending = all(a < b for a, b in pairwise(indices))
    if dim < 0 or not ascending or (indices and indices[0] < 0) or len(indices) >= size:
        raise LilliputError(f"malformed removal of {name!r}", hint="the file is damaged")
    return name, dim, size, indices
