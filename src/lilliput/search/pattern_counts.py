"""What patterns cost the layers of a network, and how many fit into a share of its time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from lilliput.context import Context
from lilliput.errors import Refused
from lilliput.export.onnx_file import export_network
from lilliput.frequency.counts import Counts, Found, energy_of, forms_of, within_goal
from lilliput.frequency.running import pads_of
from lilliput.meter.layer_times import TOLERANCE, loaded, quiet_seconds
from lilliput.meter.pattern_times import SPATIAL, Place, framed, pattern_times
from lilliput.meter.stopwatch import Pace, collect
from lilliput.network import Network
from lilliput.onnx_io import read_model
from lilliput.search.running import timed_within

CHANGED = "in the frequency domain"
ROUNDS, SECONDS = 15, 3.0
Ratios = Mapping[str, Mapping[int, float]]
"""{layer: {number of patterns: its time relative to the layer as it is}}."""


def places_of(network: Network, paths: Sequence[str]) -> dict[str, Place]:
    """{path: the convolution on the network's example input}; one that is not run is left out."""
    module = network.copy().module.eval()
    sides: dict[str, tuple[int, int]] = {}

    def keep(path: str) -> Any:
        return lambda _, inputs: sides.update({path: tuple(inputs[0].shape[2:])})

    for path in paths:
        module.get_submodule(path).register_forward_pre_hook(keep(path))
    with torch.no_grad():
        module(*network.example(1))
    return {
        path: _place(module.get_submodule(path), sides[path]) for path in paths if path in sides
    }


def _place(layer: nn.Module, sides: tuple[int, int]) -> Place:
    assert isinstance(layer, nn.Conv2d)
    return Place(
        inputs=layer.in_channels,
        outputs=layer.out_channels,
        kernel=layer.kernel_size,
        stride=layer.stride,
        pads=pads_of(layer),
        dilation=layer.dilation,
        sides=sides,
    )


def ratios_of(places: Mapping[str, Place], context: Context) -> Ratios:
    """What each number of patterns takes on the target, of the layer's own time."""
    return {
        path: pattern_times(place, context.target, progress=context.progress).ratios()
        for path, place in context.progress.track(
            places.items(), label="timing patterns of layers", total=len(places)
        )
    }


def shares_of(places: Mapping[str, Place], network: Network, context: Context) -> dict[str, float]:
    """{path: the layer's time in the network's}, all timed in the same rounds.

    What is around a layer while it is timed counts as its own; it drops out of differences.
    """
    alike = {place: str(number) for number, place in enumerate(dict.fromkeys(places.values()))}
    with TemporaryDirectory(prefix="lilliput-patterns-") as folder:
        whole = read_model(export_network(network, Path(folder) / "network.onnx").path)
    models = {"network": whole, **{name: framed(p, SPATIAL) for p, name in alike.items()}}
    with loaded(models, context.target) as sessions:
        readings = collect(
            sessions,
            "network",
            Pace(min_rounds=ROUNDS, max_seconds=SECONDS),
            seed=context.derived_seed("patterns") % 2**32,
            progress=context.progress,
        )
    seconds = {name: quiet_seconds(runs) for name, runs in readings.runs.items()}
    return {path: seconds[alike[place]] / seconds["network"] for path, place in places.items()}


def counts_within(
    goal: float,
    carried: Mapping[str, Sequence[float]],
    ratios: Ratios,
    network: Network,
    changed: Callable[[Counts], Network],
    context: Context,
) -> Found:
    """The patterns of each layer that carry the most in a network that keeps the goal.

    Args:
        goal: Share of the network's time on the target, at most; the upper end of the measured
            interval must keep it.
        carried: {path: share of the response that the first 1, 2, ... patterns carry}.
        ratios: Of the layers' times, from `ratios_of`.
        network: As it is.
        changed: The network with so many patterns in its layers.
        context: The target, and who watches.

    Raises:
        Refused: No network that was measured keeps the goal.
    """
    shares = shares_of(places_of(network, tuple(ratios)), network, context)
    forms = {
        path: forms_of(carried[path], ratios[path], share, TOLERANCE)
        for path, share in shares.items()
    }

    def measure(counts: Counts) -> float:
        timing = timed_within({CHANGED: changed(counts)}, network, context)[CHANGED]
        context.progress.say(f"{_told(counts)}: network at {timing.ratio:.3f} of its time")
        return timing.ratio_interval[1]

    found = within_goal(forms, 1.0 - sum(shares.values()), goal, measure)
    keeping = [one for one in found if one.took <= goal]
    if not keeping:
        least = min(one.took for one in found)
        raise Refused(
            f"run_dct cannot bring {network.name!r} to {goal:.3g} of its latency: {least:.3g} is "
            "the least that was measured",
            hint="raise `keep_latency`, or narrow the network first with `prune_channels`",
        )
    return max(keeping, key=lambda one: energy_of(one.counts, forms))


def _told(counts: Counts) -> str:
    kept = [f"{count} patterns in {path}" for path, count in counts.items() if count]
    return ", ".join(kept) or "no layer changed"
