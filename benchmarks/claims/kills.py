"""A run that is killed ends where an undisturbed one ends, and a long one does not grow.

The demo network under a seeded recipe that screens, trains, exports, quantizes and measures. Its
processes are killed with signal 9, group and all, at random moments, every third run a second time
while it goes on; then it goes on to its end. What the clock decides is kept out of the recipe: all
architectures that it finds are trained, on one thread, and the first layer, which would be float
or int8 by the stopwatch, is excluded. What is left to the clock is not compared: times, and the
ranks by time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.harness import ROOT, Claim, Options, Row
from lilliput.errors import LilliputError
from lilliput.runs.folder import RunFolder, is_run
from lilliput.runs.front import pareto
from lilliput.runs.journal import read_entries
from lilliput.runs.result import MISSED, RunResult

RUNS, SMOKE_RUNS = 20, 1
TWICE_EVERY = 3
MISSED_KILLS = 5
"""Moments that may lie behind the end of a run before we give up."""

CLOCKED = ("latency", "latency_p90", "ratio")

RECIPE = """\
model: {{factory: "{root}/examples/digits/net.py:build", weights: "{weights}"}}
data: digits
task: classification
preprocessing: {{channels: 1}}
seed: 0
stages:
  - shrink: {shrink}
  - export: {{}}
  - quantize: {{exclude: ["stem.0"]{quantize}}}
"""
ALL_TRAINED = "{{most_blocks: 0, widths: [0.0, 0.5, 0.75], architectures: 2, finalists: 2, {}}}"
MANY_TRIALS = "{{widths: {}, architectures: 16, finalists: 16, screen_steps: 20, epochs: 1}}"
WIDTHS = [0.0, 0.15, 0.3, 0.45, 0.6, 0.75]


@dataclass(frozen=True)
class Killed:
    """One run that was killed, once or twice, and went on: what was lost, and what differs.

    `at` says what the journal had told last when the kill struck, "" before there was one.
    """

    number: int
    kills: int
    at: tuple[str, ...]
    seconds: float
    lost_seconds: float
    differences: tuple[str, ...]
    same_ranks: bool


def run(options: Options) -> Claim:
    """All killed runs, those of an interrupted claim included; about twenty-five minutes."""
    recipe = write_recipe(options)
    digest = hashlib.sha256(recipe.read_bytes()).hexdigest()[:12]
    whole, seconds = undisturbed(recipe, options.work / f"undisturbed-{digest}")
    options.log(f"undisturbed: {seconds:.1f} s, {len(RunResult.of(whole).candidates)} files")
    kept = options.work / f"kills-{digest}.jsonl"
    done = _read(kept)
    kept.write_text("".join(json.dumps(asdict(result)) + "\n" for result in done.values()))
    planned = range(SMOKE_RUNS if options.smoke else RUNS)
    for number in planned:
        if number not in done:
            done[number] = killed_run(number, recipe, whole, seconds, options)
            with kept.open("a") as journal:
                journal.write(json.dumps(asdict(done[number])) + "\n")
            options.log(_told(done[number]))
    results = [done[number] for number in planned]
    rows = (*rows_of(results, seconds), memory_row(options))
    says = (
        "kill -9 at random moments, then resume: the same files, figures and front as an "
        "undisturbed run, bit for bit; and the memory of a run is flat over its trials"
    )
    return Claim(says=says, rows=rows, conditions={"undisturbed_seconds": round(seconds, 1)})


def write_recipe(options: Options) -> Path:
    """The recipe, beside the demo's network, which is trained if it is not there."""
    weights = options.work / "net.safetensors"
    if not weights.is_file():
        epochs = ["--epochs", "1" if options.smoke else "12"]
        train = [sys.executable, "train.py", "--out", str(options.work), *epochs]
        subprocess.run(train, cwd=ROOT / "examples/digits", check=True, capture_output=True)
    length = "screen_steps: 5, epochs: 1" if options.smoke else "screen_steps: 60, epochs: 20"
    path = options.work / "recipe.yaml"
    path.write_text(
        RECIPE.format(
            root=ROOT,
            weights=weights,
            shrink=ALL_TRAINED.format(length),
            quantize=", rounding: nearest" if options.smoke else "",
        )
    )
    return path


