"""Run a network once and write down what happens to every channel.

A dispatch mode sees each ATen operation after autograd and decompositions, whatever Python the
user's forward is made of: branches, loops and custom modules are simply run. Operations without a
rule freeze what they touch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode

from lilliput.errors import LilliputError
from lilliput.network import Network, flat_outputs
from lilliput.prune import rules_shape as _shape  # noqa: F401  # enters its rules into the table
from lilliput.prune.call import RULES, Call, Rule, class_rule
from lilliput.prune.labels import BATCH, CONSTANT, INPUT, Labels, Ledger
from lilliput.prune.rules_math import rule_for

OUTPUT = "it is the network's output"


def trace(network: Network, *, choices: Mapping[int, int] | None = None) -> Ledger:
    """The ledger of one run on random inputs, in eval mode, without gradients.

    Args:
        network: Left as it is.
        choices: For doubtful operations, by number, which of their readings to take.

    Raises:
        LilliputError: The network does not run on inputs of its own declared shapes.
    """
    ledger = Ledger(choices=choices or {})
    module = copy.deepcopy(network.module)  # a run may change buffers
    mode = _Tracer(module, ledger)
    inputs = network.example()
    for tensor in inputs:
        mode.put(tensor, (BATCH, *[INPUT] * (tensor.dim() - 1))[: tensor.dim()])
    with _modules_followed(module, mode.enter, mode.leave), _in_plain_operations():
        outputs = run(network, module, inputs, mode)
    ledger.path, ledger.op = "", "output"
    for tensor in flat_outputs(outputs):
        for dim in mode.labels(tensor):
            ledger.freeze(dim, OUTPUT)
    return ledger


def run(
    network: Network,
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    mode: TorchDispatchMode | None = None,
) -> Any:
    """Outputs of the module in eval mode without gradients, random numbers seeded."""
    with torch.no_grad(), evaluating(module), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            if mode is None:
                return module(*inputs)
            with mode:
                return module(*inputs)
        except LilliputError:
            raise
        except Exception as error:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
            raise LilliputError(
                f"the network does not run on inputs of {shapes}: {error}",
                at=network.name,
                hint="check the input shapes that the network was declared with",
            ) from error


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode for the time being. Flags are set one by one: exported modules have no `eval()`.

    The fused attention of `nn.MultiheadAttention` is off, so that its parts can be seen.
    """
    training = [part for part in module.modules() if part.training]
    fused = torch.backends.mha.get_fastpath_enabled()
    for part in training:
        part.training = False
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        for part in training:
            part.training = True
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def _in_plain_operations() -> Iterator[None]:
    """Without oneDNN, whose recurrent layer is one operation that says nothing of its products."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


@contextmanager
def _modules_followed(
    module: nn.Module,
    enter: Callable[[str, nn.Module], None],
    leave: Callable[[nn.Module, tuple[Any, ...], Any], None],
) -> Iterator[None]:
    """Call `enter(path, part)` and `leave(part, inputs, output)` around each submodule's forward.

    Global hooks, so that not even a hook is left on the user's modules.
    """
    paths = {id(part): path for path, part in module.named_modules()}

    def before(part: nn.Module, _inputs: object) -> None:
        if id(part) in paths:
            enter(paths[id(part)], part)

    def after(part: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
        if id(part) in paths:
            leave(part, inputs, output)

    handles = (
        register_module_forward_pre_hook(before),
        register_module_forward_hook(after, always_call=True),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Labels every tensor that the run makes. Tensors are kept alive: their ids are keys."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: guarding against the compiler would import it, which takes seconds."""
        return False

    def __init__(self, module: nn.Module, ledger: Ledger) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ledger = ledger
        self._labels: dict[int, Labels] = {}
        self._names: dict[int, str] = {}
        self._places: dict[tuple[int, ...], Tensor] = {}
        self._alive: list[Tensor] = []
        self._paths: list[str] = [""]
        self._closed: list[nn.Module] = []
        for name, parameter in module.named_parameters():
            self._seed(name, parameter, trainable=True)
        for name, buffer in module.named_buffers():
            self._seed(name, buffer, trainable=False)

    def _seed(self, name: str, tensor: Tensor, *, trainable: bool) -> None:
        self._names[id(tensor)] = name
        self._places[_place(tensor)] = tensor
        self.put(tensor, self.ledger.seed(name, tuple(tensor.shape), trainable=trainable))

    def put(self, tensor: Tensor, labels: Labels) -> None:
        self._labels[id(tensor)] = labels
        self._alive.append(tensor)

    def enter(self, path: str, part: nn.Module) -> None:
        self._paths.append(path)
        if not self._closed and class_rule(part) is not None:
            self._closed.append(part)

    def leave(self, part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        found = class_rule(part)
        if self._closed and self._closed[-1] is part and found is not None:
            self._closed.pop()
            name = type(part).__name__
            self.ledger.path, self.ledger.op = self._paths[-1], name
            self._apply(found, self._call(name, part, inputs, {}, output))
            self._doubt([*inputs, output, *part.parameters(), *part.buffers()])
        self._paths.pop()

    def labels(self, tensor: Tensor) -> Labels:
        """What is known of a tensor; one that was never seen is a constant of the code."""
        known = self._labels.get(id(tensor))
        if known is not None and len(known) == tensor.dim():
            return known
        twin = self._places.get(_place(tensor))
        if twin is not None:
            return self._labels[id(twin)]
        return (CONSTANT,) * tensor.dim()

    def name_of(self, tensor: Tensor) -> str | None:
        return self._names.get(id(tensor))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        outputs = flat_outputs(out)
        ledger = self.ledger
        ledger.op_number += 1
        space, _, name = func._schema.name.partition("::")
        ledger.path, ledger.op = self._paths[-1], name
        self._note_use(flat_outputs([args, list(kwargs.values())]))
        if not outputs or self._closed:
            return out
        call = self._call(name, func, args, kwargs, out)
        if space == "aten":
            self._apply(rule_for(name, is_pointwise=torch.Tag.pointwise in func.tags), call)
        else:
            own = RULES.get(f"{space}::{name}")
            self._apply(own, call)
            if own is not None:
                self._doubt([args, list(kwargs.values()), out])
        if name in ("t", "detach", "alias") and id(args[0]) in self._names:
            self._names[id(out)] = self._names[id(args[0])]
        return out

    def _call(
        self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
    ) -> Call:
        return Call(name, func, args, kwargs, out, self.ledger, self.labels, self.name_of)

    def _apply(self, rule: Rule | None, call: Call) -> None:
        """Label the outputs as the rule says; without one, nothing that it touches may change."""
        outputs = flat_outputs(call.out)
        labels = None if rule is None else rule(call)
        if labels is None:
            inputs = flat_outputs([call.args, list(call.kwargs.values())])
            labels = self._opaque(call.name, inputs, outputs)
        for tensor, label in zip(outputs, labels, strict=False):
            if len(label) == tensor.dim():
                self.put(tensor, label)

    def _doubt(self, tensors: Any) -> None:
        """What a rule of the user's own says of these is proven by a trial."""
        for tensor in flat_outputs(tensors):
            for dim in self.labels(tensor):
                self.ledger.doubt(dim)

    def _note_use(self, inputs: tuple[Tensor, ...]) -> None:
        for tensor in inputs:
            name = self._names.get(id(tensor))
            if name is None:
                twin = self._places.get(_place(tensor))
                name = None if twin is None else self._names[id(twin)]
            if name is not None:
                self.ledger.first_use.setdefault(name, self.ledger.op_number)

    def _opaque(
        self, name: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]
    ) -> list[Labels]:
        """Nothing is known of how channels pass here, so none of them may change."""
        for tensor in inputs:
            for dim in self.labels(tensor):
                self.ledger.freeze(dim, "there is no rule for how channels pass through it")
        why = f"it comes from {name}, for which there is no rule"
        return [(why,) * tensor.dim() for tensor in outputs]


def _place(tensor: Tensor) -> tuple[int, ...]:
    """Where a tensor lies in memory and how: equal for `parameter` and `parameter.data`."""
    try:
        address = tensor.data_ptr()
    except RuntimeError:
        return (id(tensor),)
    return (address, tensor.storage_offset(), *tensor.shape, -1, *tensor.stride())
