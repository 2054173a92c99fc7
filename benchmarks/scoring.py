"""How claims score files: on the whole test split, from the file itself, in its runtime."""

from __future__ import annotations

from contextlib import closing

from numpy import float64
from numpy.typing import NDArray

from lilliput.artifact import Artifact
from lilliput.data.dataset import Split
from lilliput.measurement import Measurement
from lilliput.meter.accuracy import drop, score_file
from lilliput.preprocessing import IDENTITY
from lilliput.runtimes.opening import open_session
from lilliput.target import Target
from lilliput.tasks.base import Task

ONNXRUNTIME = Target()

CHANCE = (
    "the interval holds 0: so few test pictures change their class that chance orders the files"
)
"""What limits a file that loses a little more than another one does."""


def scores(
    artifact: Artifact, task: Task, test: Split, target: Target = ONNXRUNTIME
) -> NDArray[float64]:
    """The score of every example, (N,) in the metric's unit."""
    with closing(open_session(artifact.path, target)) as session:
        return score_file(session, task, test, artifact.metadata.preprocessing or IDENTITY)


def points_lost(
    ours: Artifact, original: Artifact, task: Task, test: Split, target: Target = ONNXRUNTIME
) -> Measurement:
    """Paired loss, in the metric's unit; the original runs in ONNX Runtime."""
    return drop(scores(original, task, test), scores(ours, task, test, target), task.metric)
