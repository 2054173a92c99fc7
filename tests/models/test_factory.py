"""The user's code is run where it lies, leaves no trace behind, and its mistakes are placed."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lilliput.errors import LilliputError, Refused
from lilliput.models.factory import build_module

SOURCE = """
import torch
from torch import nn
from blocks import width

def build():
    return nn.Linear(width, 2)

def needs(depth, *, wide, extra=1):
    return nn.Linear(depth, 2)

def wrong():
    return 42

def broken():
    raise ValueError("not today")

class Net(nn.Linear):
    def __init__(self):
        super().__init__(3, 1)

ready = nn.Linear(1, 1)
number = 7
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "blocks.py").write_text("width = 5\n")
    path = tmp_path / "mynet.py"
    path.write_text(SOURCE)
    return path


def test_a_function_a_class_or_the_thing_itself(file: Path) -> None:
    assert build_module(f"{file}:build").in_features == 5
    assert build_module(f"{file}:Net").in_features == 3
    assert isinstance(build_module(f"{file}:ready"), nn.Linear)


def test_random_weights_are_the_same_every_time_and_the_caller_is_not_disturbed(file: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = build_module(f"{file}:build"), build_module(f"{file}:build")
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()  # noqa: NPY002


def test_the_search_path_and_neighbours_are_forgotten(file: Path, tmp_path: Path) -> None:
    path = list(sys.path)
    build_module(f"{file}:build")
    assert sys.path == path
    assert "blocks" not in sys.modules
    other = tmp_path / "other"
    other.mkdir()
    (other / "blocks.py").write_text("width = 9\n")
    (other / "mynet.py").write_text(SOURCE)
    assert build_module(f"{other / 'mynet.py'}:build").in_features == 9
    assert build_module(f"{file}:build").in_features == 5


def test_no_bytecode_is_left_beside_the_users_files(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    build_module(f"{file}:build")  # which imports its neighbour
    assert not list(file.parent.rglob("__pycache__"))
    assert not sys.dont_write_bytecode


def test_a_module_of_the_working_folder(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    for name in ("mynet", "blocks"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert build_module("mynet:build").in_features == 5
    assert build_module("torch.nn:Identity") is not None
    assert str(file.parent) not in sys.path
    for name in ("mynet", "blocks"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("mynet.py", LilliputError, r"names no function\n.*mynet.py:build"),
        ("{folder}/mynat.py:build", LilliputError, r"no file at .*\n.*did you mean .*mynet\.py"),
        ("{folder}/mynet.py:bild", LilliputError, r"has no 'bild'\n.*did you mean 'build'"),
        ("{folder}/mynet.py:needs", Refused, r"cannot be called without depth, wide\n.*default"),
        ("{folder}/mynet.py:wrong", Refused, "returns a int, not an nn.Module"),
        ("{folder}/mynet.py:number", Refused, "is a int, not a function"),
        ("{folder}/mynet.py:broken", LilliputError, r"mynet\.py:16: .*ValueError: not today"),
        ("nowhere.to.be:found", LilliputError, "no module 'nowhere' for the model"),
    ],
)
def test_mistakes_name_the_place_and_the_way_out(
    file: Path, spec: str, kind: type[LilliputError], message: str
) -> None:
    """users-ask 39: one distinct message a mistake."""
    with pytest.raises(kind, match=message):
        build_module(spec.format(folder=file.parent))


def test_code_that_does_not_even_load(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("import torch\ndef build(:\n")
    with pytest.raises(LilliputError, match=r"bad\.py:2: .*SyntaxError"):
        build_module(f"{path}:build")
    path.write_text("import torch\nimport a_package_of_mine\n")
    with pytest.raises(
        LilliputError, match=r"(?s)bad\.py:2: .*ModuleNotFoundError.*holds 'a_package_of_mine'"
    ):
        build_module(f"{path}:build")
    assert not any(name.startswith("lilliput_user_bad") for name in sys.modules)


def test_a_package_that_fails_inside_is_the_users_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_made.py").write_text("import not_installed_here\n")
    (tmp_path / "divides.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LilliputError, match=r"half_made\.py:1: .*not_installed_here"):
        build_module("half_made:build")
    with pytest.raises(LilliputError, match=r"divides\.py:1: .*ZeroDivisionError"):
        build_module("divides:build")
