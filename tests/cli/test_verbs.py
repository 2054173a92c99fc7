"""The verbs as Python functions, on a real pipeline where they need one."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import lilliput
from lilliput.errors import LilliputError, Missing, Mistakes, Refused
from lilliput.recipe import Recipe
from lilliput.runs.folder import RunFolder
from lilliput.runtimes.base import RUNTIMES

NET = '''\
"""A user's network."""

from torch import nn


def build() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(32, 10)
    )
'''

RECIPE = """\
model: net.py:build
data: digits
task: classification
preprocessing: {channels: 1}
stages:
  - finetune: {epochs: 2}
  - export
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a network and a recipe."""
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def briefly_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second of timing in place of twenty: what comes of a clock is not compared here."""
    monkeypatch.setattr("lilliput.opening.timing_seconds", lambda _: 0.5)


def test_check_says_what_running_would_do(project: Path):
    plan = lilliput.check(project / "recipe.yaml")
    assert plan.name == "net"
    assert [name for stage in plan.stages for name in stage] == ["finetune", "export"]
    assert "reachable" in str(plan)
    assert plan.data.name == "digits"


def test_check_refuses_before_anything_is_spent(project: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = Recipe.read(project / "recipe.yaml")
    with pytest.raises(LilliputError, match="the recipe has no stages"):
        lilliput.check(recipe.model_copy(update={"stages": ()}))
    (project / "recipe.yaml").write_text(RECIPE.replace("finetune", "finetun"))
    with pytest.raises(Mistakes, match=r"recipe\.yaml:6: stages\[0\]\.finetun: there is no such"):
        lilliput.check(project / "recipe.yaml")
    monkeypatch.setattr(
        type(RUNTIMES["onnxruntime"]), "unavailable", lambda self: "pip install onnxruntime"
    )
    with pytest.raises(Missing, match="cannot be used here\n  → pip install onnxruntime"):
        lilliput.check(recipe)


def test_check_refuses_a_budget_that_nothing_can_reach(project: Path):
    # users-ask 35: one byte is refused in seconds
    (project / "recipe.yaml").write_text(RECIPE + "budget: {max_bytes: 1}\n")
    with pytest.raises(Refused, match="the budget of 1 B is below the minimum of"):
        lilliput.check(project / "recipe.yaml")


@pytest.mark.slow
@pytest.mark.usefixtures("briefly_timed")
def test_a_recipe_runs_from_any_folder_and_its_run_can_be_gone_on_with(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    elsewhere = project / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    result = lilliput.run("../recipe.yaml", out="run")
    assert result.exit_code == 0
    assert result.best is not None
    assert (elsewhere / "run" / "report.md").is_file()
    assert result.best_file is not None
    assert result.best_file.is_file()
    recipe = Recipe.read(elsewhere / "run" / "recipe.yaml")
    assert recipe.model.factory == f"{project}/net.py:build"
    with pytest.raises(LilliputError, match="already holds a run"):
        lilliput.run(recipe, out="run")
    before = RunFolder.look("run").history()
    again = lilliput.resume("run")
    after = RunFolder.look("run").history()
    assert again.table() == result.table()
    assert after.records == before.records
    assert len(after.sessions) == 2
    assert [info.state for info in lilliput.list(elsewhere)] == ["finished"]
    assert lilliput.report("run").text.startswith("# run\n")


KILLED_AT = ("reference", "01.finetune/", '"number":2')


@pytest.mark.slow
@pytest.mark.usefixtures("briefly_timed")
def test_a_run_that_was_killed_ends_where_an_undisturbed_one_does(project: Path):
    # users-ask 30, 34: kill -9 and resume give the same files
    undisturbed = outcome(lilliput.run(project / "recipe.yaml", out=project / "whole"))
    for n, event in enumerate(KILLED_AT):
        out = project / f"killed-{n}"
        kill_at(event, project, out)
        assert not RunFolder.look(out).history().finished
        assert outcome(lilliput.resume(out)) == undisturbed


def kill_at(event: str, project: Path, out: Path) -> None:
    """Start the recipe in a process of its own, and kill that when the journal tells of `event`."""
    command = [sys.executable, "-m", "lilliput", "run", "recipe.yaml", "--out", str(out), "-q"]
    process = subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL)
    journal, limit = out / "journal.jsonl", time.monotonic() + 120
    while not (journal.exists() and event in journal.read_text()):
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def outcome(result: lilliput.RunResult) -> dict[str, tuple[object, ...]]:
    """All of a result that is not read from a clock."""
    return {
        c.id: (c.the_artifact().sha256, c.history, c.value("bytes"), c.measurements["drop"])
        for c in result.candidates
    }


def test_measure_names_files_as_they_were_given(
    digits_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    path = digits_file()
    monkeypatch.chdir(path.parent)
    shutil.copy(path, "copy.onnx")
    found = lilliput.measure(["digits.onnx", Path("copy.onnx")], max_seconds=0.2)
    assert list(found.timings) == ["digits.onnx", "copy.onnx"]
    assert found["digits.onnx"].ratio == 1.0
    assert found[Path("copy.onnx")].runs >= 30
    assert "the first" in str(found)
    assert list(lilliput.measure("digits.onnx", max_seconds=0.2).timings) == ["digits.onnx"]
    with pytest.raises(LilliputError, match="no file to measure"):
        lilliput.measure([])
    with pytest.raises(LilliputError, match="a file was named twice"):
        lilliput.measure(["digits.onnx", "digits.onnx"])
    with pytest.raises(LilliputError, match=r"no file at 'gone\.onnx'"):
        lilliput.measure("gone.onnx")


def test_unstable_times_are_said_by_measure(digits_file: Callable[..., Path]):
    found = lilliput.measure(digits_file(), max_seconds=0.1)
    name, timing = next(iter(found.timings.items()))
    shaky = timing.model_copy(update={"conditions": {"unstable_because": ["it got hot"]}})
    object.__setattr__(found, "timings", {name: shaky})
    assert f"{name}: unstable: it got hot" in str(found)


def test_inspect_a_network(project: Path):
    found = lilliput.inspect(f"{project}/net.py:build", input_shape=(1, 1, 8, 8))
    assert "groups of channels can be cut" in str(found)
    by_data = lilliput.inspect(
        f"{project}/net.py:build", data="digits", preprocessing=lilliput.Preprocessing(channels=1)
    )
    assert by_data.model_dump(exclude={"inputs"}) == found.model_dump(exclude={"inputs"})


@pytest.mark.slow
@pytest.mark.usefixtures("briefly_timed")
def test_a_file_says_what_it_was_made_for(project: Path, tmp_path: Path):
    result = lilliput.run(
        Recipe.parse(RECIPE.replace("  - finetune: {epochs: 2}\n", ""), project / "recipe.yaml"),
        out=tmp_path / "run",
    )
    assert result.best_file is not None
    found = lilliput.evaluate(result.best_file, data="digits", against=result.best_file)
    assert found.drop is not None
    assert found.drop.value == 0
    assert not found.synthetic
    assert "Preprocessing" not in str(found)
    file = lilliput.inspect(result.best_file)
    assert "preprocessing: " in str(file)
    assert "inputs: " in str(file)
