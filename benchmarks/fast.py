"""What the claims `resnet20-fast` and `resnet56-fast` share: `compress` as a user calls it.

The recommended file is scored once on the whole test split. Its time is taken beside the float
original in ONNX Runtime, one thread, in one session. Part of the test split chose among finalists,
because the published weights know the training set by heart; the rows say what the other part
gives too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from numpy import float64
from numpy.typing import NDArray

from benchmarks.harness import Claim, Options, Peer, Row, per_isa
from benchmarks.peers.pruned_int8 import files_of_today
from benchmarks.resnets import (
    PREPROCESSING,
    Log,
    class_and_weights,
    context_for,
    with_preprocessing,
)
from benchmarks.scoring import CHANCE, scores
from lilliput.artifact import Artifact
from lilliput.budget import Budget
from lilliput.data.sources import load_data
from lilliput.export.onnx_file import export_network
from lilliput.measurement import Measurement
from lilliput.meter.accuracy import drop
from lilliput.meter.host import cpu_flags, isa_class
from lilliput.meter.stopwatch import Pace, Timing, compare_files
from lilliput.runs.folder import is_run
from lilliput.runs.result import RunResult
from lilliput.target import Target
from lilliput.tasks import task_of
from lilliput.verbs.compress import compress
from lilliput.verbs.resume import resume

MAX_DROP = 1.0
SMOKE_MINUTES = 2.0
ORIGINAL = "original, fp32, ONNX Runtime"
TASK = task_of("classification")
OURS = "ours"
SLOW_FIRST = (
    "only speed was asked for: `compress` takes out the blocks that save most time for what they "
    "lose, and many weights stand where little time goes"
)


@dataclass(frozen=True)
class Case:
    """A network, the runtime that runs its file, times faster by class of CPU, and the time.

    `epochs` is how long the peer's network trains: about as long as ours may. `limits` says, by
    class of CPU, what stood in the way where the goal was missed.
    """

    network: str
    title: str
    runtime: str
    goals: dict[str, float]
    minutes: float
    epochs: int
    limits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """A file's scores on the whole test split, what it loses, and its time by the original's."""

    scores: NDArray[float64]
    lost: Measurement
    timing: Timing
    bytes: int

    @property
    def faster(self) -> float:
        return 1 / self.timing.ratio

    @property
    def interval(self) -> tuple[float, float]:
        low, high = self.timing.ratio_interval
        return 1 / high, 1 / low


def fast_claim(options: Options, case: Case) -> Claim:
    """Points lost, times faster, times smaller: ours and the best of today's tools."""
    result = compressed(options, case)
    assert result.best is not None
    best = result.best.the_artifact()
    original = next(c for c in result.candidates if c.id == "original-fp32").the_artifact()
    epochs = 1 if options.smoke else case.epochs
    today = files_of_today(options, case.network, epochs=epochs)
    ours = {c.id: c.the_artifact().path for c in result.front if c.id != "original-fp32"}
    judged = judge({**ours, **today}, original, Target(runtime=case.runtime))
    recommended = judged[result.best.id]
    rival = best_of([name for name in today if name in judged], judged)
    chose_nothing = Row.of(
        "points lost, the 70 % that chose nothing", result.best.measurements["test_drop"]
    )
    return Claim(
        says=f"{case.title}: the file that `compress --max-drop {MAX_DROP:g} --target "
        f"{case.runtime}` recommends in {case.minutes:g} minutes, beside the float original in "
        "ONNX Runtime, one thread",
        rows=(
            *rows_of(recommended, original, case, result.best.id),
            chose_nothing,
            *against({name: judged[name] for name in ours}, judged[rival]),
        ),
        peers=tuple(
            Peer(
                name=f"{name}{' (the best)' if name == rival else ''}", rows=plain(found, original)
            )
            for name, found in judged.items()
            if name in today
        ),
        files={"best": options.commit(best.path, f"{case.network}-{case.runtime}.onnx")},
    )


def verify_fast(options: Options, case: Case) -> Claim:
    """Score and time the committed file again."""
    path = options.committed("best")
    context = context_for(options, case.network, options.work, seed=0, threads=1)
    original = export_network(context.original.the_network(), options.work / "original.onnx")
    judged = judge({OURS: path}, original, Target(runtime=case.runtime))
    return Claim(
        says="the committed file, scored and timed again",
        rows=rows_of(judged[OURS], original, case, path.name),
    )


