"""Each mistake with inputs gives its own message (users-ask 26)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lilliput.data.check import (
    check_inputs,
    first_batchnorm_gap,
    require_inputs,
    suggest_preprocessing,
    usual_preprocessings,
)
from lilliput.errors import LilliputError, Mistakes
from lilliput.preprocessing import Preprocessing

PICTURES = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), np.uint8)
KERNEL = np.random.default_rng(1).normal(size=(5, 3))
USUAL = usual_preprocessings()


def reaching(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance behind a fixed 1x1 convolution, as a first batch norm gets them."""
    out = np.einsum("oc,nchw->nohw", KERNEL, batch.astype(float))
    return out.mean((0, 2, 3)), out.var((0, 2, 3))


def checked(given: str, trained: str) -> tuple[LilliputError, ...]:
    batch = USUAL[given](PICTURES)
    mean, var = reaching(batch)
    memory = reaching(USUAL[trained](PICTURES))
    return check_inputs(
        batch,
        channels=3,
        actual_mean=mean,
        actual_var=var,
        running_mean=memory[0],
        running_var=memory[1],
    )


@pytest.mark.parametrize("name", list(USUAL))
def test_the_right_preprocessing_is_silent(name):
    assert checked(name, name) == ()


@pytest.mark.parametrize("trained", ["0..1", "ImageNet mean and std", "-1..1"])
def test_raw_bytes_for_a_normalised_network(trained):
    (found,) = checked("raw 0..255", trained)
    assert str(found).startswith("inputs run up to 255, and the network's first batch norm knows")
    assert "raw 0..255 given to a network of normalised inputs" in str(found)
    assert "ImageNet mean 0.485,0.456,0.406" in str(found)


@pytest.mark.parametrize("given_", ["0..1", "ImageNet mean and std"])
def test_normalised_inputs_for_a_network_of_raw_bytes(given_):
    (found,) = checked(given_, "raw 0..255")
    assert "normalised inputs given to a network of raw 0..255" in str(found)
    assert "set `scale: 1`" in str(found)


def test_a_forgotten_mean_and_std():
    (found,) = checked("0..1", "ImageNet mean and std")
    assert "standard deviations from what it saw in training (inputs have mean 0.5" in str(found)
    assert "CIFAR-10 mean 0.4914,0.4822,0.4465" in str(found)


def test_wrong_channels():
    pictures = PICTURES.astype(np.float32)
    (last,) = check_inputs(pictures, channels=3)
    assert str(last) == (
        "inputs have 8 channels, the first layer takes 3\n"
        "  → channels are last here; networks take them first, (N, C, H, W)"
    )
    (grey,) = check_inputs(pictures[:, :1], channels=3)
    assert grey.hint is not None
    (few,) = check_inputs(np.random.default_rng(0).random((2, 1, 8, 8)), channels=3)
    assert "set `channels: 3` of the preprocessing" in str(few)


def test_nan_and_constant_inputs():
    (nan,) = check_inputs(np.array([[[[np.nan, 1.0]]]]))
    assert str(nan).startswith("1 of 2 input values are NaN or infinite")
    (flat,) = check_inputs(np.full((2, 3, 4, 4), 0.5, np.float32))
    assert str(flat).startswith("all input values are 0.5")
    assert check_inputs(np.zeros((2, 3), np.int64)) == ()


def test_without_statistics_a_plain_batch_is_silent():
    batch = USUAL["0..1"](PICTURES)
    assert check_inputs(batch) == ()
    assert check_inputs(batch, actual_mean=np.zeros(5), actual_var=np.ones(5)) == ()
    require_inputs(batch, channels=3)


def test_statistics_of_another_layer_are_refused():
    ones = np.ones(5)
    with pytest.raises(LilliputError, match="5 channels reach a batch norm of 4"):
        check_inputs(
            USUAL["0..1"](PICTURES),
            actual_mean=ones,
            actual_var=ones,
            running_mean=ones[:4],
            running_var=ones[:4],
        )


def test_require_raises_one_or_all():
    with pytest.raises(LilliputError, match="all input values are 1"):
        require_inputs(np.ones((1, 3, 2, 2)))
    with pytest.raises(Mistakes, match="2 mistakes"):
        require_inputs(np.ones((1, 3, 2, 2)), channels=1)


vectors = arrays.arrays(float, 6, elements=st.floats(-5, 5))
spreads = arrays.arrays(float, 6, elements=st.floats(0.01, 9))


@given(vectors, spreads, vectors, spreads)
def test_the_gap_is_none_only_for_equal_statistics(mean, var, other_mean, other_var):
    assert first_batchnorm_gap(mean, var, mean, var) == 0
    gap = first_batchnorm_gap(mean, var, other_mean, other_var)
    assert gap >= 0
    assert np.isfinite(gap)
    scaled = first_batchnorm_gap(3 * mean, 9 * var, 3 * other_mean, 9 * other_var)
    assert scaled == pytest.approx(gap, rel=1e-6, abs=1e-9)  # a unit of the inputs is no gap


def test_the_gap_is_in_standard_deviations():
    ones = np.ones(4)
    assert first_batchnorm_gap(2 * ones, ones, 0 * ones, ones) == pytest.approx(2, rel=1e-2)


def test_a_dead_channel_does_not_decide():
    var = np.array([1.0, 1.0, 1.0, 0.0])
    assert first_batchnorm_gap(np.array([0, 0, 0, 1e-3]), var, np.zeros(4), var) < 0.05


@pytest.mark.parametrize("trained", list(USUAL))
def test_the_preprocessing_of_training_is_suggested(trained):
    memory = reaching(USUAL[trained](PICTURES))

    def score(preprocessing: Preprocessing) -> float:
        return -first_batchnorm_gap(*reaching(preprocessing(PICTURES)), *memory)

    found = suggest_preprocessing(score)
    assert found.name == trained
    assert found.preprocessing == USUAL[trained]
    assert set(found.scores) == set(USUAL)


def test_suggestions_for_grey_pictures_and_without_any_score():
    assert "ImageNet mean and std" not in usual_preprocessings(1)
    own = {"mine": Preprocessing(scale=2.0)}
    assert suggest_preprocessing(lambda _: 1.0, candidates=own).name == "mine"
    with pytest.raises(LilliputError, match="no usual preprocessing gives a finite score"):
        suggest_preprocessing(lambda _: float("nan"))


def real_statistics(weights: dict[str, np.ndarray], batch: np.ndarray):
    """What reaches the first batch norm of a pretrained network, in double precision."""
    kernel = weights["conv1.weight"].astype(float)
    padded = np.pad(batch.astype(float), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    out = np.einsum("nchwij,ocij->nohw", windows, kernel, optimize=True)
    memory = weights["bn1.running_mean"], weights["bn1.running_var"]
    return out.mean((0, 2, 3)), out.var((0, 2, 3)), *memory


@pytest.mark.data
def test_a_real_network_knows_its_preprocessing(shared_data):
    from safetensors.numpy import load_file

    from lilliput.data.sources.tiles import tiled_pictures

    weights = load_file(shared_data / "models" / "cifar10_resnet20" / "model.safetensors")
    pictures = np.asarray(tiled_pictures(shared_data / "cifar10_test.zip")[:200])
    found = suggest_preprocessing(
        lambda p: -first_batchnorm_gap(*real_statistics(weights, p(pictures)))
    )
    assert found.name == "ImageNet mean and std"
    assert found.scores["ImageNet mean and std"] > -0.3
    assert found.scores["0..1"] < -1
