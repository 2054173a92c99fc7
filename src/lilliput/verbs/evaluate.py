"""How good is a file."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lilliput.artifact import Artifact, ArtifactMetadata
from lilliput.context import Progress, SilentProgress
from lilliput.data.dataset import Dataset, Split
from lilliput.data.form import form_of
from lilliput.data.sources import load_data
from lilliput.data.sources.splits import OWN
from lilliput.encode.saturation import OldCpu
from lilliput.errors import Refused
from lilliput.measurement import Measurement
from lilliput.meter.accuracy import Scores, also_of, drop, metric_of, score_fully
from lilliput.meter.bfloat16 import as_meant
from lilliput.meter.host import clips_here
from lilliput.onnx_io import SUFFIXES, read_model
from lilliput.preprocessing import Preprocessing
from lilliput.runtimes.base import Computes
from lilliput.runtimes.opening import open_session
from lilliput.target import Target
from lilliput.tasks import task_of
from lilliput.tasks.base import Task

OLD_CPU_EXAMPLES = 1000
"""Most that are scored as an old CPU would: numpy takes a second for 15 pictures of ResNet-20."""


@dataclass(frozen=True)
class OldCpuFigure:
    """The metric as an x86 CPU without VNNI computes it; `drop` is against this machine.

    Both are of the same examples.
    """

    metric: Measurement
    drop: Measurement

    def __str__(self) -> str:
        count = self.metric.conditions.get("examples")
        return (
            f"as an x86 CPU without VNNI computes it: {self.metric} on {count} of these examples\n"
            f"lost there against this machine: {self.drop}"
        )

    def as_json(self) -> dict[str, Any]:
        """Both figures as plain values."""
        return {name: getattr(self, name).model_dump(mode="json") for name in ("metric", "drop")}


@dataclass(frozen=True)
class Evaluation:
    """A file's metric on a split with its interval; `drop` is what it loses against another.

    `also` is what the task reports beside its metric: SSIM beside PSNR. `old_cpu` is there where it
    was asked for. `warnings` are of files that were made for another class of CPU.
    """

    file: Path
    metric: Measurement
    drop: Measurement | None
    split: str
    data: str
    target: Target
    synthetic: bool
    also: tuple[Measurement, ...] = ()
    old_cpu: OldCpuFigure | None = None
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        name = self.metric.conditions.get("metric", "metric")
        count = self.metric.conditions.get("examples")
        text = f"{self.file}: {name} {self.metric} on {count} {self.split} examples of {self.data}"
        for figure in self.also:
            text += f"\n{figure.conditions.get('metric')}: {figure}"
        if self.drop is not None:
            text += f"\nlost against the other file: {self.drop}"
        if self.old_cpu is not None:
            text += f"\n{self.old_cpu}"
        for warning in self.warnings:
            text += f"\nwarning: {warning}"
        if self.synthetic:
            text += "\nthe data is random: this figure means nothing"
        return f"{text}\n{self.target.label}"

    def as_json(self) -> dict[str, Any]:
        """Every figure as plain values."""
        return {
            "file": str(self.file),
            "metric": self.metric.model_dump(mode="json"),
            "drop": None if self.drop is None else self.drop.model_dump(mode="json"),
            "also": [figure.model_dump(mode="json") for figure in self.also],
            "old_cpu": None if self.old_cpu is None else self.old_cpu.as_json(),
            "warnings": list(self.warnings),
            "split": self.split,
            "data": self.data,
            "synthetic": self.synthetic,
            "target": self.target.model_dump(mode="json"),
        }


def evaluate(
    file: Path | str,
    *,
    data: str,
    task: str | dict[str, Any] | None = None,
    against: Path | str | None = None,
    split: str = "test",
    target: str | Target = "onnxruntime",
    preprocessing: Preprocessing | None = None,
    old_cpu: bool = False,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a file in its runtime on a whole split, test by default.

    Args:
        file: The file.
        data: A folder, an `.npz`, a named set, or `module:function`.
        task: Left out, the task that the file says it was made for.
        against: Another file on the same examples; the drop is paired with it, one by one.
        split: "test", "validation", "train" or "calibration".
        target: A runtime's name, or a whole Target.
        preprocessing: Left out, what the file says of itself.
        old_cpu: Also score it as ONNX Runtime would on an x86 CPU without VNNI, whose sums of
            8-bit products clip: in numpy, on at most 1000 examples, drawn at random.
        seed: Of the split, where the source has none of its own, and of that draw. Left out, the
            one that the file was made with: none of the examples it learnt from is in its test.
        progress: Watches.

    Raises:
        LilliputError: The data has no such split, or does not fit the file.
        Refused: A file from elsewhere does not say what it was made for; or nothing in it would be
            computed otherwise by an old CPU.
    """
    where = Target.parse(target) if isinstance(target, str) else target
    artifact = Artifact.of(file)
    named = task_of_file(artifact, task)
    form = preprocessing or artifact.metadata.preprocessing
    seed = artifact.metadata.seed if seed is None else seed
    emulator = emulator_of(artifact) if old_cpu else None
    examples = named.prepare(load_data(data, task=named, seed=seed, preprocessing=form))
    chosen, watch = examples.split(split), progress or SilentProgress()

    def scores(file: Computes, described: Artifact, of: Split) -> Scores:
        how = preprocessing or form_of(described, examples)
        return score_fully(file, named, of, how, layout=examples.layout, progress=watch)

    def scores_here(scored: Artifact) -> Scores:
        with closing(open_session(scored.path, as_meant(scored.metadata, where))) as session:
            return scores(session, scored, chosen)

    ours, scored = scores_here(artifact), [artifact]
    lost = None
    if against is not None:
        scored.append(Artifact.of(against))
        lost = drop(scores_here(scored[-1]).metric, ours.metric, named.metric)
    there = None
    if emulator is not None:
        order = np.random.default_rng(seed).permutation(len(chosen))
        few = np.sort(order[:OLD_CPU_EXAMPLES])
        watch.say(f"{len(few)} examples as an old CPU computes them, in numpy")
        clipped = scores(emulator, artifact, chosen.take(few)).metric
        there = OldCpuFigure(
            metric=metric_of(clipped, named.metric),
            drop=drop(ours.metric[few], clipped, named.metric),
        )
    return Evaluation(
        file=Path(file),
        metric=metric_of(ours.metric, named.metric),
        drop=lost,
        split=split,
        data=examples.name,
        target=where,
        synthetic=examples.synthetic,
        also=also_of(ours.also),
        old_cpu=there,
        warnings=tuple(
            f"{file.path}: {why}"
            for file in scored
            for why in (
                clips_here(file.metadata),
                divided_otherwise(file.metadata, examples, split, seed),
            )
            if why is not None
        ),
    )


