"""Arrays: names, layouts of pictures, types, and that nothing is unpickled."""

from __future__ import annotations

import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from lilliput.data.sources import load_data
from lilliput.data.sources.npz import load_npz
from lilliput.data.sources.raw import WHOLE
from lilliput.errors import LilliputError


def pictures(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
    ("shape", "becomes", "found"),
    [
        ((9, 5, 6), (9, 5, 6, 1), "uint8 NHW"),
        ((9, 5, 6, 3), (9, 5, 6, 3), "uint8 NHWC"),
        ((9, 3, 5, 6), (9, 5, 6, 3), "uint8 NCHW"),
        ((9, 1, 5, 6), (9, 5, 6, 1), "uint8 NCHW"),
        ((9, 5, 6, 4), (9, 5, 6, 3), "uint8 NHWC, alpha dropped"),
        ((9, 4, 5, 6), (9, 5, 6, 3), "uint8 NCHW, alpha dropped"),
        ((9, 3, 5, 3), (9, 3, 5, 3), "uint8 NHWC"),  # both fit: channels last
    ],
)
def test_layouts_are_detected_and_stated(tmp_path, shape, becomes, found):
    given = pictures(*shape)
    np.savez(tmp_path / "a.npz", x=given)
    raw = load_npz(tmp_path / "a.npz")
    held = raw.parts[WHOLE].inputs
    assert held.shape == becomes
    assert raw.facts["arrays"] == {"x": found}
    if "NCHW" in found:
        assert np.array_equal(held, given.transpose(0, 2, 3, 1)[..., : becomes[-1]])


def test_train_and_test_are_kept_and_validation_drawn(tmp_path):
    x, y = pictures(50, 4, 4), np.arange(50) % 5
    np.savez(tmp_path / "a.npz", x_train=x[:40], y_train=y[:40, None], x_test=x[40:], y_test=y[40:])
    data = load_data(str(tmp_path / "a.npz"))
    assert (len(data.train), len(data.validation), len(data.test)) == (35, 5, 10)
    assert sorted(data.validation.targets) == [0, 1, 2, 3, 4]  # one of each class
    assert np.array_equal(data.test.inputs[..., 0], x[40:])
    assert data.test.targets.dtype == np.int64


def test_capital_letters_make_no_difference(tmp_path):
    x, y = pictures(50, 4, 4), np.arange(50) % 5
    np.savez(tmp_path / "a.npz", X_train=x[:40], Y_train=y[:40], X_Test=x[40:], classes=y)
    data = load_data(str(tmp_path / "a.npz"))
    assert (len(data.train), len(data.test)) == (35, 10)
    assert data.train.targets is not None
    np.savez(tmp_path / "b.npz", x=x, X=x)
    with pytest.raises(LilliputError, match="'x' and 'X' mean the same"):
        load_npz(tmp_path / "b.npz")


def test_a_slip_in_a_name_is_told_and_other_arrays_are_left(tmp_path):
    x, y = pictures(50, 4, 4), np.arange(50) % 5
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, xtest=x)
    with pytest.raises(LilliputError, match=r"'xtest' is none.*\n.*did you mean 'x_test'\?"):
        load_npz(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", images=x, labels=y, image_ids=y, author=np.array("someone"))
    assert load_npz(tmp_path / "b.npz").parts[WHOLE].targets.tolist() == y.tolist()


def test_floats_are_ready_inputs(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones((30, 7)) * np.arange(30)[:, None], y=np.zeros(30, int))
    data = load_data(str(tmp_path / "a.npz"))
    assert data.layout == "tensor"
    assert data.train.inputs.dtype == np.float32


def test_objects_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.savez(tmp_path / "a.npz", x=np.array([Trap(), Trap()], object))
    with pytest.raises(LilliputError, match="array 'x' cannot be read without unpickling"):
        load_data(str(tmp_path / "a.npz"))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pixels": pictures(3, 2, 2)}, "no array of a known name, only pixels\n  → call them"),
        ({"x": pictures(3, 2, 2), "y": np.arange(2)}, "y: 3 inputs, but 2 targets"),
        ({"x": pictures(3, 9, 9, 9)}, r"uint8 array of shape \(3, 9, 9, 9\) is not a batch of"),
        ({"x": np.array(["a"])}, "inputs of type <U1 are neither pictures nor numbers"),
        ({"x": np.uint8(3)}, "array 'x' holds a single value"),
        (
            {"x_train": pictures(3, 2, 2), "x_test": np.ones((3, 2))},
            "some parts are uint8 pictures and others ready inputs",
        ),
    ],
)
def test_mistakes_have_their_own_message(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(LilliputError, match=message):
        load_data(str(tmp_path / "a.npz"))


def test_not_an_npz(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"nothing")
    with pytest.raises(LilliputError, match=r"a\.npz: not a readable \.npz"):
        load_data(str(tmp_path / "a.npz"))
    with pytest.raises(LilliputError, match=r"no file 'elsewhere\.npz'"):
        load_data("elsewhere.npz")


def test_damage_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "many.npz"
    np.savez_compressed(path, x=np.arange(9000, dtype=np.uint8).reshape(-1, 10, 10, 3))
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        with suppress(LilliputError):
            load_npz(path)


def test_what_is_no_array_is_told(tmp_path: Path) -> None:
    path = tmp_path / "text.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "no array")
    with pytest.raises(LilliputError, match="'x' is no array"):
        load_npz(path)
