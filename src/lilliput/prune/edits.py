"""Structural changes as JSON, replayed on a fresh network of the user's class.

A pruned network is delivered as the class, its edits and a plain state dict: no pickled code.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from torch import nn

from lilliput.errors import LilliputError, nearest
from lilliput.network import Edit
from lilliput.prune.slicing import Removal, slice_module

CUT = "cut_channels"
REMOVE = "remove_block"


def cut_edit(removals: Iterable[Removal]) -> Edit:
    """The edit that takes these indices out of these tensors."""
    return {
        "edit": CUT,
        "removed": [
            {"tensor": name, "dim": dim, "of": size, "indices": list(indices)}
            for name, dim, size, indices in removals
        ],
    }


def remove_edit(path: str) -> Edit:
    """The edit that puts `nn.Identity` in the place of the module at `path`."""
    return {"edit": REMOVE, "path": path}


def replay(module: nn.Module, edits: Sequence[Edit]) -> nn.Module:
    """A copy of a freshly built module after these edits, ready for the pruned state dict.

    Args:
        module: As the user's class builds it, before any edit; left as it is.
        edits: `Network.edits`, possibly from a file.

    Raises:
        LilliputError: An edit is malformed or does not fit the module.
    """
    module = copy.deepcopy(module)
    for number, edit in enumerate(edits, 1):
        try:
            apply(module, edit)
        except LilliputError as error:
            raise LilliputError(error.thing, at=f"edit {number}", hint=error.hint) from error
    return module


def apply(module: nn.Module, edit: Edit) -> None:
    """Do one edit on a module, in place."""
    kind = edit.get("edit")
    if kind == CUT:
        slice_module(module, [_removal(entry) for entry in edit.get("removed", ())])
    elif kind == REMOVE:
        put_identity(module, str(edit.get("path")))
    else:
        raise LilliputError(f"no edit {kind!r}", hint=nearest(str(kind), (CUT, REMOVE)))


def put_identity(module: nn.Module, path: str) -> None:
    """Put `nn.Identity` in the place of the submodule at `path`, in place."""
    parent_path, _, name = path.rpartition(".")
    known = dict(module.named_modules(remove_duplicate=False))
    if not path or path not in known:
        raise LilliputError(f"the network has no module {path!r}", hint=nearest(path, known))
    known[parent_path]._modules[name] = nn.Identity()


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
