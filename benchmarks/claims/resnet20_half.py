"""ResNet-20 on CIFAR-10 at half its multiply-adds: ours and torch-pruning, equal training."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks.harness import Claim, Options, Peer, Row
from benchmarks.peers.pruned import cut_by_torch_pruning
from benchmarks.resnets import Log, class_and_weights, context_for, whole_test_drop
from lilliput.artifact import Artifact
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.export.onnx_file import export_network
from lilliput.measurement import Measurement
from lilliput.meter.cost import file_cost
from lilliput.network import Network
from lilliput.steps.distill import Distill
from lilliput.steps.finetune import Finetune
from lilliput.steps.prune_channels import PruneChannels
from lilliput.target import Target

MAX_MACS = 20.4e6
SHORTCUTS = 262_144
"""In the file each zero-padded shortcut is a convolution of its own, which counts too: at most so
much, where no channel of the stem is cut."""

EPOCHS, SMOKE_EPOCHS = 42, 1
TEACHER, VIEWS = "resnet56", 5
"""The larger network of the same family teaches; its answers to five augmented epochs are kept:
on a slow machine each costs as much as an epoch without."""

SHORT = (
    "forty epochs are an hour of one core on a slow machine; cuts by other criteria, and with one "
    "to three whole blocks gone, were no better after a few hundred steps"
)

PEER = "torch-pruning 1.6.1, group L2 norm, fine-tuned with cross-entropy"


def run(options: Options) -> Claim:
    """Two trainings side by side, a thread each.

    The peer has one seed: it loses more than a point more, where seeds differ by tenths.
    """
    seeds = options.seeds[:1] if options.smoke else options.seeds
    jobs = [(PEER, seeds[0]), *(("ours", seed) for seed in seeds)]
    workers = ProcessPoolExecutor(2, mp_context=get_context("spawn"))
    with workers as pool:
        made = dict(
            zip(jobs, pool.map(partial(make, options), *zip(*jobs, strict=True)), strict=True)
        )
    original = export_network(prepared(options, 0).original.the_network(), options.work / "o.onnx")
    lost = {
        job: whole_test_drop(Artifact.of(m.path), original, Target()) for job, m in made.items()
    }
    for (name, seed), loss in lost.items():
        options.log(f"seed {seed}, {name}: {loss.value:.2f} points lost")
    mine = [m for (name, _), m in made.items() if name == "ours"]
    return Claim(
        says="ResNet-20 on CIFAR-10 at half its multiply-adds, taught by ResNet-56, loses at most "
        "0.7 points",
        rows=(
            limited(spread("points lost", of(lost, "ours"), "points", "<= 0.7")),
            most_macs(made, "ours", f"<= {MAX_MACS:g}"),
            Row(
                name="minutes, longest",
                figure=max(m.minutes for m in mine),
                unit="min",
                goal="<= 60",
                note="processor time of one core",
            ),
        ),
        peers=(
            Peer(
                name=PEER,
                rows=(
                    spread("points lost", of(lost, PEER), "points", None),
                    most_macs(made, PEER, None),
                    Row(
                        name="minutes, longest",
                        figure=max(m.minutes for (name, _), m in made.items() if name == PEER),
                        unit="min",
                    ),
                ),
            ),
        ),
        files={
            f"seed {seed}": options.commit(made["ours", seed].path, f"resnet20-half-{seed}.onnx")
            for seed in seeds
        },
    )


@dataclass(frozen=True)
class Made:
    """A trained network's float file and the minutes that it took, over all interruptions."""

    path: Path
    minutes: float


class Clock(Log):
    """A log that keeps the seconds worked so far beside the file, epoch by epoch.

    The processor's time, not the wall's: other work shares the machine.
    """

    def __init__(self, options: Options, kept: Path) -> None:
        super().__init__(options)
        self.kept = kept
        self.began = time.process_time() - (float(kept.read_text()) if kept.is_file() else 0.0)

    @property
    def minutes(self) -> float:
        return (time.process_time() - self.began) / 60

    def track(self, items: Any, *, label: str, total: int | None = None) -> Any:
        yield from super().track(items, label=label, total=total)
        self.kept.write_text(f"{60 * self.minutes:.1f}")


