"""Which widths are fast on a target: measured once, never guessed.

Kernels work in blocks of channels, so time climbs in steps, and a width off the grid can cost
twice the next one on it. The steps belong to the pair of runtime and instruction set: 16 channels
on one machine, 8 on another, none in a third library. See also users' reports of pruned networks
three times slower until their widths were rounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from lilliput.errors import LilliputError, nearest
from lilliput.meter.host import cpu_flags, saturates
from lilliput.meter.layer_nets import KINDS, LAYERS, PRECISIONS, layer_chain
from lilliput.meter.layer_times import (
    TOLERANCE,
    identity,
    kept,
    loaded,
    quiet_seconds,
    users_cache,
)
from lilliput.meter.rounds import Rounds
from lilliput.noun import Noun
from lilliput.target import Target

ALIGNED = (4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64, 80, 96, 112, 128)
UNALIGNED = (2, 6, 7, 10, 14, 15, 17, 22, 31, 33, 49, 63, 65, 98, 127)
WIDEST = {"grouped": 48}
"""Wider layers of a kind are not measured: four groups take long."""


class WidthProfile(Noun):
    """Seconds of one layer by width, kind and precision.

    `table` maps "kind/precision" to {width: seconds}, measured on 16×16 pictures, batch 1. Kinds
    are "conv3x3", "conv1x1", "depthwise" and "grouped", whose width is that of each of its groups.
    Widths in between are interpolated among those of their own alignment (multiples of four, the
    other even ones with the odd ones), widths beyond by the growth of work.
    """

    target: Target
    table: dict[str, dict[int, float]]
    machine: dict[str, object] = Field(default_factory=dict)

    def seconds(self, width: int, kind: str = "conv3x3", precision: str = "fp32") -> float:
        """Seconds of one layer of this width, with as many channels in as out."""
        measured = self._column(kind, precision)
        if width in measured:
            return measured[width]
        aligned = width % 4 == 0
        known = sorted(w for w in measured if (w % 4 == 0) == aligned)
        if width > known[-1]:
            power = 1.0 if kind == "depthwise" else 2.0
            return float(measured[known[-1]] * (width / known[-1]) ** power)
        return float(np.interp(width, known, [measured[w] for w in known]))

    def grid(self, kind: str = "conv3x3", precision: str = "fp32") -> list[int]:
        """The multiples of four worth having: no larger one costs as little."""
        measured = self._column(kind, precision)
        best = float("inf")
        kept = []
        for width in sorted((w for w in measured if w % 4 == 0), reverse=True):
            if measured[width] * (1.0 + TOLERANCE) < best:
                kept.append(width)
                best = measured[width]
        return sorted(kept)

    def round(
        self,
        width: int,
        kind: str = "conv3x3",
        precision: str = "fp32",
        *,
        limit: int | None = None,
    ) -> int:
        """The width of the grid to take in place of `width`.

        The next larger one where it costs no more (31 becomes 32, on some machines 20 does too),
        else the next smaller one (17 becomes 16). Never above `limit`, the layer's width before
        the cut; a width below the grid that nothing larger replaces stays as it is.
        """
        if width < 1:
            raise LilliputError(f"a layer cannot have {width} channels")
        grid = self._grid_past(kind, precision, width)
        above = next(w for w in grid if w >= width)
        if limit is not None:
            above = min(above, max(limit, 1))
        allowed = self.seconds(width, kind, precision) * (1.0 + TOLERANCE)
        if above >= width and self.seconds(above, kind, precision) <= allowed:
            return above
        return max((w for w in grid if w <= min(width, above)), default=min(width, above))

    def _grid_past(self, kind: str, precision: str, width: int) -> list[int]:
        """The grid, continued in steps of 16 past what was measured until it covers `width`."""
        grid = self.grid(kind, precision)
        return grid + list(range(grid[-1] + 16, width + 17, 16))

    def _column(self, kind: str, precision: str) -> Mapping[int, float]:
        key = f"{kind}/{precision}"
        if key not in self.table:
            raise LilliputError(
                f"no widths of {key!r} were measured", hint=nearest(key, self.table)
            )
        return self.table[key]


def width_profile(
    target: Target,
    *,
    cache_dir: Path | None = None,
    kinds: Sequence[str] = KINDS,
    precisions: Sequence[str] = PRECISIONS,
    widths: Sequence[int] = (*ALIGNED, *UNALIGNED),
    rounds: int = 9,
) -> WidthProfile:
    """The target's profile: measured in some seconds the first time, then read from the cache.

    Args:
        target: Where files will run.
        cache_dir: Where profiles are kept; the user's cache folder by default. A profile belongs
            to the machine, the runtime and its version, the threads and the precision.
        kinds: Kinds of layers to measure.
        precisions: "fp32" and "int8".
        widths: Widths to measure.
        rounds: Turns of each network; the median counts.
    """
    machine = identity(target)
    asked = [list(kinds), list(precisions), sorted(widths), rounds]

    def measured() -> WidthProfile:
        table = {
            f"{kind}/{precision}": measure_widths(
                target,
                kind,
                precision,
                [width for width in widths if width <= WIDEST.get(kind, width)],
                rounds=rounds,
            )
            for kind in kinds
            for precision in precisions
        }
        return WidthProfile(target=target, table=table, machine=machine)

    what = {"machine": machine, "asked": asked}
    return kept(WidthProfile, what, cache_dir or users_cache("widths"), measured)


def measure_widths(
    target: Target, kind: str, precision: str, widths: Sequence[int], *, rounds: int
) -> dict[int, float]:
    """{width: seconds a layer} of chains of equal layers, timed in shuffled rounds."""
    weight_bits = 7 if saturates(target.isa or cpu_flags()) else 8
    chains = {
        str(width): layer_chain(width, kind, precision, weight_bits=weight_bits)
        for width in sorted(set(widths))
    }
    with loaded(chains, target) as sessions:
        for session in sessions.values():
            session.burst(3)
        taker = Rounds(
            sessions,
            dict.fromkeys(sessions, (2, 5)),
            rng=np.random.default_rng(0),
            clock=lambda: 0.0,
            other_load=lambda: 0.0,
            allowed=1.0,
            patience_seconds=0.0,
        )
        taker.take_block(rounds)
        runs = taker.runs()
    return {int(name): quiet_seconds(times) / LAYERS for name, times in runs.items()}
