"""Batches, augmentation and scores of classification."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lilliput.artifact import TensorSpec
from lilliput.data.dataset import Dataset, Split
from lilliput.data.sources import load_data
from lilliput.errors import LilliputError, Refused
from lilliput.meter.accuracy import score_file
from lilliput.models.session import TorchSession
from lilliput.models.source import load_network
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


def test_the_metric_is_called_what_it_counts() -> None:
    assert TASK.metric == ("top-1", "%", True)
    assert task_of({"name": "classification", "top_k": 5}).metric.name == "top-5"


def test_scores_of_bytes_ties_and_nan() -> None:
    assert TASK.scores(np.array([[0, 255, 1]], np.uint8), np.array([1])).tolist() == [100.0]
    assert TASK.scores(np.ones((1, 3)), np.array([0])).tolist() == [100.0]
    assert TASK.scores(np.full((2, 3), np.nan), np.array([0, 1])).tolist() == [0.0, 0.0]


def test_outputs_that_are_no_class_scores_are_told() -> None:
    with pytest.raises(LilliputError, match=r"shape \(N, classes\), got \(2, 3, 1, 1\)"):
        TASK.scores(np.zeros((2, 3, 1, 1)), np.array([0, 1]))
    with pytest.raises(LilliputError, match=r"of class 3, and the network gives scores of 3 cla"):
        TASK.scores(np.zeros((2, 3)), np.array([0, 3]))


def test_truth_and_agreement_are_of_the_best_class() -> None:
    ours = np.array([[3.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 9.0]])
    theirs = np.array([[1.0, 0.5], [2.0, 1.0], [5.0, 0.0], [0.0, 1.0]])
    assert TASK.as_truth(ours).tolist() == [0, 1, 0, 1]
    assert TASK.agreement(ours, theirs) == ("top-1 agreement, %", 75.0)


def test_losses_are_the_formulas() -> None:
    rng = np.random.default_rng(0)
    student, teacher = (torch.from_numpy(rng.normal(size=(6, 4))) for _ in range(2))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    log_p = torch.log_softmax(student, 1)
    plain = float(-log_p[torch.arange(6), labels].mean())
    assert float(TASK.loss(student, labels)) == pytest.approx(plain)
    smooth = task_of({"name": "classification", "label_smoothing": 0.1})
    expected = 0.9 * plain - 0.1 * float(log_p.mean())
    assert float(smooth.loss(student, labels)) == pytest.approx(expected)
    p, q = torch.softmax(teacher / 3, 1), torch.softmax(student / 3, 1)
    divergence = 9 * float((p * (p / q).log()).sum()) / 6
    assert float(TASK.imitation(student, teacher, temperature=3)) == pytest.approx(divergence)
    assert float(TASK.imitation(teacher, teacher)) == pytest.approx(0, abs=1e-12)


def test_batches_are_in_order_and_the_last_is_short() -> None:
    split = Split(pictures(7), np.arange(7))
    batches = list(TASK.batches(split, PLAIN, 3))
    assert [len(batch.inputs[0]) for batch in batches] == [3, 3, 1]
    assert np.concatenate([batch.targets for batch in batches]).tolist() == list(range(7))


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


@given(st.integers(1, 20), st.integers(1, 24))
def test_an_epoch_has_as_many_batches_as_promised(count: int, size: int) -> None:
    split = Split(np.zeros((count, 3), np.float32))
    rng = np.random.default_rng(0)
    batches = list(TASK.training_batches(split, PLAIN, size, rng, layout="tensor"))
    assert len(batches) == TASK.epoch_steps(split, size)
    assert all(len(batch.inputs[0]) == size and batch.targets is None for batch in batches)


@pytest.mark.parametrize("layout", ["image", "tensor"])
def test_only_pictures_are_augmented(layout: str) -> None:
    inputs = pictures(8)
    split = Split(inputs if layout == "image" else np.float32(inputs), np.arange(8))
    rng = np.random.default_rng(0)
    (batch,) = TASK.training_batches(split, PLAIN, 8, rng, layout=layout, augment=("flip", "shift"))
    ready = inputs.transpose(0, 3, 1, 2) if layout == "image" else inputs
    same = [
        np.array_equal(x, ready[n]) for x, n in zip(batch.inputs[0], batch.targets, strict=True)
    ]
    assert all(same) == (layout == "tensor")


def test_augmenting_leaves_the_given_pictures_alone() -> None:
    inputs = pictures(16)
    augmented(inputs, ("flip", "shift"), np.random.default_rng(0))
    assert np.array_equal(inputs, pictures(16))


def test_moved_pictures_are_windows_of_the_padded_one() -> None:
    inputs = pictures(64)
    moved = shifted(inputs, 8, np.random.default_rng(2))
    assert moved.shape == inputs.shape
    met: set[int] = set()
    for before, after in zip(inputs, moved, strict=True):
        padded = np.pad(before, ((1, 1), (1, 1), (0, 0)))
        windows = [padded[r : r + 8, c : c + 8] for r in range(3) for c in range(3)]
        fitting = [n for n, window in enumerate(windows) if np.array_equal(after, window)]
        assert len(fitting) == 1
        met.update(fitting)
    assert met == set(range(9)), "every move by up to an eighth of the side happens"


def test_a_nudge_is_smaller_than_a_shift() -> None:
    spot = np.zeros((200, 28, 28, 1), np.uint8)
    spot[:, 14, 14] = 255
    reach = {}
    for change in ("nudge", "shift"):
        moved = augmented(spot, (change,), np.random.default_rng(1))
        reach[change] = {int(np.abs(np.argwhere(m)[0][:2] - 14).max()) for m in moved}
    assert reach == {"nudge": {0, 1}, "shift": {0, 1, 2, 3}}


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


def test_labels_beyond_the_classes_say_where() -> None:
    data = Dataset("d", test=Split(pictures(3), np.array([0, 1, 2])), classes=("cat", "dog"))
    with pytest.raises(Refused, match="of class 2, and there are 2 classes, from 0 to 1") as error:
        TASK.prepare(data)
    assert str(error.value).startswith("d, test: ")


def test_fewer_labels_than_examples_are_refused() -> None:
    with pytest.raises(Refused, match=r"got int64 of shape \(3,\)"):
        TASK.prepare(Dataset("d", train=Split(pictures(4), np.arange(3))))


def test_pictures_of_another_size_are_resized_as_declared() -> None:
    split = Split(pictures(5, 8), np.arange(5))
    small = Preprocessing(size=(4, 6))
    (batch,) = TASK.batches(split, small, 8)
    assert batch.inputs[0].shape == (5, 3, 4, 6)
    rng = np.random.default_rng(0)
    (drawn,) = TASK.training_batches(split, small, 5, rng, augment=("flip",))
    assert drawn.inputs[0].shape == (5, 3, 4, 6)
    (ready,) = TASK.batches(split, small, 8, layout="tensor")
    assert ready.inputs[0] is not batch.inputs[0]
    assert ready.inputs[0].shape == (5, 8, 8, 3)


def test_pictures_of_several_sizes_make_batches_once_a_size_is_declared() -> None:
    mixed = Split([*pictures(2, 8), *pictures(3, 6)], np.arange(5))
    small = Preprocessing(size=(4, 6))
    (batch,) = TASK.batches(mixed, small, 8)
    assert batch.inputs[0].shape == (5, 3, 4, 6)
    alone = [next(TASK.batches(mixed.take([n]), small, 1)).inputs[0] for n in range(5)]
    assert np.array_equal(batch.inputs[0], np.concatenate(alone))
    (drawn,) = TASK.training_batches(
        mixed, small, 5, np.random.default_rng(0), augment=("flip", "shift")
    )
    assert drawn.inputs[0].shape == (5, 3, 4, 6)
    assert sorted(drawn.targets) == list(range(5))


@pytest.mark.parametrize("augment", [(), ("flip",)])
def test_pictures_of_several_sizes_are_told_the_way_out(augment: tuple[str, ...]) -> None:
    mixed = Split([*pictures(2, 8), *pictures(3, 6)], np.arange(5))
    said = (
        r"sizes, \(6, 6, 3\) and \(8, 8, 3\)\n.*`preprocessing: \{size: \[H, W\]\}`, or --size HxW"
    )
    with pytest.raises(LilliputError, match=said):
        next(TASK.batches(mixed, Preprocessing(), 8))
    rng = np.random.default_rng(0)
    with pytest.raises(LilliputError, match=said):
        next(TASK.training_batches(mixed, Preprocessing(), 5, rng, augment=augment))


def test_nothing_but_the_metric_is_reported() -> None:
    assert TASK.also(np.zeros((2, 3)), np.zeros(2, int)) == {}


def test_no_examples_different_sizes_and_unknown_augmentations_are_refused() -> None:
    with pytest.raises(Refused, match="the data 'd' has no examples in any split"):
        TASK.prepare(Dataset("d"))
    mixed = Split([*pictures(1, 8), *pictures(1, 6)])
    with pytest.raises(Refused, match=r"of one size, got \(6, 6, 3\) and \(8, 8, 3\)"):
        TASK.prepare(Dataset("d", validation=mixed))
    with pytest.raises(Refused, match="no augmentation 'flop'") as error:
        TASK.prepare(Dataset("d", train=Split(pictures(2)), augment=("flop",)))
    assert "'flip'" in str(error.value)


def test_tasks_are_imported_without_torch() -> None:
    code = (
        "import sys; from lilliput.tasks import task_of; task_of('super_resolution'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_good_labels_pass_as_int64_and_settings_make_the_task_again() -> None:
    split = Split(pictures(3), np.array([0, 2, 1], np.uint8))
    ready = TASK.prepare(Dataset("d", test=split, classes=("a", "b", "c"))).test
    assert ready.targets.dtype == np.int64
    assert ready.targets.tolist() == [0, 2, 1]
    assert task_of(TASK.settings()) == TASK


def test_unlabelled_examples_pass() -> None:
    assert TASK.prepare(Dataset("d", train=Split(pictures(4)))).train.targets is None


def test_augmentation_is_no_bottleneck() -> None:
    inputs, rng = pictures(128, 32), np.random.default_rng(5)
    augmented(inputs, ("flip", "shift"), rng)
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        augmented(inputs, ("flip", "shift"), rng)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.005


@pytest.mark.data
@pytest.mark.slow
def test_a_published_network_scores_as_published(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LILLIPUT_DATA", str(shared_data))
    test = TASK.prepare(load_data("cifar10", task=TASK)).test
    network = load_network(
        f"{Path(__file__).parents[2]}/benchmarks/networks/resnet_cifar.py:resnet20",
        weights=shared_data / "models" / "cifar10_resnet20" / "model.safetensors",
        inputs=(TensorSpec(name="x", shape=(None, 3, 32, 32)),),
        preprocessing=Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    )
    scores = score_file(TorchSession(network), TASK, test, network.preprocessing)
    assert scores.shape == (10_000,)
    assert scores.mean() == pytest.approx(91.73, abs=0.02)