def divided_otherwise(
    metadata: ArtifactMetadata, examples: Dataset, split: str, seed: int
) -> str | None:
    """What to think of a figure on a split that another seed drew than the file's own."""
    if seed == metadata.seed or examples.facts.get(split, OWN) == OWN:
        return None
    return (
        f"made with seed {metadata.seed} and scored on the {split} split of seed {seed}: it may "
        "have learnt from these examples"
    )


def emulator_of(artifact: Artifact) -> OldCpu:
    """The file as an x86 CPU without VNNI computes it.

    Raises:
        Refused: No layer in it whose sums such a CPU would clip.
    """
    if artifact.path.suffix not in SUFFIXES:
        raise Refused(
            f"an old CPU is emulated for {' and '.join(SUFFIXES)} files, "
            f"not for {artifact.path.name!r}"
        )
    emulator = OldCpu(read_model(artifact.path))
    if not emulator.layers:
        raise Refused(
            f"{artifact.path.name} has no int8 layer (a Conv, Gemm or MatMul between "
            "DequantizeLinear and QuantizeLinear): every CPU computes it alike",
            hint="leave out --old-cpu, or quantize the file first: lilliput compress",
        )
    return emulator


def task_of_file(artifact: Artifact, task: str | dict[str, Any] | None) -> Task:
    """The task named, or the one that the file says it was made for.

    Raises:
        Refused: Neither is there.
    """
    settings = task or artifact.metadata.task
    if not settings:
        raise Refused(
            f"{artifact.path.name} does not say what it was made for",
            hint="say it: --task classification",
        )
    return task_of(settings)
