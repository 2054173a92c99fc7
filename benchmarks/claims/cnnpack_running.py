"""CNNpack's running form: a network of 5×5 layers that is faster in the frequency domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.frequency import exported, small, timed
from benchmarks.harness import Claim, Options, Row
from benchmarks.networks.wide_kernels import wide_kernels
from benchmarks.resnets import Log
from benchmarks.scoring import points_lost
from lilliput.artifact import Artifact, TensorSpec
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.data.sources import load_data
from lilliput.export.onnx_file import export_network
from lilliput.measurement import Measurement
from lilliput.meter.host import native_precision
from lilliput.models.store import load_saved, save_network
from lilliput.network import Network
from lilliput.preprocessing import Preprocessing
from lilliput.steps.finetune import Finetune
from lilliput.steps.run_dct import RunDct
from lilliput.target import Target
from lilliput.tasks import task_of

RUNNING: Mapping[str, Any] = {
    "keep_latency": 0.76,
    "epochs": 10,
    "learning_rate": 0.03,
    "free": True,
}
TOO_FEW_PICTURES = "the patterns that are kept carry too little, or were trained too briefly"

WIDE = "wide-kernels"
WIDE_EPOCHS = 12
WIDE_PREPROCESSING = Preprocessing(mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26))


def run(options: Options) -> Claim:
    """The network of 5×5 layers as it is, and with few patterns where the stopwatch says so."""
    context = running_context(options)
    smoke = {"epochs": 1} if options.smoke else {}
    step = RunDct(**(dict(RUNNING) | smoke))
    given = Candidate("running", network=context.original.the_network())
    made = step.apply(given, context).the_network()
    ours = export_network(made, context.folder / "running.onnx")
    original = exported(context, WIDE)
    timing = timed(ours.path, original.path, options)
    low, high = timing.ratio_interval
    kept = ", ".join(f"layer {edit['path']}: {edit['count']} of 25" for edit in made.edits)
    return Claim(
        says="A network of 5×5 layers that runs in the frequency domain is faster in ONNX Runtime, "
        "one thread",
        rows=(
            Row(
                name="times faster in the frequency domain",
                figure=round(1 / timing.ratio, 3),
                interval=(1 / high, 1 / low),
                unit="×",
                goal=">= 1.3",
                note=kept or "no layer changed",
            ),
            _lost(points_lost(ours, original, context.task, context.data.test)),
        ),
        files={
            "running": options.commit(ours.path, "wide-kernels-dct.onnx"),
            "spatial": options.commit(original.path, "wide-kernels.onnx"),
        },
    )


def verify(options: Options) -> Claim:
    """Score and time the committed files again."""
    context = untrained(options)
    ours, original = (Artifact.of(options.committed(name)) for name in ("running", "spatial"))
    timing = timed(ours.path, original.path, options)
    return Claim(
        says="the committed files, scored and timed again",
        rows=(
            Row(name="times faster", figure=round(1 / timing.ratio, 3), unit="×", goal=">= 1.3"),
            _lost(points_lost(ours, original, context.task, context.data.test)),
        ),
    )


def _lost(lost: Measurement) -> Row:
    return Row.of(
        "points lost, whole test split",
        lost,
        goal="<= 0.3",
        limits=None if lost.value <= 0.3 else TOO_FEW_PICTURES,
    )


def running_context(options: Options) -> Context:
    """With its network trained: once, then read from the work folder."""
    context = untrained(options)
    fresh, kept = context.original, context.folder / "baseline.safetensors"
    if not kept.exists():
        step = Finetune(epochs=1 if options.smoke else WIDE_EPOCHS, learning_rate=0.05)
        save_network(step.apply(replace(fresh, id="baseline"), context).the_network(), kept)
    baseline = load_saved(kept, fresh.the_network().module)
    return replace(context, original=Candidate("original", network=baseline))


def untrained(options: Options) -> Context:
    """A network of 5×5 layers, as it was made, and CIFAR-10."""
    task = task_of("classification")
    spec = TensorSpec(name="input", shape=(None, 3, 32, 32))
    torch.manual_seed(0)
    fresh = Network(wide_kernels().eval(), (spec,), WIDE, WIDE_PREPROCESSING)
    folder: Path = options.work / WIDE
    folder.mkdir(exist_ok=True)
    context = Context(
        data=load_data("cifar10", task=task),
        task=task,
        target=Target(),
        original=Candidate("original", network=fresh),
        folder=folder,
        checkpoints=folder,
        train_precision=native_precision(),
        progress=Log(options),
    )
    return small(context, options)
