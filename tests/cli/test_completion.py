"""The Tab key, asked as shells ask: a process of its own, words in the environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import lilliput
from lilliput import cli_completion
from lilliput.runs.result import RunResult


def offered(line: str, folder: Path) -> list[str]:
    """What bash is told at the end of this line."""
    words = line.split(" ")
    asked = {
        "_LILLIPUT_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "lilliput"],
        env={**os.environ, **asked},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("lilliput measure --target o", ["onnxruntime", "openvino"]),
        ("lilliput compress net.py:build --task ", ["classification", "super_resolution"]),
        ("lilliput resume run --track ", ["mlflow", "tensorboard"]),
        ("lilliput evaluate best.onnx --data cif", ["cifar10"]),
        ("lilliput evaluate best.onnx --data photos/", []),
    ],
)
def test_names_are_offered_in_a_process_of_its_own(tmp_path: Path, line: str, names: list[str]):
    assert offered(line, tmp_path) == names


def test_runs_are_offered_from_where_they_are_kept(finished: Callable[..., RunResult]):
    run = finished("runs/first").path
    here = run.parents[1]
    finished("second")
    (here / "runs" / "notes").mkdir()
    assert offered("lilliput resume ", here) == ["runs/first", "second"]
    assert offered(f"lilliput report {here}/runs/f", Path("/")) == [str(run)]


def test_runs_of_odd_names_and_places(
    finished: Callable[..., RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("plain", "$(reboot)", "two words", "a\\b"):
        finished(f"runs/{name}")
    assert cli_completion.runs("") == ["runs/plain"]
    assert cli_completion.runs("./runs/") == ["./runs/plain"]
    assert cli_completion.runs("nowhere/x") == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_itself_completes(tmp_path: Path):
    command = tmp_path / "lilliput"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m lilliput "$@"\n')
    command.chmod(0o755)
    script = (
        'eval "$(_LILLIPUT_COMPLETE=source_bash lilliput)"\n'
        "COMP_WORDS=(lilliput evaluate --split va); COMP_CWORD=3\n"
        '_lilliput_completion lilliput; echo "${COMPREPLY[@]}"; complete -p lilliput'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    replied, rule = done.stdout.splitlines()
    assert replied == "validation"
    assert "-o default" in rule, "files must be offered where we offer nothing"


def test_every_verb_is_offered(tmp_path: Path):
    assert set(offered("lilliput ", tmp_path)) == set(lilliput.VERBS)
