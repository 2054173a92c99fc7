"""What the claims `resnet20-fast` and `resnet56-fast` share: `compress` as a user calls it.

The recommended file is scored once on the whole test split. Its time is taken beside the float
original in ONNX Runtime, one thread, in one session. Part of the test split chose among finalists,
because the published weights know the training set by heart; the rows say what the other part
gives too.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

from benchmarks.harness import Claim, Options, Row
from lilliput.artifact import Artifact
from lilliput.budget import Budget
from lilliput.data.sources import load_data
from lilliput.measurement import Measurement
from lilliput.meter.accuracy import drop, score_file
from lilliput.meter.stopwatch import compare_files
from lilliput.preprocessing import IDENTITY, Preprocessing
from lilliput.runs.folder import is_run
from lilliput.runs.result import RunResult
from lilliput.runtimes.opening import open_session
from lilliput.target import Target
from lilliput.tasks import task_of
from lilliput.verbs.compress import compress
from lilliput.verbs.resume import resume

PREPROCESSING = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
MAX_DROP = 1.0
WORTH_A_LINE = 5.0
ORIGINAL = "original, fp32, ONNX Runtime"


def fast_claim(
    options: Options,
    *,
    network: str,
    title: str,
    runtime: str,
    goals: dict[str, float],
    minutes: float,
) -> Claim:
    """Points lost, times faster and times smaller; `goals` are times faster by class of CPU."""
    result = compressed(options, network, runtime, minutes=2 if options.smoke else minutes)
    rows, best = rows_for(result, runtime, goals)
    says = (
        f"{title}: the file that `compress --max-drop {MAX_DROP:g} --target {runtime}` recommends "
        f"in {minutes:g} minutes, beside the float original in ONNX Runtime, one thread"
    )
    return Claim(
        says=says,
        rows=tuple(rows),
        files={"best": options.commit(best.path, f"{network}-{runtime}.onnx")},
    )


def compressed(options: Options, network: str, runtime: str, *, minutes: float) -> RunResult:
    """The run of `compress` on this target; one that was interrupted goes on."""
    out = options.work / "run"
    if is_run(out):
        return resume(out)
    return compress(
        f"{options.home}/networks/resnet_cifar.py:{network}",
        weights=options.data / f"models/cifar10_{network}/model.safetensors",
        data="cifar10",
        target=runtime,
        budget=Budget(max_drop=MAX_DROP),
        preprocessing=PREPROCESSING,
        time_budget_minutes=minutes,
        out=out,
        progress=Log(options),
    )


class Log:
    """Progress as lines of the claim's log."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def track(self, items: Any, *, label: str, total: int | None = None) -> Any:
        began = time.perf_counter()
        yield from items
        seconds = time.perf_counter() - began
        if seconds > WORTH_A_LINE:
            of = f" ({total})" if total else ""
            self.options.log(f"  {label}{of}: {seconds:.0f} s")

    def say(self, line: str) -> None:
        self.options.log(line)


def rows_for(
    result: RunResult, runtime: str, goals: dict[str, float]
) -> tuple[list[Row], Artifact]:
    """Judge the recommended file anew: whole test split, and time beside the original's."""
    assert result.best is not None
    best = result.best.the_artifact()
    original = next(c for c in result.candidates if c.id == "original-fp32").the_artifact()
    target = Target(runtime=runtime)
    lost = whole_test_drop(best, original, target)
    timing = compare_files(
        {ORIGINAL: (original.path, Target()), "ours": (best.path, target)},
        ORIGINAL,
        max_seconds=60,
    )["ours"]
    rows = [
        Row.of("points lost, whole test split", lost, goal=f"<= {MAX_DROP}"),
        Row.of(
            "points lost, the 70 % that chose nothing",
            result.best.measurements["test_drop"],
        ),
        *(
            Row(
                name="times faster",
                figure=1 / timing.ratio if isa == machine_class() else None,
                interval=(1 / timing.ratio_interval[1], 1 / timing.ratio_interval[0])
                if isa == machine_class()
                else None,
                unit="×",
                goal=f">= {goal}",
                isa=isa,
                note=f"{result.best.id}, {timing.median_ms:.4f} ms",
            )
            for isa, goal in goals.items()
        ),
        Row(
            name="times smaller",
            figure=original.bytes / best.bytes,
            unit="×",
            note=f"{best.bytes} of {original.bytes} bytes",
        ),
    ]
    return rows, best


def machine_class() -> str:
    """The class of goals that this machine is judged by."""
    from lilliput.meter.host import cpu_flags, isa_class

    found = isa_class(cpu_flags())
    return "vnni" if found in ("vnni", "amx") else found


def whole_test_drop(ours: Artifact, original: Artifact, target: Target) -> Measurement:
    """Paired loss on all 10,000 test examples; the original runs in ONNX Runtime."""
    task = task_of("classification")
    data = load_data("cifar10", task=task)

    def scores(artifact: Artifact, where: Target) -> Any:
        with closing(open_session(artifact.path, where)) as session:
            return score_file(session, task, data.test, artifact.metadata.preprocessing or IDENTITY)

    return drop(scores(original, Target()), scores(ours, target), task.metric)
