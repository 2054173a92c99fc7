"""With how many threads, and in which precision, this machine trains a network fastest."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from lilliput.context import Context, Precision
from lilliput.distill.sources import Source
from lilliput.network import Network, flat_outputs

WORTH_IT = 0.8
"""More threads and a coarser precision must save this much: both cost something."""


class Gear(NamedTuple):
    """Threads, and the precision that convolutions and matrix products are computed in."""

    threads: int
    precision: Precision


def best_gear(network: Network, source: Source, context: Context) -> Gear:
    """The gear that trains this network fastest on this machine now.

    Tried are one thread and as many as the context allows, float32 and what the context allows.
    Small networks, and any network beside a busy process, are slower with more threads; small ones
    are slower in bfloat16 too, for casting costs more than it saves.
    """
    plain = Gear(1, "float32")
    gears = {
        Gear(threads, precision)
        for threads in (1, max(context.train_threads, 1))
        for precision in ("float32", context.train_precision)
    }
    if len(gears) == 1:
        return plain
    inputs, _ = next(iter(source.epoch(context.rng("gears"))))
    seconds = dict.fromkeys(sorted(gears), math.inf)
    for gear in [*seconds, *seconds]:
        seconds[gear] = min(seconds[gear], pass_seconds(network, inputs, gear))

    def price(gear: Gear) -> float:
        steps = (gear.threads > 1) + (gear.precision != "float32")
        return seconds[gear] / WORTH_IT**steps

    return min(seconds, key=price)


def pass_seconds(network: Network, inputs: tuple[Tensor, ...], gear: Gear) -> float:
    """Seconds of the second of two forward and backward passes; the network is left as it is."""
    module, coarse = network.copy().module.train(), gear.precision == "bfloat16"
    began = 0.0
    with torch_threads(gear.threads):
        for _ in range(2):
            began = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=coarse):
                output = flat_outputs(module(*inputs))[0]
            loss = output.float().square().mean()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        return time.perf_counter() - began


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """This many threads inside; outside as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(count, 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)
