"""Channels cut everywhere at once, to widths that the target runs well."""

from __future__ import annotations

from collections.abc import Sequence

from lilliput.context import Context
from lilliput.errors import Refused
from lilliput.meter.layer_nets import KINDS
from lilliput.meter.widths import width_profile
from lilliput.network import Network
from lilliput.prune import analyse, cut
from lilliput.prune.allocation import Policy, RoundWidth, allocate
from lilliput.prune.importance import class_scores
from lilliput.prune.protect import protected_classes

REACH = 8
"""How far above the wanted width a cheaper one may lie."""


def narrow(network: Network, share: float, protect: Sequence[str], context: Context) -> Network:
    """The network with about `share` of its multiply-adds cut away, globally by L2 norm.

    Raises:
        Refused: Nothing can be cut on the target's width grid.
    """
    analysis = analyse(network)
    policy = Policy(
        scope="global",
        normalise="mean",
        protected=protected_classes(network, analysis, protect) if protect else frozenset(),
        round_width=target_widths(context),
    )
    chosen = allocate(
        analysis,
        class_scores(network, analysis, "l2"),
        policy,
        max_macs=analysis.macs() * (1.0 - share),
    )
    if not chosen.classes:
        raise Refused(f"no channel of {network.name!r} can go on this target's width grid")
    return cut(network, analysis, chosen.classes)


def target_widths(context: Context) -> RoundWidth:
    """The measured width grid of the target for int8, which is what it will run."""
    profile = width_profile(context.target, precisions=("int8",))

    def round_width(width: int, kind: str) -> int:
        known = kind if kind in KINDS else "conv3x3"
        return profile.round(width, known, "int8", limit=width + REACH)

    return round_width
