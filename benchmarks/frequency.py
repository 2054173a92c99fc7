"""What the claims of CNNpack share: a few examples for smoke runs, files and times."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.harness import Options
from lilliput.artifact import Artifact
from lilliput.context import Context
from lilliput.export.onnx_file import export_network
from lilliput.meter.stopwatch import Pace, Timing, compare_files
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


def timed(ours: Path, reference: Path, options: Options) -> Timing:
    """Both files side by side in one session."""
    files = {"ours": (ours, Target()), "reference": (reference, Target())}
    pace = Pace(max_seconds=5.0 if options.smoke else 30.0)
    return compare_files(files, "reference", pace)["ours"]
