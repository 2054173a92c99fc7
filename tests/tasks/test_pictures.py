"""Resizing and picture quality: identities, and the numbers that papers report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lilliput.artifact import TensorSpec
from lilliput.data.dataset import Dataset, Split
from lilliput.errors import LilliputError, Refused
from lilliput.meter.accuracy import score_file
from lilliput.models.session import TorchSession
from lilliput.models.source import load_network
from lilliput.preprocessing import Preprocessing
from lilliput.tasks import task_of
from lilliput.tasks.image_quality import luminance, psnr, ssim
from lilliput.tasks.resize import cubic, resize, resize_weights


@given(st.integers(4, 40), st.integers(2, 60))
def test_weights_sum_to_one_and_stay_inside(size: int, target: int) -> None:
    positions, weights = resize_weights(size, target)
    np.testing.assert_allclose(weights.sum(1), 1.0)
    assert positions.min() >= 0
    assert positions.max() < size


@settings(max_examples=30)
@given(st.integers(0, 255), st.integers(8, 20), st.integers(4, 30))
def test_a_constant_picture_stays_constant(value: int, size: int, target: int) -> None:
    picture = np.full((size, size, 3), value, np.uint8)
    assert (resize(picture, target, target) == value).all()


def test_resizing_to_the_same_size_changes_nothing_and_mirrors_commute() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    assert np.array_equal(resize(picture, 12, 16), picture)
    assert np.array_equal(resize(picture[:, ::-1], 6, 8), resize(picture, 6, 8)[:, ::-1])


def test_the_kernel_is_keys_with_a_half() -> None:
    np.testing.assert_allclose(
        cubic(np.array([0.0, 0.5, 1.0, 1.5, 2.0])), [1, 0.5625, 0, -0.0625, 0]
    )


def test_luminance_of_black_and_white() -> None:
    ends = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    np.testing.assert_allclose(luminance(ends), [[16.0, 235.0]])


def test_psnr_of_a_known_error_and_of_equal_pictures() -> None:
    grey = np.full((20, 20, 1), 100, np.uint8)
    assert psnr(grey + 10, grey, shave=2) == pytest.approx(10 * np.log10(255**2 / 100))
    assert psnr(grey, grey, shave=0) == 100.0
    assert ssim(grey, grey, shave=0) == pytest.approx(1.0)


def test_shaved_borders_do_not_count() -> None:
    true = np.random.default_rng(1).integers(0, 256, (24, 24, 1)).astype(np.uint8)
    spoilt = true.copy()
    spoilt[:2] = 255 - spoilt[:2]
    assert psnr(spoilt, true, shave=2) == 100.0
    assert ssim(spoilt, true, shave=2) == pytest.approx(1.0)
    assert psnr(spoilt, true, shave=0) < 30


def test_pairs_are_cropped_to_the_scale_and_patches_fit_together() -> None:
    task = task_of({"name": "super_resolution", "scale": 3, "patch": 4, "patches_per_image": 5})
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:26, 0:32]
    picture = np.stack([8 * x % 256, 8 * y % 256, 0 * x], -1).astype(np.uint8)
    data = task.prepare(Dataset("d", train=Split([picture, picture])))
    assert [p.shape for p in data.train.inputs] == [(8, 10, 3)] * 2
    assert [p.shape for p in data.train.targets] == [(24, 30, 3)] * 2
    batches = list(task.training_batches(data.train, Preprocessing(), 5, rng))
    assert len(batches) == task.epoch_steps(data.train, 5) == 2
    for batch in batches:
        small, true = batch.inputs[0], batch.targets
        assert small.shape == (5, 3, 4, 4)
        assert true.shape == (5, 3, 12, 12)
        # The red channel rises along one axis: the patch's mean must match its true twin's.
        np.testing.assert_allclose(small.mean((2, 3)), true.mean((2, 3)), atol=0.03)


def test_grey_networks_see_luminance_alone() -> None:
    task = task_of({"name": "super_resolution", "color": "y"})
    picture = np.full((16, 16, 3), 255, np.uint8)
    data = task.prepare(Dataset("d", test=Split([picture])))
    assert data.test.inputs[0].shape == (8, 8, 1)
    assert (data.test.inputs[0] == 235).all()


def test_what_is_no_picture_is_refused() -> None:
    flat = Dataset("d", train=Split(np.zeros((3, 10), np.float32)))
    with pytest.raises(Refused, match=r"super_resolution needs pictures, got .*\(10,\)"):
        task_of("super_resolution").prepare(flat)


def test_task_mistakes_name_the_nearest() -> None:
    with pytest.raises(LilliputError, match="no task 'clasification'") as error:
        task_of("clasification")
    assert "classification" in str(error.value)
    with pytest.raises(LilliputError, match="no setting 'scael'") as error:
        task_of({"name": "super_resolution", "scael": 2})
    assert "scale" in str(error.value)
    with pytest.raises(LilliputError, match="'scale' of the task 'super_resolution'"):
        task_of({"name": "super_resolution", "scale": 0})


def read(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(p).convert("RGB")) for p in sorted(folder.glob("*.png"))]


@pytest.mark.data
@pytest.mark.parametrize(("scale", "decibels"), [(2, 33.68), (4, 28.43)])
def test_bicubic_on_set5_is_what_papers_report(
    shared_data: Path, scale: int, decibels: float
) -> None:
    task = task_of({"name": "super_resolution", "scale": scale})
    test = task.prepare(Dataset("set5", test=Split(read(shared_data / "sr" / "set5")))).test
    scores = [
        psnr(resize(small, *true.shape[:2]), true, shave=scale)
        for small, true in zip(test.inputs, test.targets, strict=True)
    ]
    assert np.mean(scores) == pytest.approx(decibels, abs=0.01)


@pytest.mark.data
@pytest.mark.slow
def test_a_published_network_scores_as_published(shared_data: Path) -> None:
    task = task_of("super_resolution")
    test = task.prepare(Dataset("set5", test=Split(read(shared_data / "sr" / "set5")))).test
    home = Path(__file__).parents[2] / "benchmarks" / "networks"
    network = load_network(
        f"{home}/carn_m.py:x2",
        weights=shared_data / "models" / "sr_carn_m" / "carn_m_fp16.safetensors",
        inputs=(TensorSpec(name="x", shape=(None, 3, None, None), sample=(1, 3, 24, 24)),),
        preprocessing=Preprocessing(),
    )
    scores = score_file(TorchSession(network), task, test, network.preprocessing)
    assert scores.mean() == pytest.approx(37.69, abs=0.02)