def undisturbed(recipe: Path, folder: Path) -> tuple[RunFolder, float]:
    """The run that nothing disturbs, done once, and the seconds of its process."""
    told = folder.with_suffix(".json")
    if not told.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        began = time.monotonic()
        to_the_end(recipe, folder)
        told.write_text(json.dumps({"seconds": time.monotonic() - began}))
    return RunFolder.look(folder), float(json.loads(told.read_text())["seconds"])


def killed_run(
    number: int, recipe: Path, whole: RunFolder, seconds: float, options: Options
) -> Killed:
    """One run, killed at a random moment of its duration, or at two, then taken to its end."""
    folder = options.work / f"run-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    rng = np.random.default_rng([number, 9])
    wanted = 2 if number % TWICE_EVERY == TWICE_EVERY - 1 else 1
    at: list[str] = []
    spent = 0.0
    for _ in range(MISSED_KILLS * wanted):
        moment = float(rng.uniform(0.0, max(seconds - spent, seconds / 4)))
        survived = run_until_killed(recipe, folder, moment)
        if survived:
            shutil.rmtree(folder)
            at, spent = [], 0.0
            continue
        at.append(_last_event(folder))
        spent += moment
        if len(at) == wanted:
            break
    else:
        raise LilliputError(f"run {number} ended before each of the moments to kill it")
    began = time.monotonic()
    to_the_end(recipe, folder)
    spent += time.monotonic() - began
    found = RunFolder.look(folder)
    differences = tuple(compared(whole, found))
    result = Killed(
        number=number,
        kills=len(at),
        at=tuple(at),
        seconds=spent,
        lost_seconds=spent - seconds,
        differences=differences,
        same_ranks=ranks(whole) == ranks(found),
    )
    if not differences:
        shutil.rmtree(folder)
    return result


def start(recipe: Path, folder: Path) -> subprocess.Popen[bytes]:
    """`lilliput run`, or `resume` where a run was begun, as the leader of a group of its own."""
    verb = ["resume", folder] if is_run(folder) else ["run", recipe, "--out", folder]
    command = [sys.executable, "-m", "lilliput", *map(str, verb), "--quiet"]
    with folder.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def run_until_killed(recipe: Path, folder: Path, moment: float) -> bool:
    """Whether the run ended by itself before `moment` (seconds); else it is dead now."""
    process = start(recipe, folder)
    try:
        process.wait(timeout=moment)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False
    return True


def to_the_end(recipe: Path, folder: Path) -> None:
    """Run, or go on, without a kill.

    Raises:
        LilliputError: It failed; its last line is told.
    """
    code = start(recipe, folder).wait()
    if code not in (0, MISSED):
        log = folder.with_suffix(".log")
        last = (log.read_text().strip().splitlines() or [""])[-1]
        raise LilliputError(f"the run ended with code {code}: {last}", at=str(log))


def compared(whole: RunFolder, other: RunFolder) -> Iterator[str]:
    """What differs of all that no clock decides, a line each."""
    ours, theirs = outcome(whole), outcome(other)
    for name in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(name), theirs.get(name)
        if a is None or b is None:
            yield f"{name} is only in the {'undisturbed' if b is None else 'killed'} run"
            continue
        yield from (f"{name}: {key}" for key in sorted(a.keys() & b.keys()) if a[key] != b[key])


def outcome(run_folder: RunFolder) -> dict[str, dict[str, Any]]:
    """{file: hash, stages, figures and, without the clock, whether it is on the front}.

    Only files on the front are scored on test, which is the clock's choice too: those figures are
    compared where both runs have them.
    """
    files = RunResult.of(run_folder).candidates
    front = {c.id for c in pareto(files, ("bytes", "drop"))}
    found = {}
    for file in files:
        figures = {
            quantity: figure.model_dump(include={"value", "interval"})
            for quantity, figure in file.measurements.items()
            if quantity not in CLOCKED
        }
        sha256 = file.the_artifact().sha256
        fixed = {"sha256": sha256, "stages": list(file.history), "front": file.id in front}
        found[file.id] = {**fixed, **figures}
    return found


