"""Layers that must come out of a cut as they went in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from lilliput.errors import LilliputError, Mistakes, Refused, nearest
from lilliput.network import Network
from lilliput.prune.analysis import Analysis


def matching_modules(network: Network, patterns: Sequence[str]) -> frozenset[str]:
    """Paths of the modules that the globs name, with all that lies within them.

    Raises:
        Refused: A glob matches nothing; the hint lists the nearest paths.
        Mistakes: Several do.
    """
    paths = [path for path, _ in network.module.named_modules(remove_duplicate=False) if path]
    found: set[str] = set()
    missed: list[LilliputError] = []
    for pattern in patterns:
        matched = [path for path in paths if fnmatchcase(path, pattern)]
        if not matched:
            missed.append(
                Refused(
                    f"no layer of {network.name!r} matches {pattern!r}",
                    hint=nearest(pattern, paths),
                )
            )
        for head in matched:
            found |= {path for path in paths if path == head or path.startswith(f"{head}.")}
    if len(missed) == 1:
        raise missed[0]
    if missed:
        raise Mistakes(missed, at="protect")
    return frozenset(found)


def protected_classes(
    network: Network, analysis: Analysis, patterns: Sequence[str]
) -> frozenset[int]:
    """Classes that touch any tensor of the named modules: neither inputs nor outputs may go."""
    modules = matching_modules(network, patterns)
    names = {tensor.name for tensor in analysis.tensors}
    owned = set(_owned(network, modules)) & names
    return frozenset(
        int(number)
        for slot in analysis.slots
        if slot.tensor in owned
        for number in slot.classes
        if number >= 0
    )


def _owned(network: Network, modules: Iterable[str]) -> Iterable[str]:
    """Names, as the analysis knows them, of the tensors of these modules; shared ones included."""
    first: dict[int, str] = {}
    module = network.module
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        first.setdefault(id(tensor), name)
    for path in modules:
        part = module.get_submodule(path)
        for held in [*part._parameters.values(), *part._buffers.values()]:
            if held is not None and id(held) in first:
                yield first[id(held)]
