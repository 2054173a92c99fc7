"""What the claims of CNNpack share: a few examples for smoke runs, files, their loss and times."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.harness import Options
from lilliput.artifact import Artifact
from lilliput.context import Context
from lilliput.export.onnx_file import export_network
from lilliput.measurement import Measurement
from lilliput.meter.accuracy import drop, score_file
from lilliput.meter.stopwatch import Timing, compare_files
from lilliput.preprocessing import IDENTITY
from lilliput.runtimes.opening import open_session
from lilliput.target import Target

SMOKE_EXAMPLES = 1500


def small(context: Context, options: Options) -> Context:
    """A few examples, for a smoke run."""
    if not options.smoke:
        return context
    data = context.data
    train, test = data.train.head(SMOKE_EXAMPLES), data.test.head(SMOKE_EXAMPLES)
    return replace(context, data=replace(data, train=train, test=test))


def exported(context: Context, name: str) -> Artifact:
    """The baseline's float file."""
    return export_network(context.original.the_network(), context.folder / f"{name}.onnx")


def points_lost(ours: Artifact, original: Artifact, context: Context) -> Measurement:
    """Paired loss on the whole test split, in points."""

    def scores(artifact: Artifact) -> Any:
        with closing(open_session(artifact.path, Target())) as session:
            preprocessing = artifact.metadata.preprocessing or IDENTITY
            return score_file(session, context.task, context.data.test, preprocessing)

    return drop(scores(original), scores(ours), context.task.metric)


def timed(ours: Path, reference: Path, options: Options) -> Timing:
    """Both files side by side in one session."""
    files = {"ours": (ours, Target()), "reference": (reference, Target())}
    return compare_files(files, "reference", max_seconds=5.0 if options.smoke else 30.0)["ours"]
