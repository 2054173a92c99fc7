"""Whether the network is given what it was trained on, before anything is built upon it.

A wrong normalisation crashes nothing and spoils everything: accuracy, quantization ranges, what a
student learns. The first batch norm remembers what it saw in training, so one batch tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lilliput.data.check import (
    check_inputs,
    first_batchnorm_gap,
    suggest_preprocessing,
    usual_preprocessings,
)
from lilliput.data.dataset import Array, Dataset, Split
from lilliput.errors import LilliputError, Refused
from lilliput.meter.accuracy import score_file
from lilliput.models.session import TorchSession
from lilliput.network import Network, flat_outputs
from lilliput.preprocessing import Preprocessing
from lilliput.prune import network_macs
from lilliput.tasks.base import Task
from lilliput.unseen import standard_errors_apart

LOOKED_AT = 64
"""Examples whose statistics are compared."""

AT_ONCE = 16
"""Examples of a forward pass, which stops at the first batch norm."""

MOST_SCORED, LEAST_SCORED = 500, 50
"""Labelled examples that a better preprocessing is sought with."""

MACS_TO_SPEND = 4e11
"""For seeking it, so that a large network does not take minutes: about 20 s on one core."""

MACS_TO_GUESS, FEWEST_GUESSED = 4e10, 8
"""For finding out whether the network knows anything of the examples: 2 s on one core."""

SHUFFLES = 5
"""Orders of the truths that chance is told from."""

SCORED = 2
"""Of the usual preprocessings, those nearest to what the batch norm remembers are scored."""

CLEARLY = 2.0
"""Standard errors by which another preprocessing must score better to be named."""


class Reached(NamedTuple):
    """What went in, and what of it the first batch norm got; None where there is no batch norm.

    `mean` and `var` are of its inputs, `running_mean` and `running_var` its memory, all (C,).
    """

    inputs: Array
    mean: Array | None = None
    var: Array | None = None
    running_mean: Array | None = None
    running_var: Array | None = None

    @property
    def gap(self) -> float:
        """How far apart they are, in standard deviations; 0 without a batch norm."""
        statistics = (self.mean, self.var, self.running_mean, self.running_var)
        known = [values for values in statistics if values is not None]
        return first_batchnorm_gap(*known) if len(known) == len(statistics) else 0.0


def check_network_inputs(network: Network, data: Dataset, task: Task) -> tuple[LilliputError, ...]:
    """What is suspicious about what the network is given; the network is not changed.

    Where the normalisation is, and examples have labels, the hint names the usual preprocessing
    that scores clearly better, or says that none does.

    Args:
        network: With the preprocessing to be checked.
        data: Its validation examples are looked at, calibration or training examples without them.
        task: Makes batches and scores.

    Returns:
        One error a mistake: `Refused` for what cannot work (NaN, another number of channels), a
        plain `LilliputError` for what deserves a warning.

    Raises:
        Refused: The network does not run on these examples.
        LilliputError: Its outputs are not what the task scores.
    """
    split = _examples(data)
    if not len(split):
        return ()
    batches = [
        batch.inputs
        for batch in task.batches(
            split.sample(LOOKED_AT), network.preprocessing, _size(network), layout=data.layout
        )
    ]
    if batches[0][0].dtype.kind != "f":
        return _guesses(network, data, task)
    inputs = _as_one([given[0] for given in batches])
    found = check_inputs(inputs, channels=_channels(network))
    if found:
        return found
    reached = reach_batchnorm(network, batches)
    guesses = _guesses(network, data, task)
    found = check_inputs(
        inputs,
        actual_mean=reached.mean,
        actual_var=reached.var,
        running_mean=reached.running_mean,
        running_var=reached.running_var,
    )
    return tuple(_with_way_out(error, network, data, task) for error in found) or guesses


def _guesses(network: Network, data: Dataset, task: Task) -> tuple[LilliputError, ...]:
    """Told where the truths of other examples suit the network's answers as well as their own.

    Raises:
        LilliputError: The outputs are not what the task scores.
    """
    few = _examples(data).sample(_worth(network, MACS_TO_GUESS, FEWEST_GUESSED))
    if few.targets is None:
        return ()
    given, scores = [], []
    for batch in task.batches(few, network.preprocessing, _size(network), layout=data.layout):
        given.append(_outputs(network, batch.inputs)[: len(batch.inputs[0])])
        scores.append(task.scores(given[-1], np.asarray(batch.targets)))
    if not few.uniform:
        return ()
    outputs, own = np.concatenate(given), np.concatenate(scores)
    rng, truths = np.random.default_rng(0), np.asarray(few.targets)
    orders = [rng.permutation(len(few)) for _ in range(SHUFFLES)]
    others = np.concatenate([task.scores(outputs, truths[order]) for order in orders])
    sign = 1.0 if task.metric.higher_is_better else -1.0
    ahead = standard_errors_apart(sign * own, sign * others)
    if ahead > (CLEARLY if len(few) >= LEAST_SCORED else 0.0):
        return ()
    unit = task.metric.unit
    return (
        LilliputError(
            f"the network scores {own.mean():.1f} {unit} on {len(few)} examples, no better than "
            f"with the truths of other examples ({others.mean():.1f} {unit})",
            hint="do its weights, the order of its classes and the preprocessing belong to them?",
        ),
    )


def warnings_of(found: tuple[LilliputError, ...]) -> tuple[str, ...]:
    """The messages, each with its way out.

    Raises:
        Refused: The first one that is more than a warning.
    """
    for error in found:
        if isinstance(error, Refused):
            raise error
    return tuple(map(str, found))


def reach_batchnorm(network: Network, batches: list[tuple[Array, ...]]) -> Reached:
    """Run the batches up to the first batch norm that was trained.

    Raises:
        Refused: The network does not run on them.
    """
    inputs = _as_one([given[0] for given in batches])
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    norm: _BatchNorm | None = None
    for given in batches:
        got = _first_norm(network, given)
        if got is None:
            return Reached(inputs)
        norm, values = got
        flat = values.double().transpose(0, 1).flatten(1)
        count += flat.shape[1]
        total = total + flat.sum(1).numpy()
        squares = squares + flat.square().sum(1).numpy()
    if norm is None or norm.running_mean is None or norm.running_var is None:
        return Reached(inputs)
    mean = total / count
    var = np.maximum(squares / count - mean**2, 0.0)
    return Reached(inputs, mean, var, norm.running_mean.numpy(), norm.running_var.numpy())


class _Enough(Exception):
    """Ends a forward pass whose rest is not needed."""


def _first_norm(network: Network, given: tuple[Array, ...]) -> tuple[_BatchNorm, Tensor] | None:
    """The first trained batch norm that a forward pass comes to, and what enters it."""
    with _caught(network.module) as found, suppress(_Enough):
        _outputs(network, given)
    return found[0] if found else None


def _outputs(network: Network, given: tuple[Array, ...]) -> Array:
    """The first output on these examples; a fixed batch is filled up with the same ones again."""
    fixed = network.fixed_batch
    if fixed is not None:
        given = tuple(np.resize(x, (fixed, *x.shape[1:])) for x in given)
    try:
        with torch.no_grad():
            outputs = network.module(*(torch.from_numpy(np.ascontiguousarray(x)) for x in given))
    except _Enough:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(x.shape)) for x in given)
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise Refused(
            f"the network does not run on the examples, of shape {shapes}: {reason}",
            hint="set `size` of the preprocessing to the height and width that it takes",
        ) from error
    return np.asarray(flat_outputs(outputs)[0])


@contextmanager
def _caught(module: nn.Module) -> Iterator[list[tuple[_BatchNorm, Tensor]]]:
    found: list[tuple[_BatchNorm, Tensor]] = []

    def catch(norm: Any, inputs: tuple[Tensor, ...]) -> None:
        found.append((norm, inputs[0].detach()))
        raise _Enough

    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and _was_trained(m)]
    handles = [norm.register_forward_pre_hook(catch) for norm in norms]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _was_trained(norm: _BatchNorm) -> bool:
    """Whether it remembers anything; the counter of batches is missing in old weights files."""
    if norm.running_mean is None or norm.running_var is None:
        return False
    return bool((norm.running_mean != 0).any() or (norm.running_var != 1).any())


def _with_way_out(
    error: LilliputError, network: Network, data: Dataset, task: Task
) -> LilliputError:
    """The error, its hint made of what other preprocessings score."""
    if data.layout != "image":
        return LilliputError(
            error.thing, hint="inputs that are given ready must be normalised as in training"
        )
    split = _examples(data)
    if split.targets is None:
        return error
    return LilliputError(
        error.thing,
        hint=_scored_hint(
            network, split.sample(_worth(network, MACS_TO_SPEND / (SCORED + 1), LEAST_SCORED)), task
        ),
    )


def _scored_hint(network: Network, split: Split, task: Task) -> str:
    kept: dict[Preprocessing, NDArray[np.float64]] = {}
    sign = 1.0 if task.metric.higher_is_better else -1.0

    def score(preprocessing: Preprocessing) -> float:
        with closing(TorchSession(network)) as session:
            kept[preprocessing] = sign * score_file(session, task, split, preprocessing)
        return float(kept[preprocessing].mean())

    now = score(network.preprocessing)
    best = suggest_preprocessing(score, candidates=_nearest(network, split, task))
    unit = task.metric.unit
    shown = f"{sign * now:.1f} {unit}"
    ahead = standard_errors_apart(kept[best.preprocessing], kept[network.preprocessing])
    if ahead <= CLEARLY:
        return (
            f"is the preprocessing that of training? none of the usual ones scores clearly better "
            f"than the {shown} of this one on {len(split)} examples"
        )
    return (
        f"{options_of(best.preprocessing, network)} scores {sign * best.scores[best.name]:.1f} "
        f"{unit} instead of {shown} on {len(split)} examples ({best.name})"
    )


def _nearest(network: Network, split: Split, task: Task) -> dict[str, Preprocessing]:
    """The usual preprocessings whose inputs the first batch norm finds most familiar."""
    own = network.preprocessing
    few = split.sample(LOOKED_AT)

    def gap(preprocessing: Preprocessing) -> float:
        batches = [batch.inputs for batch in task.batches(few, preprocessing, _size(network))]
        return reach_batchnorm(network, batches).gap

    usual = {
        name: preprocessing.model_copy(update={"size": own.size})
        for name, preprocessing in usual_preprocessings(own.channels).items()
    }
    gaps = {name: gap(preprocessing) for name, preprocessing in usual.items()}
    return {name: usual[name] for name in sorted(gaps, key=lambda name: gaps[name])[:SCORED]}


def options_of(preprocessing: Preprocessing, network: Network) -> str:
    """The command line's options for it: `--mean 0.5 --std 0.5`."""
    said = []
    if preprocessing.scale == 1.0:
        said.append("--scale 1")
    if any(preprocessing.mean) or any(std != 1 for std in preprocessing.std):
        said.append(f"--mean {_listed(preprocessing.mean)} --std {_listed(preprocessing.std)}")
    if preprocessing.size is not None:
        said.append("--size {}x{}".format(*preprocessing.size))
    if preprocessing.channels != 3 and len(preprocessing.mean) == 1:
        # One mean for all does not say how many channels there are, and three are assumed.
        said.append(f"--input-shape {'x'.join(map(str, network.inputs[0].concrete(1)))}")
    return " ".join(said or ["--scale 1/255"])


def _listed(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _examples(data: Dataset) -> Split:
    """Validation examples, else others; never the test split, which is for final figures."""
    for split in (data.validation, data.calibration, data.train):
        if len(split):
            return split
    return data.validation


def _worth(network: Network, macs: float, least: int) -> int:
    """How many examples may be scored with so many multiply-adds."""
    affordable = macs / max(network_macs(network), 1)
    return round(min(max(affordable, least), MOST_SCORED))


def _size(network: Network) -> int:
    return network.fixed_batch or AT_ONCE


def _channels(network: Network) -> int | None:
    """What the network's first input takes, where that is a picture."""
    shape = network.inputs[0].shape
    return shape[1] if len(shape) == 4 else None


def _as_one(batches: list[Array]) -> Array:
    """All batches in one array, or the first one where pictures have different sizes."""
    if len({batch.shape[1:] for batch in batches}) == 1:
        return np.concatenate(batches)
    return batches[0]
