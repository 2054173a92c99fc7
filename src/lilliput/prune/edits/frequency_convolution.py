"""A convolution that its running form in the frequency domain replaces."""

from __future__ import annotations

from torch import nn

from lilliput.errors import LilliputError
from lilliput.frequency.running import FrequencyConv2d, can_run
from lilliput.network import Edit
from lilliput.prune.edits.registry import EDITS, found, put

RUN = "frequency_convolution"


def frequency_edit(path: str, count: int) -> Edit:
    """The edit that puts `count` basis pictures and a mixture in the place of a convolution."""
    return {"edit": RUN, "path": path, "count": count}


@EDITS.register(RUN)
def frequency_convolution(module: nn.Module, edit: Edit) -> None:
    """Put a form with fresh weights in, in place; the state dict fills it."""
    path = str(edit.get("path"))
    layer, count = found(module, path), edit.get("count")
    if not isinstance(layer, nn.Conv2d) or not can_run(layer):
        raise LilliputError(
            f"{path!r} is no convolution that has a form in the frequency domain",
            hint="these edits were made on a network of another class or configuration",
        )
    most = layer.kernel_size[0] * layer.kernel_size[1]
    if not isinstance(count, int) or not 0 < count <= most:
        raise LilliputError(
            f"{path!r} has {most} bases, and the edit keeps {count!r}", hint="the file is damaged"
        )
    put(module, path, FrequencyConv2d(layer, count).train(layer.training))
