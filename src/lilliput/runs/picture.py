"""The chart of a front as one SVG that needs nothing else: no script, no style sheet, no network.

It takes the colour of the text around it, so that it suits light and dark notebooks.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from lilliput.units import format_bytes

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 616, 34, 312
"""The edges of the drawing area, in pixels from the upper left corner."""

GOOD, STAR = "#0f9384", "#c77700"
"""The front and the recommended file; the original. Both can be told from white and from black."""

LOOKS = {
    "best": f'fill="{GOOD}" stroke="{GOOD}"',
    "front": f'fill="{GOOD}" fill-opacity="0.15" stroke="{GOOD}"',
    "original": f'fill="{STAR}" stroke="{STAR}"',
    "other": 'fill="currentColor" fill-opacity="0.1" stroke="currentColor" stroke-opacity="0.5"',
}
SAID = {"best": "recommended", "front": "on the front", "original": "the original"}


@dataclass(frozen=True)
class Axis:
    """Values to pixels. Times and sizes are ratios: far apart, they are put on a log scale."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def of_ratios(cls, values: Sequence[float], start: float, end: float) -> Axis:
        low, high = min(values), max(values)
        if low > 0 and high / low > 3:
            return cls(low / 1.25, high * 1.25, start, end, log=True)
        room = 0.12 * (high - low or high or 1.0)
        return cls(max(low - room, 0.0), high + room, start, end)

    @classmethod
    def of_scores(cls, values: Sequence[float], start: float, end: float) -> Axis:
        low, high = min(values), max(values)
        room = 0.14 * (high - low or 0.05 * abs(high) or 1.0)
        return cls(low - room, high + room, start, end)

    def __call__(self, value: float) -> float:
        low, high = (math.log(x) if self.log else x for x in (self.low, self.high))
        at = math.log(value) if self.log else value
        return round(self.start + (at - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """Round values, about five of them."""
        if self.log:
            steps = (1, 2, 5) if self.high / self.low < 100 else (1,)
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)))
            found = [step * 10.0**power for power in powers for step in steps]
        else:
            step = _round_step((self.high - self.low) / 5)
            first = math.ceil(self.low / step)
            found = [n * step for n in range(first, math.floor(self.high / step) + 1)]
        return [tick for tick in found if self.low <= tick <= self.high]


def picture(chart: Mapping[str, Any]) -> str:
    """What `chart_of` says, drawn; "" where no file can be a point."""
    across = "latency" if any(p["latency"] is not None for p in chart["points"]) else "bytes"
    points = [point for point in chart["points"] if point[across] is not None]
    if not points:
        return ""
    limits = chart["limits"]
    spans = [end for p in points if p["onFront"] for end in p["metricRange"] or ()]
    scores = [p["metric"] for p in points] + spans + [limits[k] for k in ("metric",) if k in limits]
    values = [p[across] for p in points] + [limits[k] for k in (across,) if k in limits]
    best_on_top = chart["higher_is_better"]
    x = Axis.of_ratios(values, LEFT, RIGHT)
    y = Axis.of_scores(scores, *((BOTTOM, TOP) if best_on_top else (TOP, BOTTOM)))
    said = f"{chart['metric']} against {'time' if across == 'latency' else 'size'}"
    parts = [
        *_grid(x, y, across, chart["metric"]),
        *_limit_lines(x, y, limits, across),
        _front_line(points, x, y, across, best_on_top=best_on_top),
        *(_interval(point, x, y, across) for point in points),
        *(_mark(point, x(point[across]), y(point["metric"])) for point in _best_last(points)),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" style="max-width: 100%" role="img" aria-label="{html.escape(said)}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="currentColor">{"".join(parts)}'
        "</svg>"
    )


def _grid(x: Axis, y: Axis, across: str, metric: str) -> Iterator[str]:
    for tick in x.ticks():
        text = f"{tick:.4g}" if across == "latency" else format_bytes(tick)
        yield _line(x(tick), TOP, x(tick), BOTTOM, 'stroke-opacity="0.15"')
        yield _text(x(tick), BOTTOM + 17, text, 'text-anchor="middle" fill-opacity="0.7"')
    for tick in y.ticks():
        yield _line(LEFT, y(tick), RIGHT, y(tick), 'stroke-opacity="0.15"')
        yield _text(LEFT - 8, y(tick) + 4, f"{tick:.5g}", 'text-anchor="end" fill-opacity="0.7"')
    yield _text(LEFT, BOTTOM + 38, f"← {'latency, ms' if across == 'latency' else 'size'}")
    yield _text(8, TOP - 16, f"↑ {metric}")


