"""From goals to a recipe, and what can be said of it before anything is spent.

The bounds are those of the smallest version that the cuts can reach: every removable block left
out, one channel of each group kept, two bits a weight. A budget below them is refused at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lilliput.budget import Budget
from lilliput.data.dataset import Dataset
from lilliput.errors import Refused
from lilliput.network import Network
from lilliput.prune import analyse, network_macs, removable_blocks, remove
from lilliput.target import Target
from lilliput.units import format_bytes, format_count

BYTES_A_WEIGHT = 0.25
"""Of an int8 file that is packed at 2 bits a weight."""

PACKED_SHARE = 0.3
"""What packing leaves of an int8 file at 3 bits a weight, which cost ResNets next to nothing."""

SHARE_FOR_SEARCH = 0.85
"""Of the time budget: ranking, screening, training. The rest is quantizing and measuring."""

SHARE_FOR_ZEROS = 0.2
"""Of the time budget, where the size is limited: single weights of the uncut network go."""

SPARSE_EPOCHS = 30

MINUTES_FOR_FILES = 0.2
"""What quantizing and measuring take even where the network is tiny."""


@dataclass(frozen=True)
class Bounds:
    """The network as it is and as small as the cuts can make it."""

    macs: int
    params: int
    least_macs: int
    least_params: int
    blocks: tuple[str, ...]
    groups: int
    frozen: int

    @property
    def least_bytes(self) -> int:
        return int(self.least_params * BYTES_A_WEIGHT)


def bounds_of(network: Network) -> Bounds:
    """How far blocks and channels together can shrink the network; nothing is trained."""
    blocks = tuple(removable_blocks(network))
    smallest = network
    for path in blocks:
        smallest = remove(smallest, path)
    whole, least = analyse(network), analyse(smallest)
    gone = [number for group in least.prunable for number in group.classes[1:]]
    return Bounds(
        macs=network_macs(network),
        params=network.params,
        least_macs=least.macs(gone),
        least_params=least.params(gone),
        blocks=blocks,
        groups=len(whole.prunable),
        frozen=len(whole.groups) - len(whole.prunable),
    )


def check_reachable(bounds: Bounds, budget: Budget) -> None:
    """Refuse limits below what any cut can reach.

    Raises:
        Refused: Names the limit, the reachable minimum and the option that would allow it.
    """
    least = {
        "max_bytes": (budget.max_bytes, bounds.least_bytes, format_bytes, "--max-size"),
        "max_macs": (budget.max_macs, bounds.least_macs, format_count, "--max-macs"),
        "max_params": (budget.max_params, bounds.least_params, format_count, "--max-params"),
    }
    for limit, reachable, shown, option in least.values():
        if limit is not None and limit < reachable:
            raise Refused(
                f"the budget of {shown(limit)} is below the minimum of {shown(reachable)} that "
                "this network can be cut to",
                hint=f"allow at least {option} {shown(reachable).replace(' ', '')}, or start from "
                "a smaller network",
            )


def stages_for(
    *, budget: Budget, time_budget_minutes: float | None, epochs: int | None, is_file: bool
) -> list[dict[str, Any]]:
    """The recipe's stages for these goals: what an `.onnx` file allows, or the whole chain.

    Where the size is limited, files that are too large are packed, with as many bits a weight as
    the limit leaves. Where these would be too few, single weights go first, in a training. A network
    that has no layer for int8 still ends in its float files.
    """
    sized = budget.max_bytes is not None
    quantize: dict[str, Any] = {"when": "possible"}
    packed: list[dict[str, Any]] = [
        {"quantize": {**quantize, "rate": "size"}},
        {"pack": {"when": "needed"}},
    ]
    files = packed if sized else [{"quantize": quantize}]
    if is_file:
        return files
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
    bounds: Bounds | None
    data: Dataset
    target: Target
    budget: Budget
    stages: tuple[dict[str, Any], ...]
    minutes: float | None
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"plan for {self.name} on {self.target.label}"]
        if self.bounds is not None:
            lines += _bounds_lines(self.bounds)
        sizes = ", ".join(
            f"{name} {len(getattr(self.data, name))}"
            for name in ("train", "calibration", "validation", "test")
        )
        lines.append(f"  data      {self.data.name}: {sizes}")
        limits = ", ".join(f"{k} ≤ {v:g}" for k, v in self.budget.limits().items())
        lines.append(f"  budget    {limits or 'none: the front spreads over speeds'}")
        lines += [
            f"  stage     {name}: {settings}" for s in self.stages for name, settings in s.items()
        ]
        if self.minutes is not None:
            lines.append(f"  time      about {self.minutes:g} minutes")
        lines += [f"  warning   {warning}" for warning in self.warnings]
        return "\n".join(lines)


def _bounds_lines(bounds: Bounds) -> list[str]:
    return [
        f"  now       {format_count(bounds.macs)} MACs, {format_count(bounds.params)} weights",
        (
            f"  reachable {format_count(bounds.least_macs)} MACs, "
            f"{format_count(bounds.least_params)} weights, {format_bytes(bounds.least_bytes)}"
        ),
        f"  blocks    {len(bounds.blocks)} can be left out: {', '.join(bounds.blocks) or 'none'}",
        (
            f"  channels  {bounds.groups} groups can be cut, {bounds.frozen} are frozen "
            "(`lilliput inspect` says why)"
        ),
    ]