def compressed(options: Options, case: Case) -> RunResult:
    """The run of `compress` on this target; one that was interrupted goes on."""
    out = options.work / "run"
    if is_run(out):
        return resume(out)
    factory, weights = class_and_weights(options, case.network)
    return compress(
        factory,
        weights=weights,
        data="cifar10",
        target=case.runtime,
        budget=Budget(max_drop=MAX_DROP),
        preprocessing=PREPROCESSING,
        time_budget_minutes=SMOKE_MINUTES if options.smoke else case.minutes,
        out=out,
        progress=Log(options),
    )


def judge(files: Mapping[str, Path], original: Artifact, target: Target) -> dict[str, Judged]:
    """Every file on the whole test split, and all of them timed in one session."""
    timings = compare_files(
        {ORIGINAL: (original.path, Target())} | {n: (path, target) for n, path in files.items()},
        ORIGINAL,
        Pace(max_seconds=30.0 * len(files)),
    )
    test = load_data("cifar10", task=TASK).test
    whole = scores(original, TASK, test)

    def judged(name: str, path: Path) -> Judged:
        found = scores(with_preprocessing(path, original), TASK, test, target)
        lost = drop(whole, found, TASK.metric)
        return Judged(found, lost, timings[name], path.stat().st_size)

    return {name: judged(name, path) for name, path in files.items()}


def best_of(names: Sequence[str], judged: Mapping[str, Judged]) -> str:
    """What its user would take: the fastest that keeps the limit, or what loses least."""
    kept = [name for name in names if judged[name].lost.value <= MAX_DROP]
    if kept:
        return min(kept, key=lambda name: judged[name].timing.ratio)
    return min(names, key=lambda name: judged[name].lost.value)


def rows_of(ours: Judged, original: Artifact, case: Case, file: str) -> tuple[Row, ...]:
    faster = per_isa(
        "times faster",
        ours.faster,
        {isa: f">= {goal}" for isa, goal in case.goals.items()},
        interval=ours.interval,
        unit="×",
        note=f"{file}, {ours.timing.median_ms:.4f} ms, {ours.lost.value:.2f} points lost here",
    )
    return (
        Row.of("points lost, whole test split", ours.lost, goal=f"<= {MAX_DROP}"),
        *(
            row.model_copy(update={"limits": case.limits.get(row.isa or "")})
            if row.holds is False
            else row
            for row in faster
        ),
        Row(
            name="times smaller",
            figure=original.bytes / ours.bytes,
            unit="×",
            note=f"{ours.bytes} of {original.bytes} bytes",
        ),
    )


def against(ours: Mapping[str, Judged], rival: Judged) -> tuple[Row, ...]:
    """Beside the best of today's tools: our fastest file that loses no more than it, as far as the
    test split can tell, or, if all lose more, the one that loses least.
    """
    more = {name: drop(rival.scores, found.scores, TASK.metric) for name, found in ours.items()}
    lowest = {name: lost.interval[0] for name, lost in more.items() if lost.interval}
    equal = [name for name, low in lowest.items() if low <= 0]
    if equal:
        name = min(equal, key=lambda name: ours[name].timing.ratio)
    else:
        name = min(ours, key=lambda name: more[name].value)
    mine = ours[name]
    chance = more[name].value > 0 and bool(equal)
    return (
        Row.of(
            "points lost beyond the best peer",
            more[name],
            goal="<= 0",
            note=f"{name}: {mine.lost.value:.2f} points lost, the peer {rival.lost.value:.2f}",
            limits=CHANCE if chance else None,
        ),
        Row(
            name="times faster than the best peer",
            figure=rival.timing.ratio / mine.timing.ratio,
            unit="×",
            goal="> 1",
            isa=isa_class(cpu_flags()),
            note=name,
        ),
        Row(
            name="times smaller than the best peer",
            figure=rival.bytes / mine.bytes,
            unit="×",
            goal="> 1",
            note=name,
            limits=None if rival.bytes > mine.bytes else SLOW_FIRST,
        ),
    )


def plain(found: Judged, original: Artifact) -> tuple[Row, ...]:
    """A peer's figures, without goals."""
    return (
        Row.of("points lost, whole test split", found.lost),
        Row(
            name="times faster",
            figure=found.faster,
            interval=found.interval,
            unit="×",
            isa=isa_class(cpu_flags()),
        ),
        Row(name="times smaller", figure=original.bytes / found.bytes, unit="×"),
    )
