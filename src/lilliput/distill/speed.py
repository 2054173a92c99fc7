"""With how many threads, and in which precision, this machine trains a network fastest."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lilliput.context import Context, Precision
from lilliput.distill.sources import Source, examples_for
from lilliput.network import Network, flat_outputs

WORTH_IT = 0.8
"""More threads and a coarser precision must save this much: both cost something."""

PROBED = 2.0
"""Seconds that finding the pace of a training may take."""

FEW, BATCH, PASSES = 8, 128, 6
"""Examples of the first pass and of the others, and how many passes at the most."""


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
    module = network.copy().module.train()
    return [_pass(module, inputs, gear) for _ in range(2)][1]


def seconds_an_example(network: Network, context: Context) -> tuple[float, float]:
    """The least and the most that a forward and backward pass takes, by the example.

    Of a few real training batches in about `PROBED` seconds, in the context's precision and with
    its threads. The first pass, over a few examples, says how many more can be afforded.
    """
    module, gear = (
        network.copy().module.train(),
        Gear(context.train_threads, context.train_precision),
    )
    source = examples_for(network, context, BATCH)
    free, spent = network.fixed_batch is None, 0.0
    each: list[float] = []
    epochs = (source.epoch(context.rng("pace", number)) for number in range(PASSES))
    for inputs, _ in islice(chain.from_iterable(epochs), PASSES):
        count = len(inputs[0])
        if free:
            count = min(count, int((PROBED - spent) / each[-1]) if each else FEW)
        if each and (spent >= PROBED or count < min(FEW, len(inputs[0]))):
            break
        seconds = _pass(module, tuple(x[:count] for x in inputs), gear)
        spent += seconds
        each.append(seconds / count)
    steady = each[1:] or each or [0.0]
    return min(steady), max(steady)


def seconds_an_answer(network: Network, context: Context) -> tuple[float, float]:
    """The less and the more of two forward passes over a few validation examples, by the example.

    A first one warms up.

    Raises:
        LilliputError: There are no validation examples.
    """
    split = context.data.split("validation").head(FEW)
    size = network.fixed_batch or FEW
    batch = next(
        iter(context.task.batches(split, network.preprocessing, size, layout=context.data.layout))
    )
    inputs = tuple(torch.from_numpy(np.ascontiguousarray(x)) for x in batch.inputs)
    taken = []
    with torch.no_grad(), torch_threads(context.train_threads):
        for _ in range(3):
            began = time.perf_counter()
            network.module(*inputs)
            taken.append((time.perf_counter() - began) / len(inputs[0]))
    return min(taken[1:]), max(taken[1:])


def _pass(module: nn.Module, inputs: tuple[Tensor, ...], gear: Gear) -> float:
    """Seconds of one forward and backward pass; torch's random numbers go on as if without it."""
    with torch_threads(gear.threads), torch.random.fork_rng(devices=[]):
        began = time.perf_counter()
        with computed_in(gear.precision):
            output = flat_outputs(module(*inputs))[0]
        loss = output.float().square().mean()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        return time.perf_counter() - began


def computed_in(precision: Precision) -> torch.autocast:
    """Convolutions and matrix products inside are computed in this precision."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16")


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """This many threads inside; outside as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(count, 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)
