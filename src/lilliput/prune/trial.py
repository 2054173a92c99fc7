"""Cut equals zeroed: the one test that every cut has to pass, at run time.

A channel whose weights are all zero and a channel that is not there must give the same outputs.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor, nn

from lilliput.errors import LilliputError
from lilliput.network import Network, flat_outputs
from lilliput.prune.analysis import Analysis
from lilliput.prune.slicing import Removal, slice_module
from lilliput.prune.trace import run

TOLERANCE = 1e-5
"""Largest difference between cut and zeroed, relative to the largest output."""


FAINT = 1e-3
"""Largest size of a parameter by which nothing of what it multiplies may be seen."""


@dataclass(frozen=True)
class Suspect:
    """Classes of one kind: one signature and one set of doubtful operations behind them."""

    classes: tuple[int, ...]
    doubts: frozenset[tuple[int, int]]
    verdict: str = "fails"


def removals(analysis: Analysis, classes: Collection[int]) -> list[Removal]:
    """What cutting these classes takes from each tensor."""
    return [
        (slot.tensor, slot.dim, slot.size, tuple(indices.tolist()))
        for slot, indices in analysis.removed(classes)
    ]


def cut_module(module: nn.Module, analysis: Analysis, classes: Collection[int]) -> nn.Module:
    """A deep copy without these classes; nothing is verified."""
    smaller = copy.deepcopy(module)
    slice_module(smaller, removals(analysis, classes))
    return smaller


def _trial_module(module: nn.Module, analysis: Analysis, classes: Collection[int]) -> nn.Module:
    """The same, but tensors that are not cut are those of `module`: to be run and thrown away."""
    shared = {id(t): t for t in (*module.parameters(), *module.buffers())}
    smaller = copy.deepcopy(module, shared)
    slice_module(smaller, removals(analysis, classes))
    return smaller


@contextmanager
def zeroed(module: nn.Module, analysis: Analysis, classes: Collection[int]) -> Iterator[None]:
    """The module with every slice of these classes at zero, for the time being.

    Running statistics stay: a batch norm whose scale and shift are zero is silent whatever they
    are. `module` must not be the user's own: a copy that shares nothing with it.
    """
    kept = {tensor.name for tensor in analysis.tensors if tensor.kept_by_mask}
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    saved: dict[str, Tensor] = {}
    try:
        with torch.no_grad():
            for slot, indices in analysis.removed(classes):
                tensor = tensors[slot.tensor]
                if slot.tensor in kept:
                    continue
                saved.setdefault(slot.tensor, tensor.clone())
                tensor.index_fill_(slot.dim, torch.from_numpy(indices).to(tensor.device), 0)
        yield
    finally:
        with torch.no_grad():
            for name, before in saved.items():
                tensors[name].copy_(before)


def _is_faint(parameter: Tensor) -> bool:
    if not parameter.is_floating_point() or not parameter.numel():
        return False
    return float(parameter.detach().abs().max()) < FAINT


def difference(ours: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """Largest difference over all outputs, relative to the largest output; inf if incomparable.

    >>> difference([torch.tensor([1.0, 2.0])], [torch.tensor([1.0, 4.0])])
    0.5
    """
    if len(ours) != len(reference) or not reference:
        return float("inf")
    worst = 0.0
    for one, other in zip(ours, reference, strict=True):
        if one.shape != other.shape:
            return float("inf")
        one, other = one.double(), other.double()
        if not (torch.isfinite(one).all() and torch.isfinite(other).all()):
            return float("inf")
        if other.numel():
            scale = float(other.abs().max()) or 1.0
            worst = max(worst, float((one - other).abs().max()) / scale)
    return worst


class Bench:
    """Runs trial cuts of one network; the network itself is only copied.

    Couplings are tried on a twin without faint parameters: behind a gain that begins at zero, as
    that of a residual branch may, the outputs would not show that a cut is wrong.
    """

    def __init__(self, network: Network, analysis: Analysis) -> None:
        self.network, self.analysis = network, analysis
        self.inputs = network.example(2, seed=1)
        self.twin = copy.deepcopy(network.module)

    def error(self, classes: Collection[int], cut: nn.Module | None = None) -> float:
        """Relative difference between cut and zeroed; inf when the cut network does not run.

        In doubt (rounding of a deep network, or a real error?) both are run again in double.
        """
        whole = self.loud if cut is None else self.twin
        try:
            smaller = _trial_module(whole, self.analysis, classes) if cut is None else cut
            error = self._compare(whole, smaller, self.inputs, classes)
        except Exception:  # noqa: BLE001  # what the user's code makes of smaller tensors
            return float("inf")
        if not TOLERANCE < error < 1e-2:
            return error
        try:
            with torch.no_grad():
                doubles = copy.deepcopy(smaller).double()
                inputs = tuple(x.double() if x.is_floating_point() else x for x in self.inputs)
                return self._compare(copy.deepcopy(whole).double(), doubles, inputs, classes)
        except LilliputError:
            return error

    @cached_property
    def loud(self) -> nn.Module:
        """The twin with faint parameters drawn at random; itself where there are none.

        Where that does not give finite outputs, they stay.
        """
        faint = {n for n, p in self.twin.named_parameters() if _is_faint(p)}
        if not faint:
            return self.twin
        loud, rng = copy.deepcopy(self.twin), torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in loud.named_parameters():
                if name in faint:
                    spread = prod(parameter.shape[1:]) ** -0.5
                    drawn = torch.randn(parameter.shape, generator=rng) * spread
                    parameter.copy_(drawn)
        try:
            outputs = flat_outputs(run(self.network, loud, tuple(x.clone() for x in self.inputs)))
        except LilliputError:
            return self.twin
        return loud if all(x.isfinite().all() for x in outputs) else self.twin

    def _compare(
        self,
        whole: nn.Module,
        smaller: nn.Module,
        inputs: tuple[Tensor, ...],
        classes: Collection[int],
    ) -> float:
        fresh = [tuple(x.clone() for x in inputs) for _ in range(2)]
        ours = flat_outputs(run(self.network, smaller, fresh[0]))
        with zeroed(whole, self.analysis, classes):
            reference = flat_outputs(run(self.network, whole, fresh[1]))
            return difference(ours, reference)


def disproved(network: Network, analysis: Analysis, suspects: Sequence[Suspect]) -> list[Suspect]:
    """The suspects whose channels cannot be cut exactly, found by halving.

    All at once in the good case: one class of each kind, then half of each kind. A failure is
    traced to its kinds by trials of halves, and what is left must pass together.
    """
    bench = Bench(network, analysis)
    if not suspects or _hold(bench, suspects):
        return []
    failed = _culprits(bench, list(suspects))
    left = [suspect for suspect in suspects if suspect not in failed]
    if not _hold(bench, left):
        accepted: list[Suspect] = []
        for suspect in left:
            (accepted if _hold(bench, [*accepted, suspect]) else failed).append(suspect)
    return [_judged(bench, suspect) for suspect in failed]


def _culprits(bench: Bench, suspects: list[Suspect]) -> list[Suspect]:
    """Those that fail alone, among suspects of which some combination fails."""
    if len(suspects) == 1:
        return suspects
    middle = len(suspects) // 2
    halves = suspects[:middle], suspects[middle:]
    return [one for half in halves if not _hold(bench, half) for one in _culprits(bench, half)]


def _hold(bench: Bench, suspects: Sequence[Suspect]) -> bool:
    """Whether these can be cut exactly, in every combination that matters."""
    if not suspects:
        return True
    for chosen in _rounds(suspects):
        classes = _sparing(bench.analysis, chosen)
        if classes and not bench.error(classes) <= TOLERANCE:
            return False
    return True


def _rounds(suspects: Sequence[Suspect]) -> Iterator[list[tuple[int, ...]]]:
    """Sets of classes to cut together.

    Suspects that share a doubtful operation may hide each other's faults (two halves that shrink
    alike), so for each pair of them there is a round in which only one is cut: rounds by the
    binary digits of their rank.
    """
    yield [suspect.classes[:1] for suspect in suspects]
    yield [_half(suspect) for suspect in suspects]
    met = Counter(op for s in suspects for op in {op for op, _ in s.doubts})
    sharing = [s for s in suspects if any(met[op] > 1 for op, _ in s.doubts)]
    for digit in range((len(sharing) - 1).bit_length() if sharing else 0):
        for value in (0, 1):
            yield [_half(s) for rank, s in enumerate(sharing) if rank >> digit & 1 == value]


def _half(suspect: Suspect) -> tuple[int, ...]:
    """Every second class, the last first: constants that sit at the end are met too."""
    return suspect.classes[::-1][::2]


def _sparing(analysis: Analysis, chosen: Sequence[Sequence[int]]) -> list[int]:
    """The chosen classes, less those that would leave a dimension empty."""
    everything = [number for some in chosen for number in some]
    if analysis.emptied(everything) is None:
        return everything
    classes: list[int] = []
    for some in chosen:
        for number in some:
            if analysis.emptied([*classes, number]) is None:
                classes.append(number)
    return classes


def _judged(bench: Bench, suspect: Suspect) -> Suspect:
    single, half = (
        bench.error(_sparing(bench.analysis, [some]))
        for some in (suspect.classes[:1], _half(suspect))
    )
    error = half if single <= TOLERANCE else single
    verdict = "does not run" if error == float("inf") else f"is off by {error:.1g} of the output"
    return Suspect(suspect.classes, suspect.doubts, verdict)
