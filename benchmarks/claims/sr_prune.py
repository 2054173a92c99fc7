"""CARN-M ×2 without two fifths of its multiply-adds, scored on Set5 as the literature does."""

from __future__ import annotations

import torch

from benchmarks.harness import Claim, Options, Row
from benchmarks.resnets import Log
from benchmarks.scoring import points_lost
from lilliput.artifact import Artifact, ArtifactMetadata, TensorSpec
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.data.sources import load_data
from lilliput.export.onnx_file import export_network
from lilliput.measurement import Measurement
from lilliput.meter.cost import file_cost
from lilliput.meter.host import cpu_flags, isa_class, native_precision
from lilliput.meter.stopwatch import Pace, compare_files
from lilliput.models.source import load_network
from lilliput.network import Network
from lilliput.preprocessing import Preprocessing
from lilliput.steps.distill import Distill
from lilliput.steps.prune_channels import PruneChannels
from lilliput.target import Target
from lilliput.tasks import task_of

TASK = task_of({"name": "super_resolution", "scale": 2, "patch": 24, "patches_per_image": 64})
"""Four times as many steps an epoch as with the usual patches, in the same time."""

KEEP = 0.6
MULTIPLE = 8
"""Beside multiples of 4, a little faster at no more loss before training."""

EPOCHS, SMOKE_EPOCHS = 20, 1
FILE = "carn-m-x2-pruned"
SHORT = "twenty epochs on 82 pictures; longer ones were not run, and Set5 has five pictures"
SAYS = "CARN-M ×2 at 60 % of its multiply-adds loses at most 0.15 dB on Set5"


def run(options: Options) -> Claim:
    context = prepared(options)
    original = exported(context.original.the_network(), context, "original")
    path = context.folder / "pruned.onnx"
    found = Artifact.of(path) if path.is_file() else None
    pruned = found or exported(made(context, options), context, "pruned")
    return Claim(
        says=SAYS,
        rows=rows_of(pruned, original, context, options),
        files={FILE: options.commit(pruned.path, f"{FILE}.onnx")},
    )


def verify(options: Options) -> Claim:
    """Score and time the committed file again."""
    context = prepared(options)
    original = exported(context.original.the_network(), context, "original")
    pruned = Artifact.of(options.committed(FILE))
    return Claim(says=f"{SAYS}, measured again", rows=rows_of(pruned, original, context, options))


def prepared(options: Options) -> Context:
    """The published weights; T91 to train on, Set5 to test."""
    free = TensorSpec(name="input", shape=(None, 3, None, None), sample=(1, 3, 48, 48))
    network = load_network(
        f"{options.home}/networks/carn_m.py:x2",
        weights=options.data / "models/sr_carn_m/carn_m_fp16.safetensors",
        inputs=(free,),
        preprocessing=Preprocessing(),
        task=TASK,
    )
    return Context(
        data=TASK.prepare(load_data("t91", task=TASK)),
        task=TASK,
        target=Target(),
        original=Candidate("original", network=network),
        folder=options.work,
        checkpoints=options.work,
        train_threads=torch.get_num_threads(),
        train_precision=native_precision(),
        progress=Log(options),
    )


def made(context: Context, options: Options) -> Network:
    """Channels cut globally, then distilled: the original's pictures teach more than T91's."""
    cut = PruneChannels(keep_macs=KEEP, multiple_of=MULTIPLE, score_images=64, bn_images=0)
    narrow = cut.apply(context.original, context)
    distill = Distill(
        epochs=SMOKE_EPOCHS if options.smoke else EPOCHS,
        optimizer="adam",
        learning_rate=1e-3,
        batch_size=16,
        weight_decay=0.0,
        imitation=1.0,
        views=0,
    )
    return distill.apply(Candidate("pruned", network=narrow.the_network()), context).the_network()


def exported(network: Network, context: Context, name: str) -> Artifact:
    metadata = ArtifactMetadata(preprocessing=network.preprocessing, task=TASK.settings())
    return export_network(network, context.folder / f"{name}.onnx", metadata=metadata)


def rows_of(
    pruned: Artifact, original: Artifact, context: Context, options: Options
) -> tuple[Row, ...]:
    timing = compare_files(
        {"original": (original.path, Target()), "pruned": (pruned.path, Target())},
        "original",
        Pace(max_seconds=3 if options.smoke else 60),
    )["pruned"]
    share = file_cost(pruned.path).macs / file_cost(original.path).macs
    found = lost(pruned, original, context)
    return (
        Row(name="share of multiply-adds", figure=round(share, 4), goal=f"<= {KEEP}"),
        Row.of("lost on Set5", found, goal="<= 0.15", limits=SHORT if found.value > 0.15 else None),
        Row(
            name="time over the original's",
            figure=round(timing.ratio, 4),
            interval=timing.ratio_interval,
            isa=isa_class(cpu_flags()),
            note=f"48×48 pixels in, one thread, {timing.median_ms:.2f} ms",
        ),
        Row(name="bytes over the original's", figure=round(pruned.bytes / original.bytes, 4)),
    )


def lost(pruned: Artifact, original: Artifact, context: Context) -> Measurement:
    """Mean decibels on luminance that Set5's pictures lose, paired."""
    return points_lost(pruned, original, TASK, context.data.test)