def make(options: Options, name: str, seed: int) -> Made:
    """One network cut and trained; what an interrupted claim finished is kept."""
    torch.set_num_threads(1)
    kind = "ours" if name == "ours" else "peer"
    path = options.parts / f"{kind}-{seed}.onnx"
    clock = Clock(options, path.with_suffix(".seconds"))
    if not path.is_file():
        context = replace(prepared(options, seed), progress=clock)
        export_network((ours if name == "ours" else theirs)(context, options), path)
    return Made(path, float(clock.kept.read_text()) / 60)


def of(lost: Mapping[tuple[str, int], Measurement], name: str) -> list[float]:
    return [loss.value for (tool, _), loss in lost.items() if tool == name]


def most_macs(made: Mapping[tuple[str, int], Made], name: str, goal: str | None) -> Row:
    macs = max(file_cost(m.path).macs for (tool, _), m in made.items() if tool == name)
    return Row(name="multiply-adds", figure=macs, unit="MACs", goal=goal)


def spread(name: str, values: list[float], unit: str, goal: str | None) -> Row:
    """The mean over seeds, with the least and the largest as its interval where there are more."""
    several = len(values) > 1
    return Row(
        name=name,
        figure=mean(values),
        interval=(min(values), max(values)) if several else None,
        unit=unit,
        goal=goal,
        seeds=len(values),
        note="interval: least and largest of the seeds" if several else None,
    )


def limited(row: Row) -> Row:
    """With the reason where the goal is missed."""
    return row if row.holds else row.model_copy(update={"limits": SHORT})


def prepared(options: Options, seed: int) -> Context:
    """ResNet-20 with its published weights, trained on one core."""
    folder = options.work / f"seed-{seed}"
    return context_for(options, "resnet20", folder, seed=seed, threads=1)


def ours(context: Context, options: Options) -> Network:
    """Channels cut globally to the goal, then distilled from a larger network."""
    cut = PruneChannels(max_macs=MAX_MACS - SHORTCUTS, multiple_of=1)
    narrow = cut.apply(Candidate("ours", network=context.original.network), context)
    epochs = SMOKE_EPOCHS if options.smoke else EPOCHS
    teacher, weights = class_and_weights(options, TEACHER)
    distill = Distill(
        epochs=epochs,
        learning_rate=0.03,
        views=VIEWS,
        teacher=teacher,
        teacher_weights=weights,
    )
    trained = distill.apply(Candidate("ours", network=narrow.network), context)
    return trained.the_network()


def theirs(context: Context, options: Options) -> Network:
    """torch-pruning's cut of what it cuts correctly here, then its usual fine-tuning."""
    network = cut_by_torch_pruning(context.original.the_network(), MAX_MACS - SHORTCUTS)
    epochs = SMOKE_EPOCHS if options.smoke else EPOCHS
    tuned = Finetune(epochs=epochs, learning_rate=0.01).apply(
        Candidate("peer", network=network), context
    )
    return tuned.the_network()


def verify(options: Options) -> Claim:
    """Score the committed files again."""
    original = export_network(prepared(options, 0).original.the_network(), options.work / "o.onnx")
    lost, macs = [], []
    for seed in options.seeds:
        path = options.committed(f"seed {seed}")
        lost.append(whole_test_drop(Artifact.of(path), original, Target()).value)
        macs.append(file_cost(path).macs)
    return Claim(
        says="the committed files, scored again",
        rows=(
            limited(spread("points lost", lost, "points", "<= 0.7")),
            Row(name="multiply-adds", figure=max(macs), unit="MACs", goal=f"<= {MAX_MACS:g}"),
        ),
    )
