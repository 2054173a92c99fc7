"""A block that an identity replaces."""

from __future__ import annotations

from torch import nn

from lilliput.network import Edit
from lilliput.prune.edits.registry import EDITS, put

REMOVE = "remove_block"


def remove_edit(path: str) -> Edit:
    """The edit that puts `nn.Identity` in the place of the module at `path`."""
    return {"edit": REMOVE, "path": path}


@EDITS.register(REMOVE)
def remove_block(module: nn.Module, edit: Edit) -> None:
    """Put the identity in, in place."""
    put_identity(module, str(edit.get("path")))


def put_identity(module: nn.Module, path: str) -> None:
    """Put `nn.Identity` in the place of the submodule at `path`, in place."""
    put(module, path, nn.Identity())
