"""From goals to a recipe, and what can be said of it before anything is spent.

The bounds are those of the smallest version that the cuts can reach: every removable block left
out, one channel of each group kept, nine weights of ten zero. Where the latency is limited that
version is timed. A budget below them is refused at once. A fixed graph is its own smallest version,
in int8 and packed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from lilliput.budget import Budget
from lilliput.candidate import Candidate
from lilliput.data.dataset import SPLITS, Dataset
from lilliput.encode.coarse import least_packed_bytes
from lilliput.errors import LilliputError, Refused
from lilliput.export.onnx_file import export_network
from lilliput.forecast import Forecast, added, told
from lilliput.meter.cost import file_cost
from lilliput.network import Network
from lilliput.prune import analyse, cut, network_macs, removable_blocks, remove
from lilliput.search.probe import least_ms
from lilliput.steps.arms import Arms
from lilliput.target import Target
from lilliput.units import format_bytes, format_count, format_ms, rounded_up

BYTES_A_WEIGHT = 0.05
"""Of a packed int8 file, nine tenths of whose weights were trained to zero."""

BYTES_OF_A_GRAPH = 200
"""Of the smallest packed file, without its weights."""

PACKED_SHARE = 0.3
"""What packing leaves of an int8 file at 3 bits a weight, which cost ResNets next to nothing."""

SHARE_FOR_SEARCH = 0.85
"""Of the time budget: ranking, screening, training. The rest is quantizing and measuring."""

SHARE_FOR_ZEROS = 0.2
"""Of the time budget, where the size is limited: single weights of the uncut network go."""

SPARSE_EPOCHS = 30

MINUTES_FOR_FILES = 0.2
"""What quantizing and measuring take even where the network is tiny."""


FIXED = (
    "an ONNX file is a fixed graph: it can be quantized and packed; steps that train or cut need "
    "the function that builds the network"
)
"""Why the only version of an `.onnx` file is itself."""


@dataclass(frozen=True)
class Bounds:
    """The network as it is and as small as the cuts can make it.

    `fixed` says why it can be neither trained nor cut, "" where it can. `least_ms` is the fastest
    run of the smallest version, None where it was not timed.
    """

    macs: float
    params: int
    least_macs: float
    least_params: int
    least_bytes: int
    least_ms: float | None = None
    blocks: tuple[str, ...] = ()
    groups: int = 0
    frozen: int = 0
    fixed: str = ""


def bounds_of(original: Candidate, target: Target | None = None) -> Bounds:
    """How far the original can shrink; nothing is trained.

    Args:
        original: A torch network, or a file.
        target: Where the smallest version is timed; None, and it is not.
    """
    network = original.network
    if network is None:
        return _bounds_of_file(original.the_artifact().path, FIXED, target)
    with TemporaryDirectory(prefix="lilliput-plan-") as folder:
        path = Path(folder) / "smallest.onnx"
        if network.fixed:
            return _bounds_of_file(export_network(network, path).path, network.fixed, target)
        return _bounds_of_network(network, path, target)


def _bounds_of_file(file: Path, fixed: str, target: Target | None) -> Bounds:
    cost = file_cost(file)
    return Bounds(
        macs=cost.macs,
        params=cost.params,
        least_macs=cost.macs,
        least_params=cost.params,
        least_bytes=least_packed_bytes(file),
        least_ms=_timed(lambda: file, target),
        fixed=fixed,
    )


def _bounds_of_network(network: Network, path: Path, target: Target | None) -> Bounds:
    """By blocks and channels together; `path` is where the smallest version may be written."""
    blocks = tuple(removable_blocks(network))
    smallest = network
    for block in blocks:
        smallest = remove(smallest, block)
    whole, least = analyse(network), analyse(smallest)
    gone = [number for group in least.prunable for number in group.classes[1:]]
    least_params = least.params(gone)
    return Bounds(
        macs=network_macs(network),
        params=network.params,
        least_macs=least.macs(gone),
        least_params=least_params,
        least_bytes=BYTES_OF_A_GRAPH + int(least_params * BYTES_A_WEIGHT),
        least_ms=_timed(lambda: export_network(cut(smallest, least, gone), path).path, target),
        blocks=blocks,
        groups=len(whole.prunable),
        frozen=len(whole.groups) - len(whole.prunable),
    )


def _timed(written: Callable[[], Path], target: Target | None) -> float | None:
    """The fastest run of this file; None where it cannot be written, or not be timed here."""
    if target is None:
        return None
    with suppress(LilliputError):
        return least_ms(written(), target)
    return None


def unreachable(bounds: Bounds, budget: Budget) -> list[Refused]:
    """Limits below what any cut can reach; each names the minimum and the option that allows it."""
    least: tuple[tuple[float | None, float | None, Callable[[float], str], str], ...] = (
        (budget.max_latency_ms, bounds.least_ms, format_ms, "--max-latency"),
        (budget.max_bytes, bounds.least_bytes, format_bytes, "--max-size"),
        (budget.max_macs, bounds.least_macs, format_count, "--max-macs"),
        (budget.max_params, bounds.least_params, format_count, "--max-params"),
    )
    reached = "this network can be cut to"
    other = "start from a smaller network"
    if bounds.fixed:
        reached = "this fixed graph can be quantized and packed to"
        other = "give the function that builds the network, which can be cut"
    return [
        Refused(
            f"the budget of {shown(limit)} is below the minimum of {shown(reachable)} that "
            f"{reached}",
            hint=f"allow at least {option} {shown(rounded_up(reachable)).replace(' ', '')}, "
            f"or {other}",
        )
        for limit, reachable, shown, option in least
        if limit is not None and reachable is not None and limit < reachable
    ]


Form = Literal["network", "program", "file"]
"""What the user's model is: a torch network, a `.pt2`, or an `.onnx`."""


