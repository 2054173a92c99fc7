"""All rewrites of this package, in the order in which each finds what those before it bare."""

from __future__ import annotations

from lilliput.graph.affine import Follows, fold_back, fold_forward
from lilliput.graph.constants import fold_constants
from lilliput.graph.model import Graph
from lilliput.graph.padding import padding_into_convolutions, shortcuts_as_convolutions
from lilliput.graph.rewrites import Shared, drop_expands, drop_identities, merge_slices
from lilliput.graph.shapes import settle_shapes


def tidy(
    graph: Graph,
    *,
    shared: Shared | None = None,
    norms_after: Follows | None = None,
) -> int:
    """Rewrite the graph in place; it computes the same but for float rounding.

    Args:
        graph: What to rewrite.
        shared: Whether two names of one constant are one weight; see `drop_identities`.
        norms_after: Whether a batch norm may go into the layer behind it; see `fold_forward`.

    Returns:
        How many batch norms and scales went into the weights beside them.
    """
    drop_identities(graph, shared)
    fold_constants(graph)
    drop_expands(graph)
    settle_shapes(graph)
    fold_constants(graph)
    merge_slices(graph)
    shortcuts_as_convolutions(graph)
    padding_into_convolutions(graph)
    folded = fold_back(graph) + fold_forward(graph, after=norms_after)
    graph.prune()
    return folded
