"""Whatever ends a run or a candidate, what was done stays done, and the best so far is there."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch.nn import Parameter

from lilliput import pipeline
from lilliput.artifact import TensorSpec
from lilliput.candidate import Candidate
from lilliput.context import Context, SilentProgress
from lilliput.errors import CannotWrite, LilliputError
from lilliput.network import Network
from lilliput.pipeline import execute
from lilliput.preprocessing import Preprocessing
from lilliput.recipe import Recipe
from lilliput.runs.folder import RunFolder
from lilliput.runs.journal import JournalFile
from lilliput.runs.result import RunResult
from lilliput.runtimes.base import RUNTIMES
from lilliput.runtimes.hosted import Hosted
from lilliput.search.architectures import Architecture
from lilliput.search.probe import Probe
from lilliput.search.shrinking import Considered, Training, narrowed, screened_drops
from lilliput.staging import run_stages
from lilliput.steps.base import Kind, Search
from lilliput.steps.export import Export
from lilliput.steps.quantize import Quantize
from lilliput.testing import tiny_context
from lilliput.testing.tiny import TinyResidual

RECIPE = """
model: {{factory: "{home}/net.py:build", weights: "{home}/net.safetensors"}}
data: "{home}/photos.py:examples"
task: classification
target: {{runtime: {runtime}}}
preprocessing: {{mean: [0.4], std: [0.2]}}
stages:
  - prune_channels: {{ratio: 0.25, multiple_of: 1}}
  - distill: {{epochs: 2, batch_size: 16}}
  - export: {{}}
"""
QUANTIZE = """\
  - quantize:
      calibration_images: 16
      exclude: ["stem"]
      ranges: minmax
      equalize: false
      bias_correction: false
      rounding: nearest
