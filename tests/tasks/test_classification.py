"""Batches, augmentation and scores of classification."""

from __future__ import annotations

import time

import numpy as np
import pytest

from lilliput.data.dataset import Dataset, Split
from lilliput.errors import Refused
from lilliput.preprocessing import Preprocessing
from lilliput.tasks import task_of
from lilliput.tasks.classification import augmented, shifted

TASK = task_of("classification")
PLAIN = Preprocessing(scale=1.0)


def pictures(count: int, side: int = 8) -> np.ndarray:
    values = np.random.default_rng(0).integers(1, 256, (count, side, side, 3))
    return values.astype(np.uint8)


def test_top_k_counts_an_answer_among_the_best() -> None:
    outputs = np.array([[0.1, 0.5, 0.4], [0.9, 0.05, 0.05]])
    assert TASK.scores(outputs, np.array([2, 0])).tolist() == [0.0, 100.0]
    second = task_of({"name": "classification", "top_k": 2})
    assert second.scores(outputs, np.array([2, 0])).tolist() == [100.0, 100.0]


def test_an_epoch_has_every_example_once_with_its_own_label() -> None:
    inputs = pictures(10)
    split = Split(inputs, np.arange(10))
    batches = list(TASK.training_batches(split, PLAIN, 5, np.random.default_rng(1)))
    assert len(batches) == TASK.epoch_steps(split, 5) == 2
    labels = np.concatenate([batch.targets for batch in batches])
    assert sorted(labels) == list(range(10))
    for batch in batches:
        for picture, label in zip(batch.inputs[0], batch.targets, strict=True):
            assert np.array_equal(picture.transpose(1, 2, 0), inputs[label])


def test_moved_pictures_are_windows_of_the_padded_one() -> None:
    inputs = pictures(64)
    moved = shifted(inputs, np.random.default_rng(2))
    assert moved.shape == inputs.shape
    stayed = 0
    for before, after in zip(inputs, moved, strict=True):
        padded = np.pad(before, ((1, 1), (1, 1), (0, 0)))
        windows = [padded[r : r + 8, c : c + 8] for r in range(3) for c in range(3)]
        assert any(np.array_equal(after, window) for window in windows)
        stayed += np.array_equal(before, after)
    assert 0 < stayed < 20


def test_mirrored_or_not_and_nothing_else() -> None:
    inputs = pictures(40)
    made = augmented(inputs, ("flip",), np.random.default_rng(3))
    mirrored = sum(np.array_equal(a, b[:, ::-1]) for a, b in zip(made, inputs, strict=True))
    same = sum(np.array_equal(a, b) for a, b in zip(made, inputs, strict=True))
    assert mirrored + same == 40
    assert 8 < mirrored < 32


def test_ready_inputs_are_not_touched() -> None:
    ready = np.random.default_rng(4).normal(size=(4, 7)).astype(np.float32)
    split = Split(ready, np.arange(4))
    (batch,) = TASK.batches(split, PLAIN, 8, layout="tensor")
    assert np.array_equal(batch.inputs[0], ready)


@pytest.mark.parametrize(
    "labels", [np.zeros((4, 2), int), np.array([0.5, 1, 1, 0]), np.array([0, -1, 2, 1])]
)
def test_labels_that_are_no_class_numbers_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(Refused, match="needs one class number from 0 for each example"):
        TASK.prepare(Dataset("d", train=Split(pictures(4), labels)))


def test_unlabelled_examples_pass() -> None:
    assert TASK.prepare(Dataset("d", train=Split(pictures(4)))).train.targets is None


def test_augmentation_is_no_bottleneck() -> None:
    inputs, rng = pictures(128, 32), np.random.default_rng(5)
    augmented(inputs, ("flip", "shift"), rng)
    began = time.perf_counter()
    for _ in range(10):
        augmented(inputs, ("flip", "shift"), rng)
    assert (time.perf_counter() - began) / 10 < 0.05
