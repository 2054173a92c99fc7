"""One ATen operation as a rule sees it, and the table that rules enter themselves into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import Tensor, nn

from lilliput.prune.labels import Dim, Labels, Ledger


@dataclass(frozen=True, slots=True)
class Call:
    """An operation that has just run: its schema name, arguments and result.

    `func` is the operator, or the module whose class has a rule of its own.
    """

    name: str
    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    ledger: Ledger
    labels: Callable[[Tensor], Labels]
    name_of: Callable[[Tensor], str | None]

    def arg(self, name: str, default: Any = None) -> Any:
        """The argument of this name in the operation's schema."""
        if name in self.kwargs:
            return self.kwargs[name]
        place = _places(self.func).get(name)
        if place is None or place >= len(self.args):
            return default
        return self.args[place]

    def dims_of(self, name: str) -> tuple[Labels, int]:
        """Labels of the first argument and its dimension called `name`, counted from the front."""
        labels = self.labels(self.args[0])
        return labels, int(self.arg(name, 0)) % max(len(labels), 1)

    @property
    def first(self) -> Labels:
        return self.labels(self.args[0])


Rule = Callable[[Call], "list[Labels] | None"]
"""Ties labels in the ledger; gives the labels of each output tensor, None to freeze everything."""

RULES: dict[str | type[nn.Module], Rule] = {}


def channel_rule(*names: str | type[nn.Module]) -> Callable[[Rule], Rule]:
    """Enter a rule into the table under what it is for.

    Operators and modules of the user's own are frozen unless a rule says how channels pass through
    them. What a rule says is tried before anything is cut.

    Args:
        names: ATen operations by their name, an operator of `torch.library` as "space::name", or
            a class of modules, which is then not looked into.

    Returns:
        A decorator of a function from the `Call` to the labels of each output tensor. It ties, in
        `call.ledger`, what can only go together; None in place of labels freezes everything.
    """

    def enter(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return enter


def class_rule(module: nn.Module) -> Rule | None:
    """The rule of the module's class, or of the nearest class that it is made from."""
    return next((RULES[kind] for kind in type(module).__mro__ if kind in RULES), None)


@lru_cache(maxsize=2048)
def _places(func: Any) -> dict[str, int]:
    return {argument.name: place for place, argument in enumerate(func._schema.arguments)}


def without(labels: Labels, *dims: int) -> Labels:
    """The labels less these dimensions (counted from the front)."""
    return tuple(label for place, label in enumerate(labels) if place not in dims)


def replaced(labels: Labels, place: int, dim: Dim) -> Labels:
    """The labels with one dimension's changed."""
    return (*labels[:place], dim, *labels[place + 1 :])
