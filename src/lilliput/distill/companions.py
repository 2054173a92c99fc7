"""What goes along with a training: weights held to a form, a rival that learns beside the student.

A companion is told of every step. It keeps what it knows in tensors, so that a training which was
interrupted goes on with it as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lilliput.distill.losses import Observed
from lilliput.errors import LilliputError


class Companion:
    """Does nothing; each kind overrides what it needs. `share` is how far the training is, 0 to 1.

    The order of a step: the student's forward pass, `observed`, the loss, its gradients, `graded`,
    the optimiser, `stepped`.
    """

    def begin(self, student: nn.Module) -> None:
        """Before the optimiser is made: parameters may be added to the student, or replaced."""

    def optimizing(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimiser is made and knows all parameters; its state may be kept clean."""

    def observed(self, seen: Observed, share: float) -> None:
        """After the forward pass, before the student's loss is computed."""

    def graded(self, share: float) -> None:
        """The student's gradients are there, not clipped yet."""

    def stepped(self, share: float) -> None:
        """The optimiser has changed the weights."""

    def epoch_over(self) -> None:
        """The last step of an epoch is done; `state` and `facts` are asked for after this."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """What `begin` put beside the student's weights, to learn with them."""
        return ()

    def end(self) -> None:
        """The student is finished: what `begin` put in is taken out."""

    def facts(self) -> dict[str, float]:
        """Figures worth telling after each epoch."""
        return {}

    def state(self) -> dict[str, Any]:
        """All that a resumed training needs: tensors, numbers and texts."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave, after `begin`."""


class Zeros(Companion):
    """Weights that are zero stay zero, whatever momentum and decay would do to them.

    Source: Han et al., NIPS 2015, section 3 (retraining of what was pruned).
    Differs: the mask is the value, for a stored network has no other. A weight that was kept and
    happens to be exactly 0.0 stays so too; while weights still go, `Sparsening` has masks.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.masks: list[tuple[nn.Parameter, Tensor]] = []

    def begin(self, student: nn.Module) -> None:
        self.masks = [(p, p.detach() != 0) for p in parameters_of(student, self.names)]

    def graded(self, share: float) -> None:  # noqa: ARG002
        for parameter, mask in self.masks:
            if parameter.grad is not None:
                parameter.grad.mul_(mask)

    def stepped(self, share: float) -> None:  # noqa: ARG002
        with torch.no_grad():
            for parameter, mask in self.masks:
                parameter.mul_(mask)


class Shared(Companion):
    """Weights that are equal stay equal and move together; zeros stay zero.

    Each value of a tensor is one centroid. It moves by the mean of its members' gradients: the
    summed gradient of the centroid over its population.

    Source: Han, Mao, Dally, "Deep Compression", ICLR 2016, section 3.3.
    Differs: the paper subtracts the sum; the mean lets one learning rate serve clusters of 5 and
    of 5,000 weights. The mask is the value: a centroid of exactly 0.0 counts as what was pruned.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.clusters: list[tuple[nn.Parameter, Tensor, Tensor, Tensor]] = []

    def begin(self, student: nn.Module) -> None:
        self.clusters = []
        for parameter in parameters_of(student, self.names):
            values, members = torch.unique(parameter.detach(), return_inverse=True)
            counts = torch.bincount(members.flatten(), minlength=len(values))
            moves = (values != 0) / counts
            self.clusters.append((parameter, members, moves, values))

    def graded(self, share: float) -> None:  # noqa: ARG002
        for parameter, members, moves, values in self.clusters:
            if parameter.grad is not None:
                total = summed_over(parameter.grad, members, len(values))
                parameter.grad.copy_((total * moves)[members])

    def stepped(self, share: float) -> None:  # noqa: ARG002
        """Equal gradients move equal weights equally; one value a cluster makes it certain."""
        with torch.no_grad():
            for parameter, members, moves, values in self.clusters:
                first = torch.empty_like(values)
                first[members.flatten()] = parameter.detach().flatten()
                parameter.copy_(torch.where(moves != 0, first, 0.0)[members])


class Fixed(Companion):
    """Weights that do not move at all: they lie on a grid that a training would leave."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.values: list[tuple[nn.Parameter, Tensor]] = []

    def begin(self, student: nn.Module) -> None:
        self.values = [(p, p.detach().clone()) for p in parameters_of(student, self.names)]

    def graded(self, share: float) -> None:  # noqa: ARG002
        for parameter, _ in self.values:
            parameter.grad = None

    def stepped(self, share: float) -> None:  # noqa: ARG002
        with torch.no_grad():
            for parameter, values in self.values:
                parameter.copy_(values)


FORMS: dict[str, type[Zeros | Shared | Fixed]] = {"zeros": Zeros, "shared": Shared, "fixed": Fixed}
"""Forms that `Network.held` may name."""


def keepers(held: Mapping[str, str]) -> list[Companion]:
    """Companions that keep a network's weights in the form that an earlier step gave them.

    Args:
        held: {parameter name: form}, as in `Network.held`.

    Raises:
        LilliputError: A form that nobody knows.
    """
    unknown = sorted(set(held.values()) - set(FORMS))
    if unknown:
        raise LilliputError(f"no form {unknown[0]!r} of weights", hint=f"known: {', '.join(FORMS)}")
    by_form: dict[str, list[str]] = {}
    for name, form in held.items():
        by_form.setdefault(form, []).append(name)
    return [FORMS[form](names) for form, names in by_form.items()]


def summed_over(values: Tensor, members: Tensor, count: int) -> Tensor:
    """Sum of the values of each cluster: the gradient of its centroid. Shape (count,)."""
    total = values.new_zeros(count)
    return total.index_add_(0, members.flatten(), values.flatten())


def parameters_of(student: nn.Module, names: Sequence[str]) -> list[nn.Parameter]:
    """The student's parameters of these names; those that a cut took away are left out."""
    known = dict(student.named_parameters(remove_duplicate=False))
    return [known[name] for name in names if name in known]
