"""Folders of pictures: layouts, modes, and mistakes that each have their own message."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lilliput.data.sources import load_data
from lilliput.data.sources.folder import decode, load_folder
from lilliput.data.sources.raw import WHOLE
from lilliput.errors import LilliputError
from lilliput.tasks import task_of


def test_class_folders_become_labels_in_sorted_order(tmp_path, paint):
    for name in ("dog", "cat"):
        for n in range(10):
            paint(tmp_path / name / f"{n}.png")
    data = load_data(str(tmp_path))
    assert data.classes == ("cat", "dog")
    assert data.augment == ("flip",)
    assert data.train.inputs.shape[1:] == (6, 5, 3)
    every = [*data.train.targets, *data.validation.targets, *data.test.targets]
    assert np.bincount(every).tolist() == [10, 10]
    whole = load_folder(tmp_path).parts[WHOLE]
    first = np.asarray(Image.open(tmp_path / "cat" / "0.png"))
    assert np.array_equal(whole.inputs[0], first)
    assert whole.targets[0] == 0


def test_split_folders_are_kept(tmp_path, paint):
    for part, count in (("train", 6), ("val", 2), ("test", 3)):
        for name in "ab":
            for n in range(count):
                paint(tmp_path / part / name / f"{n}.png")
    data = load_data(str(tmp_path))
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 4, 6)
    assert data.facts["test"] == "the source's own"
    assert data.alike


def test_validation_without_test_is_halved(tmp_path, paint):
    for part, count in (("train", 6), ("val", 4)):
        for name in "ab":
            for n in range(count):
                paint(tmp_path / part / name / f"{n}.png")
    data = load_data(str(tmp_path))
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 4, 4)
    assert data.facts["test"] == "half of the validation examples given"
    assert np.bincount(data.test.targets).tolist() == [2, 2]


def test_a_flat_folder_is_unlabelled_and_may_mix_sizes(tmp_path, paint):
    for n in range(8):
        paint(tmp_path / f"{n}.png", size=(6 + n % 2, 5))
    data = load_data(str(tmp_path))
    assert data.train.targets is None
    assert data.classes == ()
    assert data.facts["labelled"] is False
    assert data.facts["source"] == str(tmp_path)
    assert isinstance(data.train.inputs, list)
    assert not data.train.uniform


def test_hidden_files_and_other_files_are_left_alone(tmp_path, paint):
    for n in range(5):
        paint(tmp_path / f"{n}.png")
    (tmp_path / ".hidden.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("no picture")
    assert len(load_folder(tmp_path).parts[WHOLE]) == 5


@pytest.mark.parametrize(
    ("modes", "kept", "channels", "converted"),
    [
        (("RGB", "RGB", "L", "RGBA"), "RGB", 3, 2),
        (("L", "L", "L", "RGB"), "L", 1, 1),
        (("L", "RGB"), "RGB", 3, 1),  # a tie keeps the colour
    ],
)
def test_the_majority_decides_on_colour(tmp_path, paint, modes, kept, channels, converted):
    # users-ask 26: RGBA pictures crash elsewhere
    for n, mode in enumerate(modes):
        paint(tmp_path / f"{n}.png", mode=mode)
    raw = load_folder(tmp_path)
    assert raw.facts == {"mode": kept, "converted": converted}
    assert raw.parts[WHOLE].inputs.shape == (len(modes), 6, 5, channels)


def test_sixteen_bits_become_eight(tmp_path):
    deep = np.array([[0, 255, 256, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert decode(tmp_path / "deep.png", "L")[0, :, 0].tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pictures_without_a_white_are_refused(tmp_path, kind):
    Image.fromarray(np.array([[0, 0, 1, 200]], kind)).save(tmp_path / "deep.tiff")
    with pytest.raises(LilliputError, match="does not say which of them is white") as told:
        decode(tmp_path / "deep.tiff", "RGB")
    assert told.value.at == str(tmp_path / "deep.tiff")


def test_other_tasks_get_pictures_without_classes(tmp_path, paint):
    for name in "ab":
        for n in range(5):
            paint(tmp_path / name / f"{n}.png")

    class Enlarging:
        name = "super_resolution"

    data = load_data(str(tmp_path), task=Enlarging())
    assert data.train.targets is None
    assert data.classes == ()
    labelled = load_data(str(tmp_path), task=task_of("classification"))
    assert labelled.train.targets is not None


def test_an_empty_folder_says_so(tmp_path):
    with pytest.raises(LilliputError, match=r"no pictures here\n  → pictures end in \.bmp, "):
        load_data(str(tmp_path))


def test_a_broken_picture_is_named(tmp_path, paint):
    paint(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"not a picture")
    with pytest.raises(LilliputError, match=r"b\.png: this picture cannot be decoded: cannot "):
        load_data(str(tmp_path))


def test_a_truncated_picture_is_named(tmp_path, paint):
    whole = paint(tmp_path / "a.png", size=(40, 40)).read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LilliputError, match=r"b\.png: this picture cannot be decoded: "):
        load_data(str(tmp_path))


def test_pictures_beside_class_folders_are_ambiguous(tmp_path, paint):
    for name in "ab":
        paint(tmp_path / name / "0.png")
    paint(tmp_path / "stray.png")
    with pytest.raises(LilliputError, match="1 pictures lie beside 2 folders of pictures"):
        load_data(str(tmp_path))


def test_parts_with_different_classes_are_refused(tmp_path, paint):
    for place in ("train/a", "train/b", "test/a", "test/c"):
        paint(tmp_path / place / "0.png")
    expected = "test and train have different classes: b, c in one only"
    with pytest.raises(LilliputError, match=expected):
        load_data(str(tmp_path))


def test_two_folders_for_one_part_are_refused(tmp_path, paint):
    for place in ("val", "valid"):
        paint(tmp_path / place / "0.png")
    with pytest.raises(LilliputError, match="'val' and 'valid' both mean validation"):
        load_data(str(tmp_path))


def test_more_than_memory_is_refused_before_decoding(tmp_path, paint, monkeypatch):
    paint(tmp_path / "a.png")

    class Little:
        available = 10

    monkeypatch.setattr("psutil.virtual_memory", Little)
    with pytest.raises(LilliputError, match=r"unpacked this is 0\.0 GB, and 0\.0 GB of memory"):
        load_data(str(tmp_path))


def test_a_class_without_pictures_is_refused_for_it_would_move_the_labels(tmp_path, paint):
    for name in ("cat", "dog"):
        for n in range(5):
            paint(tmp_path / name / f"{n}.png")
    (tmp_path / "cow").mkdir()
    with pytest.raises(LilliputError, match=r"no pictures in 'cow'.*\n.*take it away"):
        load_data(str(tmp_path))


def test_what_lies_beside_splits_makes_no_classes_of_them(tmp_path, paint):
    for part in ("train", "test"):
        for name in "ab":
            for n in range(6):
                paint(tmp_path / part / name / f"{n}.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "all.txt").write_text("a b")
    assert load_data(str(tmp_path)).classes == ("a", "b")
    paint(tmp_path / "unused" / "1.png")
    with pytest.raises(LilliputError, match="'unused' lies beside 'test' and 'train'"):
        load_data(str(tmp_path))
