"""How good a file is: one score per example, by the loaded file, and paired comparisons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lilliput.context import Progress, SilentProgress
from lilliput.data.dataset import Array, Split
from lilliput.errors import LilliputError
from lilliput.measurement import ALSO, Measurement
from lilliput.meter.statistics import percentile_interval
from lilliput.preprocessing import Preprocessing
from lilliput.runtimes.base import Computes
from lilliput.tasks.base import Metric, Task

RESAMPLES = 2000
_FEW_VALUES = 64


class Scores(NamedTuple):
    """One score per example in the metric's unit, (N,), and the task's other figures by name."""

    metric: NDArray[np.float64]
    also: dict[str, NDArray[np.float64]]


def score_file(
    session: Computes,
    task: Task,
    split: Split,
    preprocessing: Preprocessing,
    *,
    layout: str = "image",
    batch_size: int = 64,
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Score every example of the split by the loaded file; (N,) in the metric's unit.

    Raises:
        LilliputError: The examples have no truth, or do not fit the file's inputs.
    """
    pairs = _outputs_and_truths(
        session, task, split, preprocessing, layout=layout, size=batch_size, progress=progress
    )
    parts = [np.asarray(task.scores(output, truth), np.float64) for output, truth in pairs]
    return np.concatenate(parts)


def score_fully(
    session: Computes,
    task: Task,
    split: Split,
    preprocessing: Preprocessing,
    *,
    layout: str = "image",
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Scores:
    """As `score_file`, with what else the task reports of every example.

    Raises:
        LilliputError: The examples have no truth, or do not fit the file's inputs.
    """
    pairs = _outputs_and_truths(
        session, task, split, preprocessing, layout=layout, size=batch_size, progress=progress
    )
    parts, also = [], defaultdict(list)
    for output, truth in pairs:
        parts.append(np.asarray(task.scores(output, truth), np.float64))
        for name, values in task.also(output, truth).items():
            also[name].append(values)
    return Scores(np.concatenate(parts), {name: np.concatenate(v) for name, v in also.items()})


def _outputs_and_truths(
    session: Computes,
    task: Task,
    split: Split,
    preprocessing: Preprocessing,
    *,
    layout: str,
    size: int,
    progress: Progress | None,
) -> Iterator[tuple[Array, Array]]:
    """The file's outputs for every batch of the split, beside what they should be.

    A file made for one batch size is fed with batches of that size; what fills up the last one is
    dropped again. Of several outputs the first is scored.
    """
    fixed = session.inputs[0].batch
    size = fixed or size
    batches = task.batches(split, preprocessing, size, layout=layout)
    total = -(-len(split) // size) if split.uniform else None
    shown = (progress or SilentProgress()).track(batches, label="scoring", total=total)
    nothing = True
    for batch in shown:
        if batch.targets is None:
            raise LilliputError(
                "the examples have no truth to score against",
                hint="give labelled examples, or compare the file with the original instead",
            )
        nothing = False
        yield run_batch(session, batch.inputs, fixed=fixed)[0], batch.targets
    if nothing:
        raise LilliputError("there are no examples to score")


def run_batch(
    session: Computes, inputs: tuple[Array, ...], *, fixed: int | None = None
) -> list[Array]:
    """The file's outputs for a batch; a short one is filled up to `fixed` and cut back."""
    count = len(inputs[0])
    if fixed is None or fixed == count:
        return session.run(inputs)
    if count > fixed:
        raise LilliputError(f"a batch of {count} for a file that takes {fixed}")
    filled = [np.concatenate([x, np.repeat(x[-1:], fixed - count, axis=0)]) for x in inputs]
    return [output[:count] for output in session.run(filled)]


def outputs_of(
    session: Computes,
    task: Task,
    split: Split,
    preprocessing: Preprocessing,
    *,
    layout: str = "image",
    batch_size: int = 64,
) -> Iterator[Array]:
    """The first output of every batch of the split, in order."""
    fixed = session.inputs[0].batch
    for batch in task.batches(split, preprocessing, fixed or batch_size, layout=layout):
        yield run_batch(session, batch.inputs, fixed=fixed)[0]


def answers_of(
    session: Computes,
    task: Task,
    split: Split,
    preprocessing: Preprocessing,
    *,
    layout: str = "image",
) -> list[Any]:
    """What the model makes of every example, in the form of the truth."""
    outputs = outputs_of(session, task, split, preprocessing, layout=layout)
    return [answer for output in outputs for answer in task.as_truth(output)]


def metric_of(scores: NDArray[np.float64], metric: Metric) -> Measurement:
    """The metric (mean score) with its 95 % bootstrap interval over examples."""
    return Measurement(
        quantity="metric",
        value=float(scores.mean()),
        unit=metric.unit,
        interval=percentile_interval(bootstrap_means(scores), len(scores)),
        conditions={"metric": metric.name, "examples": len(scores)},
    )


def also_of(also: Mapping[str, NDArray[np.float64]]) -> tuple[Measurement, ...]:
    """What the task reports beside its metric, each a mean with its 95 % bootstrap interval.

    Examples without a value (NaN) are left out, and a figure that no example has.
    """
    known = {name: values[~np.isnan(values)] for name, values in also.items()}
    return tuple(
        Measurement(
            quantity=f"{ALSO}{name}",
            value=float(values.mean()),
            unit="",
            interval=percentile_interval(bootstrap_means(values), len(values)),
            conditions={"metric": name, "examples": len(values)},
        )
        for name, values in known.items()
        if len(values)
    )


def drop(
    reference_scores: NDArray[np.float64], scores: NDArray[np.float64], metric: Metric
) -> Measurement:
    """What was lost against the reference: positive = worse, in the metric's unit.

    The interval is a bootstrap over examples of the paired differences, so that examples which
    both get right or wrong add no doubt.
    """
    if reference_scores.shape != scores.shape:
        raise LilliputError(
            f"scores of {len(scores)} and {len(reference_scores)} examples cannot be paired",
            hint="score both files on the same split",
        )
    lost = reference_scores - scores if metric.higher_is_better else scores - reference_scores
    return Measurement(
        quantity="drop",
        value=float(lost.mean()),
        unit=metric.unit,
        interval=percentile_interval(bootstrap_means(lost), len(lost)),
        conditions={
            "metric": metric.name,
            "examples": len(scores),
            "changed": int(np.count_nonzero(lost)),
        },
    )


def bootstrap_means(
    values: NDArray[np.float64], *, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """Means of resamples of the values; (resamples,).

    Scores of a classifier take few values: their counts in a resample are multinomial, which is
    drawn directly, in place of ten thousand indices each.
    """
    rng = np.random.default_rng(seed)
    count = len(values)
    distinct, repeats = np.unique(values, return_counts=True)
    if len(distinct) <= _FEW_VALUES:
        drawn = rng.multinomial(count, repeats / count, resamples)
        return np.asarray(drawn @ distinct / count, np.float64)
    means = [values[rng.integers(0, count, count)].mean() for _ in range(resamples)]
    return np.asarray(means, np.float64)
