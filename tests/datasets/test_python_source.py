"""The user's own code as a source."""

from __future__ import annotations

import sys
import textwrap

import numpy as np
import pytest
import torch

from lilliput.data.sources import load_data
from lilliput.errors import LilliputError

CODE = """
    import numpy as np
    import torch
    from lilliput.data.dataset import Dataset, Split

    def pictures():
        for n in range(4):
            yield np.full((5, 8, 8, 3), n, np.uint8) + np.arange(5, dtype=np.uint8)[
                :, None, None, None] * 40, np.arange(5)

    def tensors():
        g = torch.Generator().manual_seed(0)
        for _ in range(4):
            yield [torch.randn(5, 3, generator=g, requires_grad=True), torch.arange(5)]

    def unlabelled():
        yield np.random.default_rng(0).random((20, 3))

    def pair():
        return np.random.default_rng(0).random((20, 3)), np.arange(20)

    def parts():
        return {"train": pair(), "test": unlabelled()}

    def ready():
        x = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), np.uint8)
        return Dataset("mine", train=Split(x[:10]), test=Split(x[10:]), alike=False,
                       facts={"from": "me"})

    def bare():
        return Dataset("mine")

    def fails():
        return 1 / 0

    def late():
        yield np.ones((2, 3))
        raise KeyError("photo 7")

    def uneven():
        yield [[1.0, 2.0], [3.0]], [0, 1]

    def nothing():
        return iter(())

    def number():
        return 7

    def triple():
        yield 1, 2, 3

    def words():
        yield "a", "b"

    def half():
        yield np.ones((2, 3)), np.ones(2)
        yield np.ones((2, 3))

    def shifted():
        yield np.ones((4, 3)), np.ones(3)
        yield np.ones((4, 3)), np.ones(5)

    def ragged():
        yield np.ones((2, 3))
        yield np.ones((2, 4))

    def oddly():
        return {"dev": pair()}

    constant = 3
"""


@pytest.fixture
def code(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(CODE))
    return path


def test_uint8_batches_are_pictures(code):
    data = load_data(f"{code}:pictures")
    assert data.layout == "image"
    assert data.train.inputs.shape[1:] == (8, 8, 3)
    assert data.name == "pictures"


def test_torch_batches_are_ready_inputs(code):
    data = load_data(f"{code}:tensors")
    assert data.layout == "tensor"
    expected = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).numpy()
    held = np.concatenate([data.train.inputs, data.validation.inputs, data.test.inputs])
    assert {tuple(r) for r in expected} <= {tuple(r) for r in held}


@pytest.mark.parametrize(("name", "labelled"), [("unlabelled", False), ("pair", True)])
def test_targets_are_optional(code, name, labelled):
    data = load_data(f"{code}:{name}")
    assert (data.train.targets is not None) == labelled
    assert len(data.train) + len(data.validation) + len(data.test) == 20


def test_a_mapping_names_parts(code):
    data = load_data(f"{code}:parts")
    assert data.facts["test"] == "the source's own"


def test_a_dataset_is_kept_and_completed(code):
    data = load_data(f"{code}:ready")
    assert data.name == "mine"
    assert data.facts["from"] == "me"
    assert not data.alike
    assert (len(data.train), len(data.validation), len(data.test)) == (9, 1, 10)


def test_a_module_in_the_current_folder(code, monkeypatch):
    code.rename(code.with_name("mine_as_module.py"))
    monkeypatch.chdir(code.parent)
    assert load_data("mine_as_module:pair").layout == "tensor"


def test_no_bytecode_is_left_beside_the_users_files(code, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert load_data(f"{code}:pair").layout == "tensor"
    code.rename(code.with_name("mine_again.py"))
    monkeypatch.chdir(code.parent)
    assert load_data("mine_again:pair").layout == "tensor"
    assert not list(code.parent.rglob("__pycache__"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pairs", "has no function 'pairs'\n  → did you mean 'pair'"),
        ("constant", "'constant' is a int, not a function"),
        ("fails", "the function failed: ZeroDivisionError: division by zero"),
        ("late", "the function failed: KeyError: 'photo 7'"),
        ("uneven", "a batch holds a list that is no array of numbers"),
        ("nothing", "the function gives no batches"),
        ("number", "the function gives a int"),
        ("triple", "a batch has 3 parts\n  → yield"),
        ("words", "a batch holds a str, not an array of numbers"),
        ("shifted", "batch 1 has 4 inputs and 3 targets\n  → every input has a target"),
        ("half", "some batches have targets and others have none"),
        ("ragged", r"batches have different shapes: \(3,\) and \(4,\)"),
        ("oddly", "the function gives a part 'dev'"),
        ("bare", "the data 'mine' has no examples in any split"),
    ],
)
def test_mistakes_have_their_own_message(code, name, message):
    with pytest.raises(LilliputError, match=message):
        load_data(f"{code}:{name}")


def test_code_that_cannot_be_found_or_run(tmp_path):
    with pytest.raises(LilliputError, match=r"no file 'gone\.py'"):
        load_data("gone.py:data")
    with pytest.raises(LilliputError, match="cannot import 'no_such_module_here'"):
        load_data("no_such_module_here:data")
    (tmp_path / "bad.py").write_text("def broken(:\n")
    with pytest.raises(LilliputError, match="running the file failed: SyntaxError"):
        load_data(f"{tmp_path / 'bad.py'}:broken")
