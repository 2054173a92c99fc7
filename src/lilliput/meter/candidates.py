"""The figures of a run's files: taken side by side, from the files themselves.

Latency comes from one interleaved session with the original file (`stopwatch`), quality from the
loaded file over a whole split, example by example against the original (`accuracy`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lilliput.artifact import Artifact
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.data.dataset import Split
from lilliput.measurement import Measurement
from lilliput.meter.accuracy import (
    Scores,
    also_of,
    answers_of,
    drop,
    metric_of,
    score_fully,
)
from lilliput.meter.bfloat16 import as_meant
from lilliput.meter.cost import file_cost
from lilliput.meter.stopwatch import Pace, compare_files
from lilliput.onnx_io import unpacked
from lilliput.preprocessing import IDENTITY
from lilliput.runtimes.opening import open_session
from lilliput.tasks.base import Metric

TIMED = ("latency", "latency_p90", "ratio")
"""What `with_latency` takes."""

FILES_A_SESSION = 10
"""Beyond this many files a round takes so long that the machine drifts within it."""


def with_cost(candidate: Candidate) -> Candidate:
    """The candidate with its file's length, and its multiply-adds and weights by the graph."""
    artifact = candidate.the_artifact()
    cost = file_cost(artifact.path)
    return candidate.measured(
        Measurement(quantity="bytes", value=artifact.bytes, unit="B"),
        Measurement(quantity="macs", value=cost.macs, unit="MACs", estimated=True),
        Measurement(quantity="params", value=cost.params, unit="", estimated=True),
    )


def with_latency(
    candidates: Sequence[Candidate],
    reference: Candidate,
    context: Context,
) -> list[Candidate]:
    """All candidates timed on the target, each in one session with the reference file.

    A packed file is the same network, once loaded, as the plain file that is in it: it takes that
    one's figures, since two timings of one thing would only rank their noise.

    A session of up to `FILES_A_SESSION` files takes at most the context's `timing_seconds`.
    """
    same = _plain_twins(candidates)
    timed: list[Candidate] = []
    for group in _groups([c for c in candidates if c.id not in same]):
        files = {
            c.id: (c.the_artifact().path, as_meant(c.the_artifact().metadata, context.target))
            for c in (reference, *group)
        }
        timings = compare_files(
            files,
            reference.id,
            Pace(max_seconds=context.timing_seconds),
            seed=context.derived_seed("stopwatch") % 2**32,
            progress=context.progress,
        )
        timed += [c.measured(*timings[c.id].measurements()) for c in group]
    known = {c.id: c for c in timed}
    return [known[c.id] if c.id in known else _timed_as(c, known[same[c.id]]) for c in candidates]


def _plain_twins(candidates: Sequence[Candidate]) -> dict[str, str]:
    """{id of a packed file: id of the plain file that is in it, to the last bit}."""
    files = {c.id: c.the_artifact() for c in candidates}
    plain = {file.sha256: name for name, file in files.items() if file.format == "onnx"}
    inside = {
        name: hashlib.sha256(unpacked(file.path)).hexdigest()
        for name, file in files.items()
        if file.format == "lil"
    }
    return {name: plain[content] for name, content in inside.items() if content in plain}


def _timed_as(candidate: Candidate, twin: Candidate) -> Candidate:
    """The candidate with the twin's times, marked as such."""
    figures = [twin.measurements[q] for q in TIMED if q in twin.measurements]
    as_twin = {"timed_as": twin.the_artifact().path.name}
    return candidate.measured(
        *(f.model_copy(update={"conditions": {**f.conditions, **as_twin}}) for f in figures)
    )


def _groups(candidates: Sequence[Candidate]) -> Iterator[Sequence[Candidate]]:
    for start in range(0, len(candidates), FILES_A_SESSION):
        yield candidates[start : start + FILES_A_SESSION]


@dataclass(frozen=True)
class Yardstick:
    """The original's scores on a split, example by example, to hold others against.

    Where the examples have no truth, the original's own outputs stand in for it, and `drop` is
    then the loss of agreement with the original; the metric is named after it.
    """

    split: Split
    scores: NDArray[np.float64]
    metric: Metric

    @classmethod
    def of(cls, reference: Artifact, split: Split, context: Context) -> Yardstick:
        metric = context.task.metric
        if split.targets is None:
            metric = metric._replace(name=f"{metric.name} against the original")
        split = with_truth(split, reference, context)
        return cls(split, scores_of(reference, split, context).metric, metric)

    def judge(self, candidate: Candidate, context: Context, *, prefix: str = "") -> Candidate:
        """The candidate with "metric" and "drop" (positive = worse), paired with the original's.

        And with what else the task reports, such as SSIM.
        """
        scores = scores_of(candidate.the_artifact(), self.split, context)
        figures = (
            metric_of(scores.metric, self.metric),
            drop(self.scores, scores.metric, self.metric),
            *also_of(scores.also),
        )
        return candidate.measured(
            *(f.model_copy(update={"quantity": prefix + f.quantity}) for f in figures)
        )


def scores_of(artifact: Artifact, split: Split, context: Context) -> Scores:
    """One score per example of the split, from the file in the target's runtime."""
    preprocessing = artifact.metadata.preprocessing or IDENTITY
    where = as_meant(artifact.metadata, context.target)
    with closing(open_session(artifact.path, where)) as session:
        return score_fully(
            session,
            context.task,
            split,
            preprocessing,
            layout=context.data.layout,
            progress=context.progress,
        )


def with_truth(split: Split, reference: Artifact, context: Context) -> Split:
    """The split; where its examples have no truth, with the file's own outputs in its place."""
    if split.targets is not None:
        return split
    how, layout = reference.metadata.preprocessing or IDENTITY, context.data.layout
    with closing(open_session(reference.path, context.target)) as session:
        return Split(split.inputs, answers_of(session, context.task, split, how, layout=layout))