def _limit_lines(x: Axis, y: Axis, limits: Mapping[str, float], across: str) -> Iterator[str]:
    dotted = f'stroke-dasharray="2 4" style="stroke: {STAR}"'
    if across in limits:
        at = x(limits[across])
        yield _line(at, TOP, at, BOTTOM, dotted)
        yield _text(at + 5, BOTTOM - 6, "limit", 'fill-opacity="0.7"')
    if "metric" in limits:
        at = y(limits["metric"])
        yield _line(LEFT, at, RIGHT, at, dotted)
        yield _text(RIGHT, at - 5, "limit", 'text-anchor="end" fill-opacity="0.7"')


def _front_line(
    points: Sequence[Mapping[str, Any]], x: Axis, y: Axis, across: str, *, best_on_top: bool
) -> str:
    """The steps that no file on the front lies beyond, in this view of it."""
    sign = 1 if best_on_top else -1
    kept: list[tuple[float, float]] = []
    for point in sorted((p for p in points if p["onFront"]), key=lambda p: p[across]):
        if not kept or sign * point["metric"] > sign * kept[-1][1]:
            kept.append((point[across], point["metric"]))
    steps = [(x(b[0]), y(height)) for a, b in pairwise(kept) for height in (a[1], b[1])]
    corners = [(x(a), y(b)) for a, b in kept[:1]] + steps
    path = " ".join(f"{right},{down}" for right, down in corners)
    return f'<polyline points="{path}" fill="none" stroke="{GOOD}" stroke-opacity="0.5"/>'


def _interval(point: Mapping[str, Any], x: Axis, y: Axis, across: str) -> str:
    """Thin lines for 95 % of each figure, cut at the edges."""
    faint, at = 'stroke-opacity="0.45"', (x(point[across]), y(point["metric"]))
    found = ""
    if across == "latency" and point["latencyRange"]:
        low, high = (min(max(x(end), LEFT), RIGHT) for end in point["latencyRange"])
        found += _line(low, at[1], high, at[1], faint)
    if point["metricRange"]:
        low, high = (min(max(y(end), TOP), BOTTOM) for end in point["metricRange"])
        found += _line(at[0], low, at[0], high, faint)
    return found


def _best_last(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    order = ("other", "front", "original", "best")
    return sorted(points, key=lambda point: order.index(point["kind"]))


def _mark(point: Mapping[str, Any], across: float, up: float) -> str:
    """A circle, or the original's star; its figures show where it is pointed at."""
    kind, look = point["kind"], LOOKS[point["kind"]]
    figures = "\n".join(f"{name}: {text}" for name, text in point["details"] if text)
    title = f"{point['name']}, {SAID.get(kind, 'beaten')}\n{figures}"
    name = ""
    if kind == "original":
        shape = f'<polygon points="{_star(across, up)}" {look}/>'
    else:
        radius = 7 if kind == "best" else 5
        shape = f'<circle cx="{across}" cy="{up}" r="{radius}" stroke-width="1.75" {look}/>'
    if kind in ("best", "original"):
        right = across > (LEFT + RIGHT) / 2
        name = _text(
            across + (6 if right else -6),
            up + (-14 if kind == "best" else 22),
            point["name"],
            f'text-anchor="{"end" if right else "start"}"',
        )
    return f"<g><title>{html.escape(title)}</title>{shape}{name}</g>"


def _star(across: float, up: float) -> str:
    """Five points around the middle."""
    corners = []
    for n in range(10):
        radius, angle = (9 if n % 2 == 0 else 4), math.pi * (n / 5 - 0.5)
        at = (across + radius * math.cos(angle), up + radius * math.sin(angle))
        corners.append(f"{at[0]:.1f},{at[1]:.1f}")
    return " ".join(corners)


def _round_step(rough: float) -> float:
    """The next of 1, 2, 5, 10, ... at or above."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999)


def _line(x1: float, y1: float, x2: float, y2: float, look: str) -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="currentColor" {look}/>'


def _text(x: float, y: float, text: str, look: str = "") -> str:
    return f'<text x="{x}" y="{y}" {look}>{html.escape(text)}</text>'
