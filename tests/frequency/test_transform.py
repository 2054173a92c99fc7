"""The orthonormal transform: exact inverse, Parseval, sizes brought together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lilliput.frequency.bases import basis_of
from lilliput.frequency.transform import (
    cosine_basis,
    cosine_matrix,
    cropped,
    enlarged,
    forward,
    inverse,
    zigzag,
)

sides = st.tuples(st.integers(1, 11), st.integers(1, 11))


def kernels(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("size", range(1, 12))
def test_the_matrix_is_orthonormal(size):
    matrix = cosine_matrix(size)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(size), atol=1e-12)


@given(sides)
def test_the_inverse_undoes_it_and_energy_is_kept(size):
    given_kernels, basis = kernels((3, 2, *size)), cosine_basis(size)
    coefficients = forward(given_kernels, basis)
    np.testing.assert_allclose(inverse(coefficients, basis, size), given_kernels, atol=1e-12)
    assert np.linalg.norm(coefficients) == pytest.approx(np.linalg.norm(given_kernels))


def test_squared_error_is_that_of_the_dropped_coefficients():
    given_kernels, basis = kernels((4, 4, 5, 5)), cosine_basis((5, 5))
    coefficients = forward(given_kernels, basis)
    kept = np.where(np.abs(coefficients) > 0.7, coefficients, 0)
    lost = ((inverse(kept, basis, (5, 5)) - given_kernels) ** 2).sum()
    assert lost == pytest.approx(((coefficients - kept) ** 2).sum())


@given(sides)
def test_it_is_t_w_t_transposed(size):
    given_kernels = kernels(size)
    matrices = cosine_matrix(size[0]) @ given_kernels @ cosine_matrix(size[1]).T
    flat = forward(given_kernels, cosine_basis(size))
    np.testing.assert_allclose(flat.reshape(size), matrices, atol=1e-12)


@given(sides)
def test_scipy_agrees(size):
    dctn = pytest.importorskip("scipy.fft").dctn
    flat = forward(kernels(size), cosine_basis(size))
    expected = dctn(kernels(size), type=2, norm="ortho")
    np.testing.assert_allclose(flat.reshape(size), expected, atol=1e-12)


@pytest.mark.parametrize("side", [3, 5, 7])
def test_the_first_coefficient_is_the_mean_times_the_side(side):
    basis = cosine_basis((side, side))
    kernel = kernels((side, side))
    assert forward(kernel, basis)[0] == pytest.approx(side * kernel.mean())
    constant = forward(np.full((side, side), 0.3), basis)
    assert constant[0] == pytest.approx(0.3 * side)
    np.testing.assert_allclose(constant[1:], 0, atol=1e-12)


def test_the_response_of_the_first_picture_is_the_local_mean_times_the_side():
    picture = torch.from_numpy(kernels((1, 1, 9, 9)))
    first = torch.from_numpy(cosine_basis((3, 3))[0].reshape(1, 1, 3, 3).copy())
    response = torch.nn.functional.conv2d(picture, first)
    means = torch.nn.functional.avg_pool2d(picture, 3, stride=1)
    torch.testing.assert_close(response, 3 * means)


@given(st.tuples(st.integers(1, 5), st.integers(1, 5)), st.integers(0, 3), st.integers(0, 3))
def test_a_common_size_loses_nothing_of_smaller_kernels(size, more, wider):
    common = (size[0] + more, size[1] + wider)
    coefficients = kernels((2, size[0] * size[1]))
    there = enlarged(coefficients, size, common)
    np.testing.assert_array_equal(cropped(there, size, common), coefficients)
    larger = kernels((2, common[0] * common[1]))
    once = enlarged(cropped(larger, size, common), size, common)
    twice = enlarged(cropped(once, size, common), size, common)
    np.testing.assert_array_equal(once, twice)


@given(st.tuples(st.integers(1, 5), st.integers(1, 5)), st.integers(0, 3), st.integers(0, 3))
def test_of_larger_kernels_the_low_corner_is_left(size, more, wider):
    common = (size[0] + more, size[1] + wider)
    larger = kernels((2, *common))
    left = enlarged(cropped(larger.reshape(2, -1), size, common), size, common)
    larger[:, size[0] :], larger[:, :, size[1] :] = 0, 0
    np.testing.assert_array_equal(left.reshape(larger.shape), larger)


def test_low_frequencies_come_first():
    assert zigzag((2, 3)) == ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (1, 2))


@given(st.integers(0, 10), st.integers(1, 24))
def test_the_learned_basis_loses_least(seed, kept):
    """Eckart and Young, for every number of pictures that are kept."""
    given_kernels = kernels((6, 5, 5, 5), seed)
    lost = {}
    for kind in ("svd", "dct", "identity"):
        basis = basis_of(kind, given_kernels)
        np.testing.assert_allclose(basis @ basis.T, np.eye(25), atol=1e-10)
        energy = np.sort((forward(given_kernels, basis) ** 2).sum((0, 1)))[::-1]
        lost[kind] = energy[kept:].sum()
    assert lost["svd"] <= min(lost["dct"], lost["identity"]) + 1e-9
