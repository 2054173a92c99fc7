"""The stopwatch tells files apart when they differ, and only then.

Trials on this machine, as a user's comparisons would be: a network of 100 equal layers against
itself, and against one of 103 such layers, which is 3 % more of the same work. A comparison ends
when its intervals are ±1 % wide, which is what tells 3 % apart, or when its time is up. Threads and
kinds alternate, so that the machine's moods reach all.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx

from benchmarks.harness import Claim, Options, Row
from lilliput.meter import load, loads, readings, rounds, statistics, stopwatch
from lilliput.meter.layer_nets import layer_chain
from lilliput.target import Target

LAYERS, MORE_LAYERS = 100, 103
SAME, LONGER = "same", "three percent"
TRIALS = {SAME: 100, LONGER: 60}
"""For each number of threads."""

SMOKE_TRIALS = {SAME: 2, LONGER: 2}
MAX_SECONDS, SMOKE_SECONDS = 17.5, 0.5
RESOLUTION = 0.02
THREADS = (1, 2)


def run(options: Options) -> Claim:
    """All trials, those of an interrupted run included; about an hour."""
    trials = SMOKE_TRIALS if options.smoke else TRIALS
    kept = options.work / f"trials-{code_digest()}.jsonl"
    done = _read(kept)
    kept.write_text("".join(json.dumps(result) + "\n" for result in done.values()))
    planned = plan(trials)
    with tempfile.TemporaryDirectory() as folder, kept.open("a") as journal:
        files = write_networks(Path(folder))
        for kind, threads, number in planned:
            if (kind, threads, number) in done:
                continue
            result = trial(files, kind, threads, number, smoke=options.smoke)
            done[kind, threads, number] = result
            journal.write(json.dumps(result) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
            options.log(
                f"{len(done)}/{len(planned)} {kind}, {threads} threads: {result['verdict']} "
                f"({result['ratio']:.3f} in {result['seconds']:.1f} s)"
            )
    results = [done[key] for key in planned]
    same = [result for result in results if result["kind"] == SAME]
    rows = (
        rate("same file called different", same, right=False, goal="<= 5"),
        *(row for threads in THREADS for row in rows_of(results, threads)),
    )
    says = (
        "Two copies of a file are called different in at most 5 % of comparisons, and a file that "
        "does 3 % more work is found slower in at least 90 %, within 20 s a comparison"
    )
    return Claim(says=says, rows=rows, conditions={"trials": len(planned), "layers": LAYERS})


def plan(trials: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """(kind, threads, number) of every trial: all kinds and threads at every stage of the run."""
    most = max(trials.values())
    keys = [
        (kind, threads, n) for kind in trials for n in range(trials[kind]) for threads in THREADS
    ]
    return sorted(keys, key=lambda key: (key[2] * most // trials[key[0]], key))


def write_networks(folder: Path) -> dict[str, Path]:
    """The two chains of 3×3 layers (16 channels, 16×16 pictures)."""
    paths = {}
    for name, layers in (("plain", LAYERS), ("longer", MORE_LAYERS)):
        paths[name] = folder / f"{name}.onnx"
        onnx.save(layer_chain(16, "conv3x3", layers=layers), str(paths[name]))
    return paths


def trial(
    files: dict[str, Path], kind: str, threads: int, number: int, *, smoke: bool
) -> dict[str, Any]:
    """One comparison; the longer network is the reference in every other trial of its kind."""
    pair = ("plain", "plain") if kind == SAME else ("plain", "longer")
    swapped = number % 2 == 1
    reference, other = reversed(pair) if swapped else pair
    target = Target(threads=threads)
    start = time.perf_counter()
    timing = stopwatch.compare_files(
        {"reference": (files[reference], target), "other": (files[other], target)},
        "reference",
        stopwatch.Pace(SMOKE_SECONDS if smoke else MAX_SECONDS, resolution=RESOLUTION),
        seed=number,
    )["other"]
    seconds = time.perf_counter() - start
    right = "tie" if kind == SAME else ("faster" if swapped else "slower")
    return {
        "kind": kind,
        "threads": threads,
        "number": number,
        "verdict": timing.verdict,
        "right": timing.verdict == right,
        "ratio": 1.0 / timing.ratio if swapped else timing.ratio,
        "interval": timing.ratio_interval,
        "rounds": timing.rounds,
        "loads": timing.conditions["loads"],
        "unstable": timing.unstable,
        "other_load_cores": timing.conditions["other_load_cores"],
        "seconds": seconds,
    }


def rows_of(results: list[dict[str, Any]], threads: int) -> Iterator[Row]:
    """The rates at this number of threads, their doubt, and what they cost."""
    label = "1 thread" if threads == 1 else f"{threads} threads"
    ours = [result for result in results if result["threads"] == threads]
    same = [result for result in ours if result["kind"] == SAME]
    other = [result for result in ours if result["kind"] == LONGER]
    yield rate(f"same file called different, {label}", same, right=False, goal="<= 5")
    yield rate(f"3 % more work found, {label}", other, right=True, goal=">= 90")
    ratios = sorted(result["ratio"] for result in other)
    yield Row(name=f"ratio found, median, {label}", figure=ratios[len(ratios) // 2], unit="×")
    seconds = [result["seconds"] for result in ours]
    yield Row(name=f"longest comparison, {label}", figure=max(seconds), unit="s", goal="<= 20")
    mean = sum(seconds) / len(seconds)
    yield Row(name=f"mean comparison, {label}", figure=mean, unit="s")
    shaky = 100.0 * sum(result["unstable"] for result in ours) / len(ours)
    yield Row(name=f"rows flagged unstable, {label}", figure=shaky, unit="%")


def rate(name: str, results: list[dict[str, Any]], *, right: bool, goal: str) -> Row:
    """The share of trials that came out right (or wrong), with its 95 % Wilson interval."""
    count, trials = sum(result["right"] == right for result in results), len(results)
    interval = wilson(count, trials)
    return Row(
        name=name,
        figure=100.0 * count / trials,
        unit="%",
        interval=(100.0 * interval[0], 100.0 * interval[1]),
        goal=goal,
        note=f"{count} of {trials}",
    )


def wilson(count: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a proportion (JASA 22, 1927)."""
    share, weight = count / trials, z * z / trials
    middle = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / trials + weight / (4 * trials)) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)


def code_digest() -> str:
    """Trials of another stopwatch are not ours: a digest of its modules names the journal."""
    text = "".join(
        Path(module.__file__ or "").read_text()
        for module in (load, loads, readings, rounds, statistics, stopwatch)
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _read(path: Path) -> dict[tuple[str, int, int], dict[str, Any]]:
    """The trials already done; a torn last line is dropped."""
    done = {}
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            result = json.loads(line)
        except ValueError:
            continue
        done[result["kind"], result["threads"], result["number"]] = result
    return done
