"""Where a network's `forward` turns a tensor into a number or a decision of Python's.

A file holds one graph. What Python decided by the values of one example is decided so for all of
them: the trace of an exporter has no trace of the other way.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lilliput.network import Network, flat_outputs

DECIDING = {
    *(Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__),
    *(Tensor.item, Tensor.tolist, Tensor.numpy),
}
"""What gives the values of a tensor to Python."""

LIBRARY = str(Path(torch.__file__).parent)
OURS = __file__


class _Watch(TorchFunctionMode):
    """Notes the places in the user's code at which values that come of the inputs go to Python."""

    def __init__(self, inputs: Iterable[Tensor]) -> None:
        super().__init__()
        # The tensors themselves stay too, so that no other gets the identity of one.
        self.moved = {id(tensor): tensor for tensor in inputs}
        self.places = dict[str, None]()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        moved = any(id(tensor) in self.moved for tensor in flat_outputs((args, kwargs)))
        if moved and func in DECIDING:
            self.places[_caller()] = None
        result = func(*args, **(kwargs or {}))
        if moved:
            # Other operations in place return what they wrote into.
            written = args[:1] if func is Tensor.__setitem__ else ()
            self.moved |= {id(tensor): tensor for tensor in flat_outputs((result, written))}
        return result


def _caller() -> str:
    """`net.py:12` of the innermost frame that is not the library's own; "" if there is none."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith((LIBRARY, OURS)):
        frame = frame.f_back  # type: ignore[assignment]
    return "" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def decisions(network: Network) -> tuple[str, ...]:
    """Places, as `net.py:12`, where `forward` gives a tensor's values to Python.

    Values of weights alone do not count, for they are the same for every example. What fails on
    a random example has no such place.
    """
    module, inputs = network.module, network.example(2)
    watch, training = _Watch(inputs), module.training
    try:
        with torch.no_grad(), watch:
            module.eval()(*inputs)
    except Exception:  # noqa: BLE001 - any code of the user's; who needs its answer will say it
        return ()
    finally:
        module.train(training)
    return tuple(filter(None, watch.places))


def decision_warning(network: Network) -> str:
    """A sentence on these places; "" where there are none."""
    places = decisions(network)
    if not places:
        return ""
    return (
        f"`forward` gives the values of a tensor to Python at {', '.join(places)}: a file does "
        "for all inputs what was decided for one of them"
    )
