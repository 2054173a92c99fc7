"""Post-training int8 on five networks: least error, least loss, no slower, on old CPUs too."""

from __future__ import annotations

import re
from typing import Any

from benchmarks.harness import Claim, CommittedFile, Options, Peer, Row
from benchmarks.int8 import (
    CASES,
    OURS,
    Case,
    Files,
    Judged,
    judge,
    make_files,
    old_cpu_split,
    prepared,
)
from benchmarks.scoring import CHANCE
from lilliput.context import Context
from lilliput.measurement import Measurement
from lilliput.meter.accuracy import drop
from lilliput.meter.coverage import coverage
from lilliput.meter.host import cpu_flags, isa_class
from lilliput.meter.stopwatch import Pace, Timing, compare_files
from lilliput.target import Target

OLD_CPU_IMAGES = 1000
SECONDS = 40.0
FLOAT = "float"
SAYS = (
    "Int8 without training: the least output error and the least loss among ONNX Runtime's "
    "quantizer, NNCF and ours on five networks, at no lower speed, natively and as a CPU without "
    "8-bit dot products would run it"
)


def run(options: Options) -> Claim:
    rows: list[Row] = []
    found: list[Peer] = []
    files: dict[str, CommittedFile] = {}
    for case in CASES[:1] if options.smoke else CASES:
        options.log(case.name)
        context = prepared(case, options)
        made = make_files(context, options)
        files[case.name] = options.commit(made.int8[OURS], f"int8-{context.folder.name}.onnx")
        mine, theirs = judged_rows(case, context, made, options)
        rows += mine
        found += theirs
    return Claim(says=SAYS, rows=tuple(rows), peers=tuple(found), files=files)


def verify(options: Options) -> Claim:
    """Score the committed files again, on the whole test split."""
    rows = []
    for case in CASES:
        context = prepared(case, options)
        made = Files(
            context.original.the_artifact(), {OURS: options.committed(case.name)}, coverage=""
        )
        native = judge(context, made, context.data.test, context.folder, old_cpu=False)
        rows.append(_lost(case, "lost", context, native, OURS, f"<= {case.allowed}"))
        rows.append(_error(case, "output error", native[OURS]))
    return Claim(says="the committed files, scored again", rows=tuple(rows))


def judged_rows(
    case: Case, context: Context, files: Files, options: Options
) -> tuple[list[Row], list[Peer]]:
    """Our rows with their goals, and what each peer reached."""
    test = context.data.test.head(64) if options.smoke else context.data.test
    few = old_cpu_split(context, 16 if options.smoke else OLD_CPU_IMAGES)
    native = judge(context, files, test, context.folder, old_cpu=False)
    old = judge(context, files, few, context.folder, old_cpu=True)
    timings = timed(files, options)
    others = [name for name in files.int8 if name != OURS]
    fastest = min(others, key=lambda name: timings[name].median_ms)
    direct = compare_files(
        {name: (files.int8[name], Target()) for name in (OURS, fastest)},
        fastest,
        Pace(max_seconds=3 if options.smoke else SECONDS),
    )[OURS]
    rows = [
        _lost(case, "lost", context, native, OURS, f"<= {case.allowed}"),
        _lost(case, "lost as an old CPU", context, old, OURS, f"<= {case.allowed}", note=_few(few)),
        _beyond(case, context, native, others),
        _ratio(case, "output error over the least of a peer", native, others),
        _ratio(case, "output error over the least of a peer, as an old CPU", old, others),
        Row(
            name=f"{case.name}: time over the fastest peer's",
            figure=round(direct.ratio, 4),
            interval=direct.ratio_interval,
            goal="<= 1.01",
            isa=isa_class(cpu_flags()),
            note=f"{fastest}: {timings[fastest].median_ms:.3f} ms; 1 % is the noise floor",
        ),
        _floats(case, files),
        *_stated(case, context, native, old, timings, OURS),
    ]
    peers = [
        Peer(
            name=f"{case.name}: {name}",
            rows=tuple(
                row.model_copy(update={"name": row.name.removeprefix(f"{case.name}: ")})
                for row in _stated(case, context, native, old, timings, name)
            ),
        )
        for name in others
    ]
    return rows, peers