"""

CHAIN = "original-prune_channels-distill"


def recipe(home: Path, more: str = "", runtime: str = "onnxruntime") -> Recipe:
    return Recipe.parse(RECIPE.format(home=home, runtime=runtime) + more)


def run(home: Path, name: str, what: Recipe) -> RunResult:
    with RunFolder.create(home / name, what) as folder:
        return execute(what, folder)


def resumed(
    home: Path, name: str, what: Recipe, prepare: Callable[[JournalFile], None] = lambda _: None
) -> RunResult:
    with RunFolder.open(home / name) as folder:
        prepare(folder.journal)
        return execute(what, folder)


def outcome(result: RunResult) -> dict[str, tuple[object, ...]]:
    """All of a result that is not read from a clock."""
    return {
        c.id: (c.the_artifact().sha256, c.history, c.value("bytes"), c.measurements["drop"])
        for c in result.candidates
    }


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_leaves_the_best_so_far_and_the_run_goes_on(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # users-ask 30
    whole = recipe(home, QUANTIZE)
    undisturbed = run(home, "whole", whole)
    with monkeypatch.context() as stopped:
        stopped.setattr(Quantize, "apply", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(home, "run", whole)
    looked = RunFolder.look(home / "run")
    so_far = RunResult.of(looked)
    assert {c.id for c in so_far.candidates} == {"original-fp32", f"{CHAIN}-fp32"}
    assert all({"ratio", "drop", "bytes"} <= c.measurements.keys() for c in so_far.candidates)
    assert so_far.best_file is not None
    assert so_far.best_file.read_bytes() == so_far.best.the_artifact().path.read_bytes()  # type: ignore[union-attr]
    assert f"{CHAIN}-fp32" in (home / "run" / "report.md").read_text()
    assert looked.history().finished is None
    assert not any("test_metric" in c.measurements for c in so_far.candidates)
    assert outcome(resumed(home, "run", whole)) == outcome(undisturbed)


class Finding(Search):
    """Finds the original, and is interrupted before it finds more."""

    name: ClassVar[str] = "finding"
    takes: ClassVar[Kind] = "network"
    gives: ClassVar[Kind] = "network"

    def explore(self, candidate: Candidate, context: Context) -> Iterator[Candidate]:
        yield candidate
        if context.journal.recall("go on") is None:
            raise KeyboardInterrupt


def test_on_ctrl_c_a_search_that_is_followed_by_an_export_leaves_files(tmp_path: Path) -> None:
    with JournalFile(tmp_path / "journal.jsonl") as journal:
        context = tiny_context(tmp_path, journal=journal)
        stages = (Finding(), Export())
        came: list[Candidate] = []
        with pytest.raises(KeyboardInterrupt):
            came.extend(run_stages(stages, [context.original], context))
        # `extend` keeps what came before the error.
        assert [c.id for c in came] == ["original", "original-fp32"]
        assert came[1].the_artifact().path.is_file()
        journal.once("go on", lambda: {"yes": True})
        again = list(run_stages(stages, [context.original], context))
        assert [c.id for c in again] == ["original", "original-fp32"]
        exported = [e for e in journal if e.event == "exported"]
        assert len(exported) == 1, "the file that Ctrl-C left is the one that the stage gives"


def test_ctrl_c_before_any_file_says_nothing_and_passes_on(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "run_stages", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(home, "run", recipe(home))
    assert not (home / "run" / "best.onnx").exists()
    assert RunFolder.look(home / "run").history().finished is None


def test_a_failure_is_a_row_and_is_not_tried_again_unless_asked(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # users-ask 30: one failing candidate is recorded and skipped
    what, tries = recipe(home, QUANTIZE), []
    apply = Quantize.apply

    def broken(*_: object) -> None:
        tries.append(1)
        raise IndexError("list index out of range")

    monkeypatch.setattr(Quantize, "apply", broken)
    for attempt in (run, resumed):
        with pytest.raises(LilliputError, match=r"nothing came out of stage 4 \(quantize\)"):
            attempt(home, "run", what)
    assert tries == [1]
    (failure,) = RunFolder.look(home / "run").history().failures
    assert (failure.stage, failure.number, failure.candidate) == ("quantize", 4, f"{CHAIN}-fp32")
    assert failure.error == "IndexError: list index out of range"
    # What earlier stages made is measured nevertheless.
    so_far = RunResult.of(RunFolder.look(home / "run"))
    assert so_far.best_file is not None
    assert so_far.best_file.is_file()
    assert "list index out of range" in (home / "run" / "report.md").read_text()
    monkeypatch.setattr(Quantize, "apply", apply)
    result = resumed(home, "run", what, JournalFile.forget_failures)
    assert result.failures == ()
    assert f"{CHAIN}-int8" in {c.id for c in result.candidates}
    assert outcome(resumed(home, "run", what)) == outcome(result)


@pytest.mark.slow
def test_a_file_that_kills_the_measuring_process_is_a_row(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # users-ask 30, 38: the child process dies as by the OOM killer; its file is left out
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    foreign = Hosted(
        "scripted",
        "scripted_runtime",
        formats=(".onnx",),
        package="onnxruntime",
        install="pip install onnxruntime",
    )
    monkeypatch.setitem(RUNTIMES._things, "scripted", foreign)
    monkeypatch.setenv("DIES_OVER", f"burst {CHAIN}-fp32.onnx")
    what = recipe(home, runtime="scripted")
    for begin in (run, resumed):
        result = begin(home, "run", what)
        (failure,) = result.failures
        assert (failure.stage, failure.candidate) == ("measure", f"{CHAIN}-fp32")
        assert f"scripted crashed (by SIGKILL) when asked to burst '{CHAIN}-" in failure.error
        assert "when memory runs out" in failure.error
        assert [c.id for c in result.front] == ["original-fp32"]
        assert result.best_file is not None
        assert result.best_file.is_file()
    assert foreign._hosts == {}


def test_a_file_that_cannot_be_scored_is_a_row(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = pipeline.Yardstick.judge

    def fails(self: Any, candidate: Candidate, *given: Any, **more: Any) -> Candidate:
        if candidate.id == f"{CHAIN}-fp32":
            raise LilliputError("foreign crashed (by SIGSEGV)")
        return judge(self, candidate, *given, **more)

    monkeypatch.setattr(pipeline.Yardstick, "judge", fails)
    result = run(home, "run", recipe(home))
    assert [(f.stage, f.candidate, f.error) for f in result.failures] == [
        ("measure", f"{CHAIN}-fp32", "foreign crashed (by SIGSEGV)")
    ]
    assert [c.id for c in result.front] == ["original-fp32"]


def test_a_full_disk_ends_the_run_and_no_candidate(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In a checkpoint, a file, a sample and the report: the run stops there, and goes on.
    what = recipe(home)
    undisturbed = outcome(run(home, "whole", what))
    write, there = os.write, [""]

    def full(handle: int, content: bytes) -> int:
        if there[0] and there[0] in str(Path(f"/proc/self/fd/{handle}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, content)

    monkeypatch.setattr(os, "write", full)
    begin: Callable[[Path, str, Recipe], RunResult] = run
    for part in (
        f"{CHAIN}.distill.training.pt",
        f"files/.{CHAIN}-fp32.onnx",
        "samples/",
        "report.md",
    ):
        there[0] = part
        with pytest.raises(CannotWrite, match="No space left on device") as stopped:
            begin(home, "run", what)
        assert part.split("/.")[-1].removesuffix("/") in str(stopped.value.at)
        begin = resumed
    there[0] = ""
    result = resumed(home, "run", what)
    assert outcome(result) == undisturbed
    assert result.failures == ()


@pytest.fixture
def heeded_interrupts() -> Iterator[None]:
    """Where these tests run in the background, shells have SIGINT ignored, by children too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("heeded_interrupts")
