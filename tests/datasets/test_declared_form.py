"""Pictures of any size and colour, brought to what the network's preprocessing declares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lilliput.data.dataset import SPLITS
from lilliput.data.form import resized, with_channels, with_size
from lilliput.data.sources import load_data
from lilliput.data.sources.folder import decode
from lilliput.errors import LilliputError, Refused
from lilliput.preprocessing import Preprocessing
from lilliput.tasks import task_of

RNG = np.random.default_rng(0)


@pytest.fixture
def photos(tmp_path, paint):
    """Two classes of pictures, no two of one form."""
    for name in ("cat", "dog"):
        for n in range(10):
            mode = ("RGB", "L", "RGBA")[n % 3]
            paint(tmp_path / name / f"{n}.png", mode=mode, size=(6 + n, 15 - n))
    return tmp_path


def test_photos_of_all_sizes_become_one_array(photos):
    # users-ask 26: sizes, grey pictures and alpha crash elsewhere
    data = load_data(
        photos, task=task_of("classification"), preprocessing=Preprocessing(size=(9, 7))
    )
    parts = [getattr(data, name) for name in SPLITS]
    assert all(part.inputs.shape[1:] == (9, 7, 3) for part in parts)
    assert all(part.inputs.dtype == np.uint8 for part in parts)
    assert data.facts["resized_to"] == [9, 7]
    assert (data.facts["mode"], data.facts["converted"]) == ("RGB", 12)
    assert task_of("classification").prepare(data).train.uniform


def test_grey_networks_get_grey_pictures(photos):
    data = load_data(photos, preprocessing=Preprocessing(size=(8, 8), channels=1))
    assert data.test.inputs.shape[1:] == (8, 8, 1)
    assert (data.facts["mode"], data.facts["converted"]) == ("L", 14)


def test_without_a_size_the_error_tells_where_to_say_it(photos):
    task = task_of("classification")
    with pytest.raises(Refused, match=r"one size, got \(6, 15, 3\) and .*\n.*or --size 224x224"):
        task.prepare(load_data(photos, task=task))


def test_pictures_of_the_declared_form_stay_what_they_are(tmp_path, paint):
    for n in range(6):
        paint(tmp_path / f"{n}.png")
    plain, formed = (
        load_data(tmp_path, preprocessing=form) for form in (None, Preprocessing(size=(6, 5)))
    )
    assert np.array_equal(plain.train.inputs, formed.train.inputs)
    assert "resized_to" not in formed.facts
    assert formed.facts["converted"] == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_source_is_brought_to_form(tmp_path, channels):
    pictures = RNG.integers(0, 256, (20, 10, 12, 4 - channels), np.uint8)
    np.savez(tmp_path / "p.npz", x=pictures, y=np.arange(20) % 2)
    form = Preprocessing(size=(5, 6), channels=channels)
    for source in (tmp_path / "p.npz", "digits", "random:20:8x8x3"):
        data = load_data(source, preprocessing=form, test="random:9:7x7x1")
        for name in SPLITS:
            assert getattr(data, name).inputs.shape[1:] == (5, 6, channels)
        assert data.facts["resized_to"] == [5, 6]
    assert data.facts.get("converted", 0) == (20 if channels == 1 else 0)


def test_ready_inputs_and_the_truth_of_other_tasks_are_left_alone(tmp_path, photos):
    np.savez(tmp_path / "t.npz", x=RNG.normal(size=(20, 2, 10, 12)))
    form = Preprocessing(size=(5, 6), channels=1)
    assert load_data(tmp_path / "t.npz", preprocessing=form).train.inputs.shape[1:] == (2, 10, 12)
    data = load_data(photos, task=task_of("super_resolution"), preprocessing=form)
    assert "resized_to" not in data.facts
    assert {picture.shape[-1] for picture in data.train.inputs} == {3}


def test_numbers_of_channels_that_no_picture_has(tmp_path, photos):
    form = Preprocessing(channels=5)
    with pytest.raises(LilliputError, match="declares 5 channels, and pictures in files"):
        load_data(photos, preprocessing=form)
    with pytest.raises(LilliputError, match="declares 5 channels, and 8 pictures of 'random:8'"):
        load_data("random:8", preprocessing=form)


def test_memory_is_reckoned_at_the_size_that_is_kept(tmp_path, paint, monkeypatch):
    for n in range(4):
        paint(tmp_path / f"{n}.png", size=(100, 100))

    class Little:
        available = 4 * 3 * 100 + 1000

    monkeypatch.setattr("psutil.virtual_memory", Little)
    assert len(load_data(tmp_path, preprocessing=Preprocessing(size=(10, 10))).train)
    with pytest.raises(LilliputError, match="unpacked this is"):
        load_data(tmp_path)


@given(st.integers(0, 255), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 3]))
def test_a_constant_picture_stays_constant(value, height, width, channels):
    picture = np.full((4, 6, channels), value, np.uint8)
    made = resized(picture, (height, width))
    assert made.shape == (height, width, channels)
    assert (made == value).all()


def test_halving_is_antialiased_and_in_the_right_direction():
    stripes = np.zeros((32, 8, 1), np.uint8)
    stripes[::2] = 200  # point sampling would give 0 or 200
    made = resized(stripes, (8, 8))
    assert made[2:-2].min() > 80
    assert made[2:-2].max() < 120
    ramp = np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[None, :, None], 6, 0)
    assert (np.diff(resized(ramp, (6, 8))[0, :, 0].astype(int)) > 0).all()


def test_colour_is_what_the_picture_library_makes_of_it():
    pictures = RNG.integers(0, 256, (5000, 2, 3, 3), np.uint8)
    theirs = np.asarray(Image.fromarray(pictures.reshape(-1, 6, 3)).convert("L"))
    ours = with_channels(pictures, 1)
    assert np.abs(ours.reshape(theirs.shape).astype(int) - theirs).max() <= 1
    grey = with_channels([pictures[0, ..., :1]], 3)[0]
    assert np.array_equal(grey, np.repeat(pictures[0, ..., :1], 3, -1))
    alpha = RNG.integers(0, 256, (2, 4, 4, 4), np.uint8)
    assert np.array_equal(with_channels(alpha, 3), alpha[..., :3])
    assert with_channels(pictures, 3) is pictures


def test_nothing_is_copied_for_nothing():
    pictures = RNG.integers(0, 256, (3, 4, 5, 1), np.uint8)
    assert with_size(pictures, None) is pictures
    assert with_size(pictures, (4, 5)) is pictures
    assert with_size(pictures[:0], (2, 2)).shape == (0, 4, 5, 1)


def test_sixteen_bits_become_eight_whatever_the_library_calls_them(tmp_path):
    deep = np.array([0, 255, 256, 65535], ">u2").tobytes()
    (tmp_path / "deep.pgm").write_bytes(b"P5 4 1 65535\n" + deep)
    with Image.open(tmp_path / "deep.pgm") as picture:
        assert picture.mode == "I"
    assert decode(tmp_path / "deep.pgm", "RGB")[0, :, 2].tolist() == [0, 0, 1, 255]
