"""Resizing and picture quality: identities, and the numbers that papers report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from lilliput.artifact import TensorSpec
from lilliput.data.dataset import Dataset, Split
from lilliput.errors import LilliputError, Refused
from lilliput.meter.accuracy import score_file
from lilliput.models.session import TorchSession
from lilliput.models.source import load_network
from lilliput.preprocessing import Preprocessing
from lilliput.tasks import task_of
from lilliput.tasks.image_quality import luminance, psnr_y, ssim_y
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
    assert psnr_y(grey + 10, grey, shave=2) == pytest.approx(10 * np.log10(255**2 / 100))
    assert psnr_y(grey, grey, shave=0) == 100.0
    assert ssim_y(grey, grey, shave=0) == pytest.approx(1.0)


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_psnr_of_noise_on_grey_depends_on_its_power_alone(step: int, seed: int) -> None:
    signs = np.random.default_rng(seed).choice([-1, 1], (16, 18, 1))
    true = np.full((16, 18, 1), 100, np.uint8)
    noisy = (true + step * signs).astype(np.uint8)
    assert psnr_y(noisy, true, shave=3) == pytest.approx(20 * np.log10(255 / step))
    assert psnr_y(true, noisy, shave=3) == psnr_y(noisy, true, shave=3)
    assert ssim_y(noisy, true, shave=0) == pytest.approx(ssim_y(true, noisy, shave=0))
    assert ssim_y(noisy, noisy, shave=0) == pytest.approx(1.0)
    assert ssim_y(noisy, true, shave=0) < 1.0


def test_ssim_of_one_window_is_the_formula() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 256, (2, 11, 11)).astype(np.float64)
    y, x = np.mgrid[-5:6, -5:6]
    window = np.exp(-(x**2 + y**2) / (2 * 1.5**2))
    window /= window.sum()
    mean_a, mean_b = (window * a).sum(), (window * b).sum()
    var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
    both = (window * (a - mean_a) * (b - mean_b)).sum()
    c1, c2 = 2.55**2, 7.65**2
    expected = ((2 * mean_a * mean_b + c1) * (2 * both + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )
    given_as = [plane[..., None].astype(np.uint8) for plane in (a, b)]
    assert ssim_y(*given_as, shave=0) == pytest.approx(expected)


def test_pictures_that_cannot_be_compared_say_why() -> None:
    small, large = np.zeros((8, 8, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(LilliputError, match=r"shape \(8, 8, 3\) cannot be compared") as error:
        psnr_y(small, large, shave=2)
    assert "`scale`" in str(error.value)
    with pytest.raises(LilliputError, match=r"8×8 without a border of 4 pixels is less than 1×1"):
        psnr_y(small, small, shave=4)
    with pytest.raises(LilliputError, match=r"16×16 without a border of 3 pixels is less than 11"):
        ssim_y(large, large, shave=3)
    with pytest.raises(LilliputError, match=r"not of shape \(4, 4, 4\)"):
        luminance(np.zeros((4, 4, 4), np.uint8))


def test_shaved_borders_do_not_count() -> None:
    true = np.random.default_rng(1).integers(0, 256, (24, 24, 1)).astype(np.uint8)
    spoilt = true.copy()
    spoilt[:2] = 255 - spoilt[:2]
    assert psnr_y(spoilt, true, shave=2) == 100.0
    assert ssim_y(spoilt, true, shave=2) == pytest.approx(1.0)
    assert psnr_y(spoilt, true, shave=0) < 30


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


def test_grey_pictures_become_grey_rgb_and_class_numbers_are_left_behind() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (12, 12, 1)).astype(np.uint8)
    data = task_of("super_resolution").prepare(Dataset("d", test=Split([grey], np.array([3]))))
    assert np.array_equal(data.test.targets[0], np.repeat(grey, 3, -1))


def test_pairs_are_kept_and_checked() -> None:
    task = task_of("super_resolution")
    picture = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    once = task.prepare(Dataset("d", test=Split([picture])))
    twice = task.prepare(once)
    assert np.array_equal(once.test.inputs[0], twice.test.inputs[0])
    assert np.array_equal(once.test.targets[0], twice.test.targets[0])
    with pytest.raises(Refused, match=r"\(6, 8, 3\) has a true one of shape \(12, 16, 3\)") as e:
        task_of({"name": "super_resolution", "scale": 4}).prepare(once)
    assert "`scale` is 4" in str(e.value)


def test_alpha_tensors_and_tiny_pictures_are_refused() -> None:
    task = task_of("super_resolution")
    with pytest.raises(Refused, match=r"needs pictures, got uint8 of shape \(8, 8, 4\)"):
        task.prepare(Dataset("d", test=Split([np.zeros((8, 8, 4), np.uint8)])))
    with pytest.raises(Refused, match="the data 'd' are ready tensors"):
        task.prepare(Dataset("d", test=Split(np.zeros((2, 3, 8, 8))), layout="tensor"))
    with pytest.raises(Refused, match="a picture of 8×4 is too small") as error:
        task.prepare(Dataset("d", test=Split([np.zeros((5, 8, 3), np.uint8)])))
    assert "5 pixels a side" in str(error.value)


def test_one_picture_a_batch_unless_all_are_of_one_size() -> None:
    task = task_of("super_resolution")

    def sizes(*shapes: tuple[int, int]) -> list[int]:
        pictures = [np.zeros((*shape, 3), np.uint8) for shape in shapes]
        test = task.prepare(Dataset("d", test=Split(pictures))).test
        return [len(batch.inputs[0]) for batch in task.batches(test, Preprocessing(), 2)]

    assert sizes((8, 8), (8, 12), (8, 8)) == [1, 1, 1]
    assert sizes((8, 8), (8, 8), (8, 8)) == [2, 1]


@pytest.mark.parametrize("output_scale", [255.0, 1.0])
def test_the_true_picture_as_output_scores_best_in_either_range(output_scale: float) -> None:
    task = task_of({"name": "super_resolution", "output_scale": output_scale})
    true = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3)).astype(np.uint8)
    output = np.float32(true.transpose(0, 3, 1, 2)) / np.float32(output_scale)
    assert np.array_equal(task.as_truth(output), true)
    assert task.scores(output, true).tolist() == [100.0, 100.0]
    assert task.agreement(output, output) == ("PSNR between the outputs, dB", 100.0)
    apart = output + np.float32(10 / output_scale)
    assert task.agreement(apart, output)[1] == pytest.approx(20 * np.log10(25.5), abs=1e-3)


def test_similarity_is_reported_beside_where_its_window_fits() -> None:
    task = task_of("super_resolution")
    true = np.random.default_rng(0).integers(0, 256, (1, 24, 24, 3)).astype(np.uint8)
    output = np.float32(true.transpose(0, 3, 1, 2)) / 255
    (name, values), *others = task.also(output, true).items()
    assert (name, others) == ("SSIM on luminance", [])
    assert values == pytest.approx([1.0])
    spoilt = 1 - output
    assert task.also(spoilt, true)[name] == pytest.approx([ssim_y(255 - true[0], true[0], shave=2)])
    tiny = true[:, :14, :14]
    assert np.isnan(task.also(output[..., :14, :14], tiny)[name]).all()


def test_training_targets_are_in_the_range_of_the_output() -> None:
    raw = task_of({"name": "super_resolution", "output_scale": 1.0, "patch": 4})
    data = raw.prepare(Dataset("d", train=Split([np.full((12, 12, 3), 200, np.uint8)])))
    batch = next(raw.training_batches(data.train, Preprocessing(), 3, np.random.default_rng(0)))
    assert batch.targets.dtype == np.float32
    assert (batch.targets == 200).all()
    assert (
        float(raw.loss(torch.from_numpy(batch.targets) + 2, torch.from_numpy(batch.targets))) == 2
    )
    with pytest.raises(LilliputError, match="call `prepare` first"):
        next(raw.training_batches(Split(data.train.inputs), Preprocessing(), 3, None))


def test_every_turn_and_mirror_is_drawn_and_both_pictures_take_it() -> None:
    task = task_of({"name": "super_resolution", "patch": 6, "patches_per_image": 200})
    true = np.kron(np.arange(36).reshape(6, 6, 1), np.ones((2, 2, 3), int)).astype(np.uint8)
    split = Split([true[::2, ::2]], [true])
    (batch,) = task.training_batches(split, Preprocessing(), 200, np.random.default_rng(0))
    assert np.allclose(batch.inputs[0], batch.targets[:, :, ::2, ::2])
    assert len({picture.tobytes() for picture in batch.targets}) == 8


def test_patches_of_pictures_smaller_than_a_patch_are_cut_alike() -> None:
    task = task_of({"name": "super_resolution", "patch": 8, "patches_per_image": 4})
    sizes = ((12, 20), (40, 40))
    data = task.prepare(Dataset("d", train=Split([np.zeros((*s, 3), np.uint8) for s in sizes])))
    rng = np.random.default_rng(0)
    (batch,) = task.training_batches(data.train, Preprocessing(), 8, rng)
    assert batch.inputs[0].shape == (8, 3, 6, 6)
    assert batch.targets.shape == (8, 3, 12, 12)


def test_reduced_patches_show_more_of_a_picture_and_stay_pairs() -> None:
    task = task_of({"name": "super_resolution", "patch": 8, "reduced_to": [0.5]})
    rows = np.arange(64.0)[:, None, None]
    true = np.broadcast_to(4 * rows, (64, 64, 3)).astype(np.uint8)
    data = task.prepare(Dataset("d", train=Split([true] * 2)))
    (batch,) = task.training_batches(data.train, Preprocessing(), 32, np.random.default_rng(0))
    small, large = batch.inputs[0], batch.targets
    assert (small.shape, large.shape) == ((32, 3, 8, 8), (32, 3, 16, 16))
    np.testing.assert_allclose(small.mean((2, 3)), large.mean((2, 3)), atol=0.02)
    # A row of a patch is two of the small picture and four of the true one: twice as steep.
    inside = small[:, :, 2:-2, 2:-2] * 255
    steps = [np.abs(np.diff(inside, axis=axis)).mean((1, 2, 3)) for axis in (2, 3)]
    np.testing.assert_allclose(np.maximum(*steps), 16, atol=0.1)
    np.testing.assert_allclose(np.minimum(*steps), 0, atol=1e-6)


def test_bicubic_reductions_by_another_program_are_known_as_such() -> None:
    task = task_of({"name": "super_resolution", "patch": 8, "reduced_to": [0.5]})
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    true = resize(noise, 64, 64)

    def drawn(small: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(1)
        (batch,) = task.training_batches(Split([small], [true]), Preprocessing(), 16, rng)
        return batch.targets

    reduced = drawn(resize(true, 32, 32))
    bicubic, lanczos = (
        np.asarray(Image.fromarray(true).resize((32, 32), kind))
        for kind in (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
    )
    np.testing.assert_array_equal(drawn(bicubic), reduced)
    assert not np.array_equal(drawn(lanczos), reduced)


def test_pairs_of_another_kind_keep_their_size() -> None:
    task = task_of({"name": "super_resolution", "patch": 8, "reduced_to": [0.5]})
    small = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    true = np.kron(small, np.ones((2, 2, 1), np.uint8))
    rng = np.random.default_rng(0)
    (batch,) = task.training_batches(Split([small], [true]), Preprocessing(), 16, rng)
    np.testing.assert_allclose(batch.inputs[0], batch.targets[:, :, ::2, ::2], atol=1e-6)


def test_a_picture_too_small_to_be_reduced_gives_whole_patches() -> None:
    task = task_of({"name": "super_resolution", "patch": 8, "reduced_to": [0.6]})
    pictures = [np.zeros((side, side, 3), np.uint8) for side in (40, 20, 16)]
    data = task.prepare(Dataset("d", train=Split(pictures)))
    (batch,) = task.training_batches(data.train, Preprocessing(), 48, np.random.default_rng(0))
    assert batch.inputs[0].shape == (48, 3, 8, 8)


@pytest.mark.parametrize("shares", [[], [0.0], [1.1], 0.5])
def test_shares_beyond_the_picture_are_refused(shares: object) -> None:
    with pytest.raises(LilliputError, match="reduced_to"):
        task_of({"name": "super_resolution", "reduced_to": shares})


def test_imitation_is_the_mean_distance_to_the_teacher() -> None:
    student, teacher = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.25)
    assert float(task_of("super_resolution").imitation(student, teacher)) == 0.25


def test_what_is_no_picture_is_refused() -> None:
    flat = Dataset("d", train=Split(np.zeros((3, 10), np.float32)))
    with pytest.raises(Refused, match=r"super_resolution needs pictures, got .*\(10,\)"):
        task_of("super_resolution").prepare(flat)


def test_task_mistakes_name_the_nearest() -> None:
    with pytest.raises(LilliputError, match="no task 'clasification'") as error:
        task_of("clasification")
    assert "classification" in str(error.value)
    with pytest.raises(LilliputError, match="the task has no name") as error:
        task_of({"scale": 2})
    assert "super_resolution" in str(error.value)
    with pytest.raises(LilliputError, match="no setting 'scael'") as error:
        task_of({"name": "super_resolution", "scael": 2})
    assert "scale" in str(error.value)
    with pytest.raises(LilliputError, match="'scale' of the task 'super_resolution'"):
        task_of({"name": "super_resolution", "scale": 0})


def read(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(p).convert("RGB")) for p in sorted(folder.glob("*.png"))]


@pytest.mark.data
@pytest.mark.parametrize(
    ("scale", "decibels", "similarity"),
    [(2, 33.68, 0.9299), (3, 30.40, 0.8682), (4, 28.43, 0.8104)],
)
def test_bicubic_on_set5_is_what_papers_report(
    shared_data: Path, scale: int, decibels: float, similarity: float
) -> None:
    task = task_of({"name": "super_resolution", "scale": scale})
    test = task.prepare(Dataset("set5", test=Split(read(shared_data / "sr" / "set5")))).test
    pairs = [
        (resize(small, *true.shape[:2]), true)
        for small, true in zip(test.inputs, test.targets, strict=True)
    ]
    scores = [psnr_y(ours, true, shave=scale) for ours, true in pairs]
    assert np.mean(scores) == pytest.approx(decibels, abs=0.01)
    alike = [ssim_y(ours, true, shave=scale) for ours, true in pairs]
    assert np.mean(alike) == pytest.approx(similarity, abs=0.001)


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


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"mean": (0.4, 0.4, 0.4, 0.4)}, "mean has 4 values: give one for each of the 3 channels"),
        ({"mean": ()}, "mean has 0 values"),
        ({"std": (0.0,)}, "greater than 0"),
        ({"scale": -1.0}, "greater than 0"),
        ({"mean": (float("nan"),)}, "finite"),
        ({"size": (0, 5)}, "greater than or equal to 1"),
        ({"channels": 0}, "greater than or equal to 1"),
    ],
)
def test_preprocessing_that_cannot_be_is_refused(wrong, says):
    with pytest.raises(ValidationError, match=says):
        Preprocessing(**wrong)
