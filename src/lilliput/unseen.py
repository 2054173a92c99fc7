"""Validation examples that the original has not learnt by heart.

A trained network often comes with the very training set that its validation examples are drawn
from. It answers them from memory, a smaller network that inherits its weights half remembers them,
and no drop measured on them means anything. Where the original scores clearly better on validation
than on test, validation is drawn from the test split instead: some of its examples choose, the
others give the final figures, and the report says so.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.context import Context
from lilliput.data.dataset import Dataset
from lilliput.meter.accuracy import metric_of
from lilliput.models.session import scores_in_torch

CLEARLY = 4.0
"""Standard errors between the two scores before we say that the examples were memorised."""

SHARE = 0.3
"""Of the test split, for choosing; the rest gives the final figures."""

EXAMPLES = 2000
"""Of each split, for finding out."""


def with_unseen_validation(context: Context) -> tuple[Dataset, str]:
    """The data, its validation split replaced if the original has memorised it, and why.

    The sentence is "" when nothing was changed. Only the original's score decides; what it was
    found to be is in the journal, so that a resumed run uses the same examples.
    """
    data = context.data
    both = (data.validation, data.test)
    testable = data.alike and all(len(s) and s.targets is not None for s in both)
    if not testable or context.original.network is None:
        return data, ""

    def work() -> dict[str, Any]:
        network = context.original.the_network()
        seen = scores_in_torch(network, data.validation.sample(EXAMPLES), context)
        unseen = scores_in_torch(network, data.test.sample(EXAMPLES), context)
        metric = context.task.metric
        return {
            "memorised": standard_errors_apart(seen, unseen)
            * (1 if metric.higher_is_better else -1)
            > CLEARLY,
            "on_validation": metric_of(seen, metric).value,
            "on_test": metric_of(unseen, metric).value,
        }

    found = context.journal.once("is validation memorised", work)
    if not found["memorised"]:
        return data, ""
    return _redrawn(context), (
        f"the network knows the validation examples by heart ({found['on_validation']:.1f} "
        f"{context.task.metric.unit} against {found['on_test']:.1f} on test), so "
        f"{round(100 * SHARE)} % of the test examples choose, and the others give the final figures"
    )


def standard_errors_apart(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """By how many standard errors the first mean is above the second."""
    error = math.sqrt(ours.var() / len(ours) + theirs.var() / len(theirs))
    gap = float(ours.mean() - theirs.mean())
    return gap / error if error > 0 else math.copysign(math.inf, gap) if gap else 0.0


def _redrawn(context: Context) -> Dataset:
    """Part of test becomes validation; the memorised examples go back to training."""
    data = context.data
    order = context.rng("unseen validation").permutation(len(data.test))
    count = max(round(SHARE * len(data.test)), 1)
    chosen, rest = np.sort(order[:count]), np.sort(order[count:])
    return Dataset(
        **{
            **data.__dict__,
            "train": data.train.joined(data.validation),
            "validation": data.test.take(chosen),
            "test": data.test.take(rest),
        }
    )
