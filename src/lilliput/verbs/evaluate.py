"""How good is a file."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lilliput.artifact import Artifact
from lilliput.context import Progress
from lilliput.data.form import form_of
from lilliput.data.sources import load_data
from lilliput.errors import Refused
from lilliput.measurement import Measurement
from lilliput.meter.accuracy import Scores, also_of, drop, metric_of, score_fully
from lilliput.meter.bfloat16 import as_meant
from lilliput.preprocessing import Preprocessing
from lilliput.runtimes.opening import open_session
from lilliput.target import Target
from lilliput.tasks import task_of
from lilliput.tasks.base import Task


@dataclass(frozen=True)
class Evaluation:
    """A file's metric on a split with its interval; `drop` is what it loses against another.

    `also` is what the task reports beside its metric: SSIM beside PSNR.
    """

    file: Path
    metric: Measurement
    drop: Measurement | None
    split: str
    data: str
    target: Target
    synthetic: bool
    also: tuple[Measurement, ...] = ()

    def __str__(self) -> str:
        name = self.metric.conditions.get("metric", "metric")
        count = self.metric.conditions.get("examples")
        text = f"{self.file}: {name} {self.metric} on {count} {self.split} examples of {self.data}"
        for figure in self.also:
            text += f"\n{figure.conditions.get('metric')}: {figure}"
        if self.drop is not None:
            text += f"\nlost against the other file: {self.drop}"
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
    seed: int = 0,
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
        seed: Of the split, where the source has none of its own.
        progress: Watches.

    Raises:
        LilliputError: The data has no such split, or does not fit the file.
        Refused: A file from elsewhere does not say what it was made for.
    """
    where = Target.parse(target) if isinstance(target, str) else target
    artifact = Artifact.of(file)
    named = task_of_file(artifact, task)
    form = preprocessing or artifact.metadata.preprocessing
    examples = named.prepare(load_data(data, task=named, seed=seed, preprocessing=form))

    def scores(scored: Artifact) -> Scores:
        how = preprocessing or form_of(scored, examples)
        with closing(open_session(scored.path, as_meant(scored, where))) as session:
            return score_fully(
                session,
                named,
                examples.split(split),
                how,
                layout=examples.layout,
                progress=progress,
            )

    ours = scores(artifact)
    lost = None
    if against is not None:
        lost = drop(scores(Artifact.of(against)).metric, ours.metric, named.metric)
    return Evaluation(
        file=Path(file),
        metric=metric_of(ours.metric, named.metric),
        drop=lost,
        split=split,
        data=examples.name,
        target=where,
        synthetic=examples.synthetic,
        also=also_of(ours.also),
    )


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