def stages_for(
    *, budget: Budget, time_budget_minutes: float | None, epochs: int | None, form: Form
) -> list[dict[str, Any]]:
    """The recipe's stages for these goals: the whole chain, or what a fixed graph allows.

    Where the size is limited, files that are too large are packed, with as many bits a weight as
    the limit leaves. Where these would be too few, single weights go first, in a training. A
    network that has no layer for int8 still ends in its float files.
    """
    sized = budget.max_bytes is not None
    quantize: dict[str, Any] = {"when": "possible"}
    packed: list[dict[str, Any]] = [
        {"quantize": {**quantize, "rate": "size"}},
        {"pack": {"when": "needed"}},
    ]
    files = packed if sized else [{"quantize": quantize}]
    if form == "file":
        return files
    if form == "program":
        return [{"export": {}}, *files]
    shrink: dict[str, Any] = {"packed": PACKED_SHARE} if sized else {}
    sparse: dict[str, Any] = {
        "density": "size",
        "epochs": SPARSE_EPOCHS if epochs is None else epochs,
    }
    if epochs is not None:
        shrink["epochs"] = epochs
    if time_budget_minutes is not None:
        share = SHARE_FOR_ZEROS if sized else 0.0
        shrink |= shrink_settings(time_budget_minutes, SHARE_FOR_SEARCH - share)
        sparse["minutes"] = round(time_budget_minutes * share, 2)
    zeros = [{"prune_weights": sparse}] if sized else []
    return [{"shrink": shrink}, *zeros, {"export": {}}, *files]


def shrink_settings(minutes: float, share: float) -> dict[str, Any]:
    """What this share of the time allows; tiny networks train in seconds, so a short one is theirs.

    One finalist that is trained long beats two that are not. From an hour on a second is worth
    more than twice the epochs: the first may miss the limit by chance, and tells how much safer
    the next must be.
    """
    if minutes < 5:
        screening = {"architectures": 5, "screen_steps": 20, "finalists": 2}
    elif minutes < 60:
        screening = {"architectures": 6, "screen_steps": 60, "finalists": 1}
    else:
        screening = {"architectures": 8, "screen_steps": 100, "finalists": 2}
    search = max(minutes * share - MINUTES_FOR_FILES, minutes / 3)
    return {"minutes": round(search, 2), **screening}


@dataclass(frozen=True)
class Plan:
    """What `--dry-run` shows."""

    name: str
    bounds: Bounds
    data: Dataset
    target: Target
    budget: Budget
    stages: tuple[dict[str, Any], ...]
    minutes: float | None
    forecast: Forecast
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"plan for {self.name} on {self.target.label}"]
        lines += _bounds_lines(self.bounds)
        sizes = ", ".join(f"{name} {len(getattr(self.data, name))}" for name in SPLITS)
        lines.append(f"  data      {self.data.name}: {sizes}")
        limits = ", ".join(f"{k} ≤ {v:g}" for k, v in self.budget.limits().items())
        lines.append(f"  budget    {limits or 'none: the front spreads over speeds'}")
        lines += self._stages()
        lines.append(f"  time      {self._time()}")
        lines += [f"  warning   {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The same as plain values; seconds are from the least to the most."""
        return {
            "model": self.name,
            "target": self.target.model_dump(mode="json"),
            "bounds": asdict(self.bounds),
            "data": {
                "name": self.data.name,
                **{name: len(getattr(self.data, name)) for name in SPLITS},
            },
            "budget": self.budget.limits(),
            "stages": [dict(stage) for stage in self.stages],
            "minutes": self.minutes,
            "seconds": [list(span) for span in self.forecast.stages],
            "warnings": list(self.warnings),
        }

    def _stages(self) -> Iterator[str]:
        """A line a stage, with its time; arms are one line, and each of their steps a time."""
        spans = iter(self.forecast.stages)
        for (name, settings), *_ in (list(stage.items()) for stage in self.stages):
            steps = sum(map(len, settings.values())) if name == Arms.name else 1
            span = added(islice(spans, steps))
            yield f"  stage     {name}: {settings}, {told(span)}"

    def _time(self) -> str:
        """How long it takes: as set, else as the pace of a few batches lets expect."""
        if self.minutes is not None:
            return f"about {self.minutes:g} minutes, the time budget"
        return f"{told(self.forecast.whole)}; no --time-budget is set"


def _bounds_lines(bounds: Bounds) -> list[str]:
    least = [f"{format_count(bounds.least_macs)} MACs"]
    least.append(f"{format_count(bounds.least_params)} weights")
    least.append(format_bytes(bounds.least_bytes))
    if bounds.least_ms is not None:
        least.append(format_ms(bounds.least_ms))
    lines = [
        f"  now       {format_count(bounds.macs)} MACs, {format_count(bounds.params)} weights",
        f"  reachable {', '.join(least)}",
    ]
    if bounds.fixed:
        return [*lines, f"  cuts      none: {bounds.fixed}"]
    return [
        *lines,
        f"  blocks    {len(bounds.blocks)} can be left out: {', '.join(bounds.blocks) or 'none'}",
        (
            f"  channels  {bounds.groups} groups can be cut, {bounds.frozen} are frozen "
            "(`lilliput inspect` says why)"
        ),
    ]
