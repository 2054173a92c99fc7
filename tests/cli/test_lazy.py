"""Importing costs next to nothing, and the public names are all there."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest

import lilliput
from lilliput.errors import Missing

HEAVY = ("torch", "onnx", "onnxruntime", "openvino", "pydantic", "numpy", "typer", "rich")


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def loaded_by(statement: str) -> set[str]:
    found = python(f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))")
    return {name.partition(".")[0] for name in json.loads(found.splitlines()[-1])}


def test_importing_loads_nothing_heavy():
    # users-ask 36, 37
    assert not loaded_by("import lilliput") & set(HEAVY)


def test_the_command_line_loads_no_engine():
    loaded = loaded_by("import lilliput.cli")
    assert "typer" in loaded
    assert not loaded & {"torch", "onnx", "onnxruntime", "openvino", "pydantic", "numpy"}


@pytest.mark.parametrize("verb", ["report", "list", "measure", "explain", "sensitivity", "doctor"])
def test_a_device_needs_no_torch(verb: str):
    assert "torch" not in loaded_by(f"from lilliput import {verb}")


def test_importing_takes_little_time():
    code = "import time; t = time.perf_counter(); import lilliput; print(time.perf_counter() - t)"
    assert min(float(python(code)) for _ in range(3)) < 0.3


@pytest.mark.slow
def test_help_takes_little_time():
    command = [sys.executable, "-m", "lilliput", "--help"]
    subprocess.run(command, capture_output=True, check=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time, since tests run beside one another; the claim `overhead` takes the clock's.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.8


@pytest.mark.parametrize("name", lilliput.__all__)
def test_public_names_are_there(name: str):
    assert getattr(lilliput, name).__name__ == name
    assert name in dir(lilliput)


def test_every_verb_says_what_it_takes():
    for verb in lilliput.VERBS:
        assert getattr(lilliput, verb).__doc__


def test_unknown_names_and_the_version():
    with pytest.raises(AttributeError, match="module 'lilliput' has no attribute 'compres'"):
        lilliput.compres  # noqa: B018
    assert lilliput.__version__.count(".") == 2


def test_a_missing_workshop_names_its_command():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import lilliput\n"
        "try:\n    lilliput.Network\n"
        "except lilliput.LilliputError as error:\n    print(error)\n"
    )
    assert python(code) == (
        'lilliput.Network needs torch, which is not installed\n  → pip install "lilliput[train]"\n'
    )


def test_other_missing_modules_stay_what_they_are(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(lilliput._HOMES, "compress", "lilliput.nowhere")
    monkeypatch.delitem(vars(lilliput), "compress", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"lilliput\.nowhere"):
        lilliput.compress  # noqa: B018
    assert not issubclass(ModuleNotFoundError, Missing)
