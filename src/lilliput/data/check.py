"""Inputs that a network was not trained on, told by what its first batch norm remembers.

A wrong normalisation lowers every score and spoils every quantization range, and nothing crashes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lilliput.errors import LilliputError, Mistakes, Refused
from lilliput.preprocessing import Preprocessing

Array = NDArray[Any]

FAR = 0.5
"""The gap that deserves a word. On CIFAR-10 networks the preprocessing of training gives 0.1 to
0.25 (they were trained on shifted pictures), a forgotten mean and std 0.7 and more."""

SCALE_APART = 8.0
"""Ratio of standard deviations between the same that only another scale of inputs explains."""

RAW_ABOVE = 20.0
"""No usual normalisation of pictures gives values beyond this; raw bytes do."""

USUAL_MEANS = (
    "ImageNet mean 0.485,0.456,0.406 std 0.229,0.224,0.225; "
    "CIFAR-10 mean 0.4914,0.4822,0.4465 std 0.2470,0.2435,0.2616; "
    "MNIST mean 0.1307 std 0.3081; -1..1 is mean 0.5 std 0.5; raw bytes are scale 1"
)


class Suggestion(NamedTuple):
    """The usual preprocessing that scores best, and what each of them scored."""

    name: str
    preprocessing: Preprocessing
    scores: dict[str, float]


def first_batchnorm_gap(
    actual_mean: Array, actual_var: Array, running_mean: Array, running_var: Array
) -> float:
    """How far a batch norm's inputs are from what it saw in training, in standard deviations.

    All arguments are (C,). Channels are weighed alike: the root of the mean over them of the
    squared distance of the means, in the wider of the two deviations, plus the squared logarithm
    of the ratio of the deviations. Nearly constant channels are floored, so that none of them
    decides alone.
    """
    floor = 1e-3 * float(np.mean(running_var)) + 1e-12
    actual = np.asarray(actual_var, float) + floor
    known = np.asarray(running_var, float) + floor
    apart = np.asarray(actual_mean, float) - np.asarray(running_mean, float)
    shift = apart**2 / np.maximum(actual, known)
    return float(np.sqrt(np.mean(shift + (0.5 * np.log(actual / known)) ** 2)))


def check_inputs(
    batch: Array,
    *,
    channels: int | None = None,
    actual_mean: Array | None = None,
    actual_var: Array | None = None,
    running_mean: Array | None = None,
    running_var: Array | None = None,
) -> tuple[LilliputError, ...]:
    """What is suspicious about network inputs; nothing is raised.

    Args:
        batch: (N, C, H, W) after preprocessing.
        channels: What the first layer takes.
        actual_mean, actual_var: (C1,) of what reaches the first batch norm for this batch.
        running_mean, running_var: (C1,) that it remembers from training.

    Returns:
        One error a mistake, with the way out; empty if nothing is found. What cannot work, NaN or
        another number of channels, is `Refused`.
    """
    found = _of_the_batch(np.asarray(batch), channels)
    if found or actual_mean is None or actual_var is None:
        return tuple(found)
    if running_mean is None or running_var is None:
        return ()
    memory = np.asarray(running_mean), np.asarray(running_var)
    odd = _of_the_memory(np.asarray(batch), np.asarray(actual_mean), np.asarray(actual_var), memory)
    return () if odd is None else (odd,)


def require_inputs(batch: Array, **known: Any) -> None:
    """Raise what `check_inputs` finds: `LilliputError`, or `Mistakes` if it is more than one."""
    found = check_inputs(batch, **known)
    if len(found) == 1:
        raise found[0]
    if found:
        raise Mistakes(found)


def _of_the_batch(batch: Array, channels: int | None) -> list[LilliputError]:
    found: list[LilliputError] = []
    if channels is not None and batch.ndim >= 2 and batch.shape[1] != channels:
        last = batch.ndim == 4 and batch.shape[-1] == channels
        found.append(
            Refused(
                f"inputs have {batch.shape[1]} channels, the first layer takes {channels}",
                hint="channels are last here; networks take them first, (N, C, H, W)"
                if last
                else f"set `channels: {channels}` of the preprocessing, and give such pictures",
            )
        )
    if batch.dtype.kind != "f":
        return found
    broken = int(batch.size - np.isfinite(batch).sum())
    if broken:
        found.append(
            Refused(
                f"{broken} of {batch.size} input values are NaN or infinite",
                hint="is a std of the preprocessing 0, or does the source divide by 0?",
            )
        )
    elif batch.size and batch.min() == batch.max():
        found.append(
            LilliputError(
                f"all input values are {batch.flat[0]:g}",
                hint="are the pictures empty, or divided by 255 twice and rounded?",
            )
        )
    return found


def _of_the_memory(
    batch: Array, mean: Array, var: Array, memory: tuple[Array, Array]
) -> LilliputError | None:
    """The one message that fits best: another scale of inputs explains a shift too."""
    running_mean, running_var = memory
    if mean.shape != running_mean.shape:
        raise LilliputError(
            f"{mean.shape[0]} channels reach a batch norm of {running_mean.shape[0]}"
        )
    ratio = float(np.sqrt((np.median(var) + 1e-12) / (np.median(running_var) + 1e-12)))
    looks_raw = float(np.abs(batch).max(initial=0.0)) > RAW_ABOVE
    if ratio > SCALE_APART and looks_raw:
        return LilliputError(
            f"inputs run up to {batch.max():.0f}, and the network's first batch norm knows values "
            f"{ratio:.0f} times smaller: raw 0..255 given to a network of normalised inputs",
            hint=f"scale by 1/255, and try mean and std: {USUAL_MEANS}",
        )
    if ratio < 1 / SCALE_APART and not looks_raw:
        return LilliputError(
            f"inputs run up to {batch.max():.2f}, and the network's first batch norm knows values "
            f"{1 / ratio:.0f} times larger: normalised inputs given to a network of raw 0..255",
            hint="set `scale: 1` of the preprocessing, with mean 0 and std 1",
        )
    gap = first_batchnorm_gap(mean, var, running_mean, running_var)
    if gap <= FAR:
        return None
    return LilliputError(
        f"what reaches the first batch norm is {gap:.1f} standard deviations from what it saw in "
        f"training (inputs have mean {_per_channel(batch.mean((0, *range(2, batch.ndim))))}, "
        f"std {_per_channel(batch.std((0, *range(2, batch.ndim))))})",
        hint=f"is the preprocessing that of training? usual are: {USUAL_MEANS}",
    )


def _per_channel(values: Array) -> str:
    return ",".join(f"{v:.3f}" for v in np.atleast_1d(values)[:4])


def usual_preprocessings(channels: int = 3) -> dict[str, Preprocessing]:
    """The preprocessings that trained networks mostly come with, by name."""
    known = {
        "0..1": Preprocessing(channels=channels),
        "-1..1": Preprocessing(mean=(0.5,), std=(0.5,), channels=channels),
        "raw 0..255": Preprocessing(scale=1.0, channels=channels),
        "MNIST mean and std": Preprocessing(mean=(0.1307,), std=(0.3081,), channels=channels),
    }
    if channels == 3:
        known["ImageNet mean and std"] = Preprocessing(
            mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
        )
        known["CIFAR-10 mean and std"] = Preprocessing(
            mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)
        )
    return known


def suggest_preprocessing(
    score: Callable[[Preprocessing], float],
    *,
    channels: int = 3,
    candidates: Mapping[str, Preprocessing] | None = None,
) -> Suggestion:
    """Try the usual preprocessings and return the one that scores highest.

    Args:
        score: Higher is better: accuracy on a few hundred labelled pictures, or minus
            `first_batchnorm_gap` where there are no labels.
        channels: Of the pictures; ImageNet's and CIFAR's are for three.
        candidates: Others to try instead.

    Raises:
        LilliputError: none of them gives a finite score.
    """
    tried = usual_preprocessings(channels) if candidates is None else dict(candidates)
    scores = {name: float(score(preprocessing)) for name, preprocessing in tried.items()}
    finite = {name: value for name, value in scores.items() if np.isfinite(value)}
    if not finite:
        raise LilliputError("no usual preprocessing gives a finite score")
    best = max(finite, key=lambda name: finite[name])
    return Suggestion(best, tried[best], scores)