def timed(files: Files, options: Options) -> dict[str, Timing]:
    """Every file beside the float file, one thread, in one session."""
    every = {FLOAT: files.float.path, **files.int8}
    return compare_files(
        {name: (path, Target()) for name, path in every.items()},
        FLOAT,
        Pace(max_seconds=3 if options.smoke else SECONDS),
    )


def _lost(
    case: Case,
    what: str,
    context: Context,
    judged: dict[str, Judged],
    name: str,
    goal: str | None,
    note: str | None = None,
) -> Row:
    loss = _loss(context, judged, name)
    return Row(
        name=f"{case.name}: {what}",
        figure=round(loss.value, 4),
        unit=case.unit,
        interval=loss.interval,
        goal=goal,
        note=note,
        limits=_limits(case, context, judged, loss),
    )


def _limits(
    case: Case, context: Context, judged: dict[str, Judged], loss: Measurement
) -> str | None:
    """What stands in the way of a loss that is not allowed: chance, or int8 without training."""
    if loss.value <= case.allowed:
        return None
    if loss.interval is not None and loss.interval[0] <= case.allowed:
        return f"the interval holds {case.allowed:g}: so few pictures tell no more"
    others = [name for name in judged if name not in (FLOAT, OURS)]
    least = min(_loss(context, judged, name).value for name in others) if others else None
    rest = "" if least is None else f"; the best peer loses {least:.2f} {case.unit}"
    return f"activations of so wide a range want a training, or more layers in float{rest}"


def _loss(context: Context, judged: dict[str, Judged], name: str) -> Measurement:
    return drop(judged[FLOAT].scores, judged[name].scores, context.task.metric)


def _beyond(case: Case, context: Context, judged: dict[str, Judged], others: list[str]) -> Row:
    best = min(others, key=lambda name: _loss(context, judged, name).value)
    more = drop(judged[best].scores, judged[OURS].scores, context.task.metric)
    settled = more.interval is None or not more.interval[0] <= 0 <= more.interval[1]
    return Row(
        name=f"{case.name}: lost beyond the peer that loses least",
        figure=round(more.value, 4),
        unit=case.unit,
        interval=more.interval,
        goal="<= 0",
        note=best,
        limits=None if more.value <= 0 or settled else CHANCE,
    )


def _ratio(case: Case, what: str, judged: dict[str, Judged], others: list[str]) -> Row:
    best = min(others, key=lambda name: judged[name].error)
    return Row(
        name=f"{case.name}: {what}",
        figure=round(judged[OURS].error / judged[best].error, 4),
        goal="< 1",
        note=best,
    )


def _error(case: Case, what: str, judged: Judged) -> Row:
    return Row(name=f"{case.name}: {what}", figure=round(100 * judged.error, 3), unit="%")


def _stated(
    case: Case,
    context: Context,
    native: dict[str, Judged],
    old: dict[str, Judged],
    timings: dict[str, Timing],
    name: str,
) -> list[Row]:
    """Figures without a goal, the same for ours and for the peers."""
    timing = timings[name]
    rows = [
        _error(case, "output error", native[name]),
        _error(case, "output error as an old CPU", old[name]),
        Row(
            name=f"{case.name}: time over the float file's",
            figure=round(timing.ratio, 4),
            interval=timing.ratio_interval,
            isa=isa_class(cpu_flags()),
        ),
    ]
    if name != OURS:
        rows[:0] = [
            _lost(case, "lost", context, native, name, None),
            _lost(case, "lost as an old CPU", context, old, name, None),
        ]
    return rows


def _floats(case: Case, files: Files) -> Row:
    """Convolutions that the runtime computes in float though nobody measured them faster so."""
    found = coverage(files.int8[OURS], Target())
    chosen = len(re.findall(r"measured faster in float", files.coverage))
    return Row(
        name=f"{case.name}: float layers that were not measured faster so",
        figure=max(len(found.floats) - _listed(files.coverage, chosen), 0),
        goal="== 0",
        note=files.coverage,
    )


def _listed(line: str, chosen: int) -> int:
    """Float layers of the coverage line that the stopwatch chose, those it cut off included."""
    more = re.search(r" and (\d+) more$", line)
    return chosen + (int(more[1]) if more else 0)


def _few(split: Any) -> str:
    return f"{len(split)} pictures" if split.uniform else f"{len(split)} crops"
