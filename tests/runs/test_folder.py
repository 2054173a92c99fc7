"""Run folders: one run each, one process at a time, and honest about what is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from lilliput.artifact import Artifact
from lilliput.budget import Budget
from lilliput.errors import LilliputError
from lilliput.runs import lock
from lilliput.runs.folder import RunFolder, command, default_path, is_run
from lilliput.runs.journal import read_entries


class Text:
    """Stands for a recipe."""

    def placed(self, home: Path) -> Text:
        assert home == Path.cwd()
        return self

    def dump(self) -> str:
        return "model: x\n"


def test_a_new_run_has_its_recipe_its_machine_and_a_first_line(tmp_path: Path):
    with RunFolder.create(tmp_path / "a" / "run", Text()) as run:
        assert run.recipe.read_text() == "model: x\n"
        assert {"cpu", "versions", "command"} <= run.environment().keys()
        assert run.networks.is_dir()
        assert run.files.is_dir()
        assert run.checkpoints.is_dir()
        assert run.name == "run"
        run.journal.note("data", name="digits", synthetic=True)
    assert [e.event for e in read_entries(run.path / "journal.jsonl")] == ["session", "data"]
    assert is_run(run.path)
    assert run.history().data["synthetic"] is True


def test_going_on_adds_a_session(tmp_path: Path):
    RunFolder.create(tmp_path / "run", Text()).close()
    with RunFolder.open(tmp_path / "run") as run:
        assert len(run.history().sessions) == 2
    looked = RunFolder.look(tmp_path / "run")
    assert len(looked.history().sessions) == 2
    with pytest.raises(LilliputError, match="open for reading only"):
        looked.journal.note("x")


def test_a_folder_that_holds_something_is_refused(tmp_path: Path):
    RunFolder.create(tmp_path / "run", Text()).close()
    with pytest.raises(LilliputError, match=r"already holds a run\n.*lilliput resume"):
        RunFolder.create(tmp_path / "run", Text())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").touch()
    with pytest.raises(LilliputError, match=r"not empty \(photo.jpg\) and holds no run"):
        RunFolder.create(tmp_path / "other", Text())
    with pytest.raises(LilliputError, match="this is a file, not a folder"):
        RunFolder.create(tmp_path / "other" / "photo.jpg", Text())


def test_a_run_that_never_began_does_not_block_its_folder(tmp_path: Path):
    class Broken(Text):
        def dump(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RunFolder.create(tmp_path / "run", Broken())
    assert not is_run(tmp_path / "run")
    RunFolder.create(tmp_path / "run", Text()).close()


def test_no_run_says_how_to_find_one(tmp_path: Path):
    for way in (RunFolder.open, RunFolder.look):
        with pytest.raises(LilliputError, match=r"no run at .*\n.*lilliput list"):
            way(tmp_path)


def test_names_by_model_and_time(tmp_path: Path):
    now = datetime(2026, 11, 24, 8, 5, 9)
    path = default_path("my net/v2:build", root=tmp_path, now=now)
    assert path == tmp_path / "my-net-v2-build-20261124-080509"
    path.mkdir()
    assert default_path("my net/v2:build", root=tmp_path, now=now).name.endswith("080509-2")
    assert default_path("../..", root=tmp_path, now=now).parent == tmp_path


def test_the_default_folder_is_below_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with RunFolder.create(None, Text(), model_name="net") as run:
        assert run.path.parent == Path("runs")
        assert run.name.startswith("net-")


HOLDER = """
import sys
from lilliput.runs.folder import RunFolder
run = RunFolder.open(sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
"""


def test_two_processes_exclude_one_another(tmp_path: Path):
    RunFolder.create(tmp_path / "run", Text()).close()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        with pytest.raises(LilliputError, match=rf"works in this run: pid {process.pid} on "):
            RunFolder.open(tmp_path / "run")
        assert lock.holder(tmp_path / "run")["pid"] == process.pid  # type: ignore[index]
        assert RunFolder.look(tmp_path / "run").history().sessions
    finally:
        process.kill()
        process.wait()
    # A killed process leaves nothing behind that has to be cleaned up by hand.
    assert lock.holder(tmp_path / "run") is None
    RunFolder.open(tmp_path / "run").close()


def test_a_lock_that_is_given_back_in_a_moment_is_waited_for(tmp_path: Path):
    # users-ask 30: a run that was killed is gone on with at once
    RunFolder.create(tmp_path / "run", Text()).close()
    dying = lock.acquire(tmp_path / "run")
    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(lambda: RunFolder.open(tmp_path / "run").close())
        time.sleep(0.2)
        dying.release()
        opened.result()


def test_one_process_cannot_open_a_run_twice(tmp_path: Path):
    with (
        RunFolder.create(tmp_path / "run", Text()),
        pytest.raises(LilliputError, match=f"pid {os.getpid()}"),
    ):
        RunFolder.open(tmp_path / "run")
    assert lock.holder(tmp_path) is None


def test_a_lock_without_a_name(tmp_path: Path):
    RunFolder.create(tmp_path / "run", Text()).close()
    with RunFolder.open(tmp_path / "run") as run:
        (run.path / lock.HOLDER).write_text("not json")
        with pytest.raises(LilliputError, match="its number is not known yet"):
            RunFolder.open(run.path)


def test_a_changed_journal_is_said_and_the_lock_given_back(tmp_path: Path):
    RunFolder.create(tmp_path / "run", Text()).close()
    path = tmp_path / "run" / "journal.jsonl"
    path.write_text(path.read_text().replace('"session"', '"sessiom"'))
    with pytest.raises(LilliputError, match=r"journal.jsonl:1: this line was not written"):
        RunFolder.open(tmp_path / "run")
    assert lock.holder(tmp_path / "run") is None


def test_an_edited_recipe_is_a_new_run(tmp_path: Path):
    RunFolder.create(tmp_path / "run", Text()).close()
    recipe = tmp_path / "run" / "recipe.yaml"
    recipe.write_text("model: y\nbudget: {max_drop: 1}\n")
    with pytest.raises(LilliputError, match=r"recipe was edited since .*\n.*lilliput run "):
        RunFolder.open(tmp_path / "run")
    run = RunFolder.look(tmp_path / "run")
    assert run.settings()["model"] == "y"
    assert run.budget() == Budget(max_drop=1.0)
    for broken in ("budget: {max_drop: -1}", "- a", "a: [", ""):
        recipe.write_text(broken)
        assert run.budget() == Budget()
    recipe.unlink()
    assert run.settings() == {}


def test_what_is_chosen_of_the_found_may_change_as_a_run_goes_on(tmp_path: Path):
    class Searching(Text):
        def dump(self) -> str:
            return "stages:\n  - any:\n      points: 2\n      deliver: []\n  - export\n"

    recipe = tmp_path / "run" / "recipe.yaml"
    RunFolder.create(tmp_path / "run", Searching()).close()
    recipe.write_text("stages:\n  - any:\n      points: 2\n      deliver: ['a', 'b']\n  - export\n")
    RunFolder.open(tmp_path / "run").close()
    recipe.write_text("stages:\n  - any:\n      points: 3\n      deliver: ['a', 'b']\n  - export\n")
    with pytest.raises(LilliputError, match="what may change in a run is `deliver`"):
        RunFolder.open(tmp_path / "run")


def test_delivering_the_best(tmp_path: Path):
    with RunFolder.create(tmp_path / "run", Text()) as run:
        (run.files / "older.pt2").write_bytes(b"older")
        (run.path / "best.pt2").write_bytes(b"older")
        (run.path / "best.lil").write_bytes(b"the user's own")
        (run.path / "best.d").mkdir()
        (run.path / "best.link").symlink_to("nowhere")
        file = run.files / "a.bin"
        file.write_bytes(b"net")
        artifact = Artifact.of(file)
        assert run.deliver(artifact) == run.path / "best.bin"
        assert (run.path / "best.bin").read_bytes() == b"net"
        assert not (run.path / "best.pt2").exists()
        assert (run.path / "best.lil").exists(), "nobody delivered that"
        file.write_bytes(b"other")
        with pytest.raises(LilliputError, match="not the one that was measured"):
            run.deliver(artifact)
        assert run.write("x.txt", "ü").read_text(encoding="utf-8") == "ü"
        assert run.write("y.txt", "caf\udce9").read_text(encoding="utf-8") == "caf\\udce9"


def test_an_environment_that_cannot_be_read_is_empty(tmp_path: Path):
    with RunFolder.create(tmp_path / "run", Text()) as run:
        for broken in ("[]", "{"):
            (run.path / "environment.json").write_text(broken)
            assert run.environment() == {}


def test_the_command_can_be_pasted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/lilliput", "run", "my recipe.yaml"])
    assert command() == "lilliput run 'my recipe.yaml'"
    assert json.dumps(command())
