"""Smaller versions of a network: whole blocks left out, channels cut to widths that pay.

Each is described by its edits alone. Replaying them on the original gives the same weights again,
so a journal line is enough to rebuild an architecture after a crash.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lilliput.network import Edit, Network
from lilliput.prune.edits import replay

EVALUATED_A_ROUND = 3
"""Blocks re-examined after each removal, best ones first; all are examined in the first round."""


@dataclass(frozen=True)
class Architecture:
    """A smaller version of the original. `narrowed` is the share of channels aimed at."""

    key: str
    removed: tuple[str, ...]
    narrowed: float
    edits: tuple[Edit, ...]

    def build(self, original: Network) -> Network:
        """The network with the original's weights in what is left of it."""
        module = replay(copy.deepcopy(original.module), self.edits)
        return replace(original, module=module.eval(), edits=(*original.edits, *self.edits))


def name_of(removed: Sequence[str], narrowed: float) -> str:
    """A short name that is also a file's: "b3-w25" has 3 blocks less and 25 % fewer channels."""
    parts = [f"b{len(removed)}"] if removed else []
    parts += [f"w{round(100 * narrowed)}"] if narrowed else []
    return "-".join(parts) or "whole"


def block_chain(
    blocks: Sequence[str],
    saved: Mapping[str, float],
    loss_without: Callable[[tuple[str, ...]], float],
    *,
    most: int,
) -> Iterator[tuple[str, ...]]:
    """Ever larger sets of blocks to leave out, each the last one and one more.

    The block that goes next saves the most time per added loss.

    Args:
        blocks: Paths of removable blocks.
        saved: Share of the latency that each saves alone, measured.
        loss_without: The metric lost without these blocks, after cheap repair.
        most: Number of blocks in the last set.
    """
    alone = {block: loss_without((block,)) for block in blocks}
    gone: tuple[str, ...] = ()
    lost = 0.0
    while len(gone) < min(most, len(blocks)):
        left = sorted(
            (b for b in blocks if b not in gone),
            key=lambda b: _worth(saved[b], alone[b]),
            reverse=True,
        )
        trials = {
            block: alone[block] if not gone else loss_without((*gone, block))
            for block in left[: len(left) if not gone else EVALUATED_A_ROUND]
        }
        best = max(trials, key=lambda b: _worth(saved[b], trials[b] - lost))
        gone, lost = (*gone, best), trials[best]
        yield gone


def _worth(saved: float, lost: float) -> float:
    """Time saved per loss; a small constant keeps free removals comparable by what they save."""
    return max(saved, 0.0) / (max(lost, 0.0) + 0.25)


def spread(items: Sequence[str], count: int) -> list[str]:
    """At most `count` of the items, the first and the last among them, evenly spaced."""
    if len(items) <= count:
        return list(items)
    if count == 1:
        return [items[len(items) // 2]]
    picked = {round(n * (len(items) - 1) / (count - 1)) for n in range(count)}
    return [items[n] for n in sorted(picked)]


def unique(architectures: Iterable[Architecture]) -> list[Architecture]:
    """Without those whose edits equal an earlier one's (a width grid makes small cuts vanish)."""
    found: dict[str, Architecture] = {}
    for architecture in architectures:
        found.setdefault(repr(architecture.edits), architecture)
    return list(found.values())