def ranks(run_folder: RunFolder) -> tuple[Any, ...]:
    """What the clock has a say in: the front with its times, and the recommended file."""
    result = RunResult.of(run_folder)
    return sorted(c.id for c in result.front), result.best and result.best.id


def rows_of(results: Sequence[Killed], seconds: float) -> Iterator[Row]:
    """How many kills, how many other fronts, and what a kill costs."""
    kills = sum(result.kills for result in results)
    places = sorted(
        {place.split("/")[0] or "before the run began" for r in results for place in r.at}
    )
    yield Row(
        name="kills of a whole process group",
        figure=float(kills),
        unit="kills",
        goal=f">= {RUNS}",
        note=f"{len(results)} runs of {seconds:.0f} s; last event before: {', '.join(places)}",
    )
    wrong = [result for result in results if result.differences]
    yield Row(
        name="killed runs with another front, file or figure",
        figure=float(len(wrong)),
        unit="runs",
        goal="== 0",
        limits="; ".join(d for result in wrong for d in result.differences[:3]) or None,
        note=f"of {len(results)}; without what the clock decides",
    )
    same = sum(result.same_ranks for result in results)
    yield Row(
        name="of them with the same ranks by time, too",
        figure=float(same),
        unit="runs",
        note="stated",
    )
    lost = sum(result.lost_seconds for result in results) / max(kills, 1)
    yield Row(name="lost by a kill, on average", figure=lost, unit="s")


def memory_row(options: Options) -> Row:
    """The growth of one run's memory from its first trials to its last."""
    weights, folder = options.work / "net.safetensors", options.work / "many-trials"
    shutil.rmtree(folder, ignore_errors=True)
    recipe = options.work / "many-trials.yaml"
    widths = WIDTHS[:: 2 if options.smoke else 1]
    recipe.write_text(
        RECIPE.format(
            root=ROOT,
            weights=weights,
            shrink=MANY_TRIALS.format(widths),
            quantize=", rounding: nearest",
        )
    )
    weighed = weigh_trials(start(recipe, folder), folder / "journal.jsonl")
    quarter = max(len(weighed) // 4, 1)
    early = statistics.median(weighed[quarter : 2 * quarter])
    late = statistics.median(weighed[-quarter:])
    return Row(
        name="growth of a run's memory over its trials",
        figure=100.0 * (late / early - 1.0),
        unit="%",
        goal="<= 5",
        note=f"{len(weighed)} trainings, {late / 1e6:.0f} MB at the end; last quarter to second",
    )


def weigh_trials(process: subprocess.Popen[bytes], journal: Path) -> list[int]:
    """Bytes in memory of the process just after each training that its journal tells of."""
    weighed: list[int] = []
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        text = journal.read_bytes() if journal.is_file() else b""
        trials = text.count(b'"key":"screen ') + text.count(b'"key":"train ')
        if trials > len(weighed):
            weighed += [watched.memory_info().rss] * (trials - len(weighed))
        time.sleep(0.05)
    if process.returncode not in (0, MISSED) or len(weighed) < 4:
        raise LilliputError(
            f"the run of many trials ended with code {process.returncode} after {len(weighed)}"
        )
    return weighed


def _last_event(folder: Path) -> str:
    """What the journal told last: an event, or the key of finished work."""
    journal = folder / "journal.jsonl"
    entries = read_entries(journal) if journal.is_file() else []
    if not entries:
        return ""
    return str(entries[-1].facts.get("key") or entries[-1].event)


def _told(result: Killed) -> str:
    verdict = "; ".join(result.differences[:3]) or "equal"
    places = ", then ".join(place or "before the run began" for place in result.at)
    return f"run {result.number}: killed after {places}; {result.seconds:.1f} s; {verdict}"


def _read(path: Path) -> dict[int, Killed]:
    """The runs already done; a torn last line is dropped."""
    done = {}
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            told = json.loads(line)
        except ValueError:
            continue
        at, differences = tuple(told.pop("at")), tuple(told.pop("differences"))
        done[told["number"]] = Killed(**told, at=at, differences=differences)
    return done