def test_a_real_ctrl_c_on_a_real_process(home: Path) -> None:
    # Exit code 130, the table on standard output, the best so far in the folder; and while it
    # works, another process is refused.
    head = RECIPE.format(home=home, runtime="onnxruntime").split("stages:")[0]
    stages = ["prune_channels: {ratio: 0.25}", "export", "quantize: {calibration_images: 32}"]
    text = head + "stages:\n" + "".join(f"  - {stage}\n" for stage in stages)
    (home / "recipe.yaml").write_text(text)
    command = [sys.executable, "-m", "lilliput"]
    process = subprocess.Popen(
        [*command, "run", "recipe.yaml", "--out", "run"],
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    journal, limit = home / "run" / "journal.jsonl", time.monotonic() + 120
    while not (journal.exists() and '"name":"export"' in journal.read_text()):
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)
    with pytest.raises(LilliputError, match=f"works in this run: pid {process.pid} on "):
        RunFolder.open(home / "run")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "original-prune_channels-fp32.onnx" in out
    assert "load it: " in out
    assert "go on with: lilliput resume run" in err
    assert "Traceback" not in err
    assert (home / "run" / "best.onnx").is_file()
    assert "original-prune_channels-fp32" in (home / "run" / "report.html").read_text()
    assert not list((home / "run").rglob("*.tmp"))


class Watching(SilentProgress):
    """Adds up the tensors that are alive after every trial."""

    def __init__(self) -> None:
        self.bytes: list[int] = []

    def say(self, line: str) -> None:
        if "after a short training" in line:
            gc.collect()
            alive = (each for each in gc.get_objects() if type(each) in (torch.Tensor, Parameter))
            self.bytes.append(sum(t.numel() * t.element_size() for t in alive))


@pytest.mark.slow
def test_the_memory_of_a_run_is_flat_over_its_trials(tmp_path: Path) -> None:
    # What the allocator keeps differs by what ran before in this process; tensors do not. The
    # `kills` claim weighs whole processes.
    spec = TensorSpec(name="x", shape=(None, 3, 8, 8))
    wide = Network(TinyResidual(64).eval(), (spec,), "wide", Preprocessing())
    watching = Watching()
    with JournalFile(tmp_path / "journal.jsonl") as journal:
        context = tiny_context(
            tmp_path,
            original=Candidate("original", network=wide),
            journal=journal,
            progress=watching,
        )
        edits = narrowed(wide, 0.1, (), context).edits
        price = Probe(float_ms=1.0, float_bytes=1, ratio=0.9)
        trials = [
            Considered(Architecture(f"w{n}", (), 0.1, edits), price, 1_000_000) for n in range(8)
        ]
        training = Training(learning_rate=0.01, batch_size=16, screen_steps=1)
        screened = screened_drops(trials, training, len(trials), context, hopeful=lambda _: True)
        assert len(screened) == len(trials)
    network = sum(parameter.nbytes for parameter in wide.module.parameters())
    assert watching.bytes[-1] < watching.bytes[1] + network / 2
