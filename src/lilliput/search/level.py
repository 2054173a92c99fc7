"""How good the original really is, when it has already seen the examples we judge by.

A trained network often comes with the very training set that its validation examples are now drawn
from. It knows them by heart, and a smaller network trained without them would look far worse than
it is. Where the original scores clearly better on validation than on test, its test score is the
level that trained candidates are held to. That is one look at the test split, at the original only:
no candidate's test score is seen before the end.
"""

from __future__ import annotations

import math
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from lilliput.context import Context
from lilliput.data.dataset import Split
from lilliput.meter.accuracy import metric_of, score_file
from lilliput.models.session import TorchSession
from lilliput.network import Network
from lilliput.noun import Noun

CLEARLY = 3.0
"""Standard errors between the two scores before we say that the examples were memorised."""


class Level(Noun):
    """The original's metric on unseen examples, and on the validation examples as they are."""

    value: float
    on_validation: float
    memorised: bool
    higher_is_better: bool

    def drop(self, metric: float, *, trained: bool = True) -> float:
        """How much worse `metric` (on validation) is; negative when better."""
        level = self.value if trained else self.on_validation
        return level - metric if self.higher_is_better else metric - level


def level_of_original(context: Context) -> Level:
    """Measured once a run; the journal remembers it."""

    def work() -> dict[str, object]:
        network, metric = context.original.the_network(), context.task.metric
        seen = scores_in_torch(network, context.data.split("validation"), context)
        on_validation = value = metric_of(seen, metric).value
        memorised = False
        if len(context.data.test) and context.data.alike:
            unseen = scores_in_torch(network, context.data.test, context)
            memorised = _gap(seen, unseen, metric.higher_is_better) > CLEARLY
            value = metric_of(unseen, metric).value if memorised else value
        return Level(
            value=value,
            on_validation=on_validation,
            memorised=memorised,
            higher_is_better=metric.higher_is_better,
        ).model_dump()

    return Level.model_validate(context.journal.once("level of the original", work))


def scores_in_torch(network: Network, split: Split, context: Context) -> NDArray[np.float64]:
    """One score per example, from the torch network: to steer by, not to report."""
    with closing(TorchSession(network)) as session:
        return score_file(
            session, context.task, split, network.preprocessing, layout=context.data.layout
        )


def _gap(seen: NDArray[np.float64], unseen: NDArray[np.float64], higher: bool) -> float:  # noqa: FBT001
    """By how many standard errors the seen examples score better than the unseen ones."""
    error = math.sqrt(seen.var() / len(seen) + unseen.var() / len(unseen))
    gap = float(seen.mean() - unseen.mean()) * (1 if higher else -1)
    return gap / error if error > 0 else 0.0
