"""Cut coupled channels out of a network, exactly, and prove it."""

from __future__ import annotations

from collections.abc import Collection

from lilliput.errors import LilliputError, VerificationFailed
from lilliput.network import Network
from lilliput.prune.analysis import Analysis, Group
from lilliput.prune.edits import cut_edit
from lilliput.prune.trial import TOLERANCE, Bench, cut_module, removals


class CutDiffers(VerificationFailed):
    """A cut network does not compute what the zeroed one does; `groups` are the culprits."""

    def __init__(self, message: str, *, groups: tuple[Group, ...], at: str | None = None) -> None:
        self.groups = groups
        names = ", ".join(repr(layer) for group in groups for layer in group.layers[:1])
        super().__init__(message, at=at, hint=f"protect {names}, or report the network's forward")


def cut(
    network: Network, analysis: Analysis, classes: Collection[int], *, verify: bool = True
) -> Network:
    """The network without these classes of channels; parameters really get smaller.

    Args:
        network: Left as it is.
        analysis: Of this very network.
        classes: Numbers of classes, none of them frozen.
        verify: Compare with the same channels zeroed, to 1e-5 of the output's scale.

    Raises:
        LilliputError: A class is frozen or unknown, or a dimension would be left empty.
        CutDiffers: The cut network computes something else; names the groups at fault.
    """
    classes = sorted(set(classes))
    _check(network, analysis, classes)
    if not classes:
        return network
    smaller = cut_module(network.module, analysis, classes)
    if verify:
        bench = Bench(network, analysis)
        error = bench.error(classes, smaller)
        if not error <= TOLERANCE:
            raise _blame(bench, classes, error)
    return network.edited(smaller, cut_edit(removals(analysis, classes)))


def _check(network: Network, analysis: Analysis, classes: list[int]) -> None:
    for number in classes:
        if not 0 <= number < analysis.class_count:
            raise LilliputError(f"no class {number} in this analysis", at=network.name)
        if analysis.reasons[number]:
            group = analysis.group_of()[number]
            raise LilliputError(
                f"channels of {group.name!r} cannot go: {analysis.reasons[number]}",
                at=network.name,
            )
    empty = analysis.emptied(classes) if classes else None
    if empty is not None:
        raise LilliputError(
            f"the cut would leave {empty.tensor!r} without any index in dimension {empty.dim}",
            at=network.name,
            hint="keep at least one channel of each group",
        )


def _blame(bench: Bench, classes: list[int], error: float) -> CutDiffers:
    """Try each group of the cut alone and name those that differ; all of them if none does."""
    owners = bench.analysis.group_of()
    groups = tuple({id(owners[number]): owners[number] for number in classes}.values())
    chosen = set(classes)
    guilty = tuple(
        group
        for group in groups
        if not bench.error([n for n in group.classes if n in chosen]) <= TOLERANCE
    )
    named = guilty or groups
    what = (
        "does not run, or gives outputs that are not finite"
        if error == float("inf")
        else f"differs by {error:.2g} of its output from the one with the same channels zeroed"
    )
    names = ", ".join(repr(group.name) for group in named)
    return CutDiffers(
        f"the network cut in {names} {what}",
        groups=named,
        at=bench.network.name,
    )
