"""The kinds of edits by name, and their replay."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

from torch import nn

from lilliput.errors import LilliputError, nearest
from lilliput.network import Edit
from lilliput.registry import Registry

EDITS: Registry[Callable[[nn.Module, Edit], None]] = Registry("edit", "lilliput.prune.edits")
"""{the entry "edit" of an edit: the function that does it on a module, in place}."""


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
    EDITS[str(edit.get("edit"))](module, edit)


def put(module: nn.Module, path: str, part: nn.Module) -> None:
    """Put another module in the place of the submodule at `path`, in place.

    Raises:
        LilliputError: There is no such submodule.
    """
    found(module, path)
    parent_path, _, name = path.rpartition(".")
    dict(module.named_modules(remove_duplicate=False))[parent_path]._modules[name] = part


def found(module: nn.Module, path: str) -> nn.Module:
    """The submodule at `path`.

    Raises:
        LilliputError: There is none.
    """
    known = dict(module.named_modules(remove_duplicate=False))
    if not path or path not in known:
        raise LilliputError(f"the network has no module {path!r}", hint=nearest(path, known))
    part: nn.Module = known[path]
    return part
