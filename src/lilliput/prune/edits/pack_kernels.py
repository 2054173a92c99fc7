"""A layer that keeps the packed form of its weight beside it."""

from __future__ import annotations

from typing import cast

from torch import nn

from lilliput.errors import LilliputError
from lilliput.frequency.bases import Kind
from lilliput.frequency.form import ATTRIBUTE, PackedForm
from lilliput.network import Edit
from lilliput.prune.edits.registry import EDITS, found

PACK = "pack_kernels"
KINDS = ("dct", "svd", "identity")


def pack_edit(path: str, form: PackedForm) -> Edit:
    """The edit that gives the layer at `path` a form of this shape."""
    return {
        "edit": PACK,
        "path": path,
        "basis": form.kind,
        "kernels": list(form.residuals.shape[1:]),
        "sides": list(form.sides),
        "centres": list(form.centres.shape),
    }


@EDITS.register(PACK)
def pack_kernels(module: nn.Module, edit: Edit) -> None:
    """Give the layer an empty form, in place; the state dict fills it."""
    layer = found(module, str(edit.get("path")))
    try:
        kernels, sides, centres = (_pair(edit[key]) for key in ("kernels", "sides", "centres"))
        kind = str(edit["basis"])
    except (KeyError, TypeError, ValueError) as error:
        raise LilliputError(f"malformed form {edit!r:.80}", hint="the file is damaged") from error
    weight = getattr(layer, "weight", None)
    size = kernels[0] * kernels[1] * sides[0] * sides[1]
    if kind not in KINDS or weight is None or weight.numel() != size or centres[0] > 256:
        raise LilliputError(f"malformed form of {edit['path']!r}", hint="the file is damaged")
    layer.add_module(ATTRIBUTE, PackedForm(cast("Kind", kind), kernels, sides, centres))


def _pair(value: object) -> tuple[int, int]:
    first, second = (int(number) for number in value)  # type: ignore[attr-defined]
    if min(first, second) < 0:
        raise ValueError("negative")
    return first, second
