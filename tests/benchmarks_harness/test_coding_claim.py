"""What `coding` compares: the same numbers, whatever the coder."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from benchmarks.claims.coding import KEPT, cases, indices, sparse_grid, tensors_of
from benchmarks.harness import Options
from onnx import numpy_helper

from lilliput.codec.rivals import huffman_bytes
from lilliput.errors import Missing


def model_of(**tensors: np.ndarray) -> bytes:
    stored = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = onnx.helper.make_graph([], "graph", [], [], stored)
    return onnx.helper.make_model(graph).SerializeToString()


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_grid_has_so_many_values_and_keeps_a_fifth(bits):
    weights = np.random.default_rng(0).standard_normal((40, 50)).astype(np.float32)
    found = sparse_grid(weights, bits)
    assert found.dtype == np.float32
    assert len(np.unique(found)) <= 2**bits - 1
    assert np.count_nonzero(found) == pytest.approx(KEPT * weights.size, rel=0.01)
    assert ((found == 0) | (np.sign(found) == np.sign(weights))).all()
    assert not np.signbit(found[found == 0]).any()


def test_indices_stand_for_the_values_and_zero_is_zero():
    weights = np.float32([[0, 0.5, -0.25], [0.1, 0, 0.5]])
    found, spent = indices(model_of(weight=weights, bias=np.zeros(9, np.float32)))
    assert found["weight"].tolist() == [[0, 2, -1], [1, 0, 2]]
    assert spent == 3 * 4
    half, spent = indices(model_of(weight=np.float32([[0, 0.5]])))
    assert (half["weight"].tolist(), spent) == ([[0, 1]], 2)


def test_all_float_tensors_are_in_the_paper_s_file():
    bias, weight = np.zeros(100, np.float32), np.ones((30, 30), np.float32)
    small = huffman_bytes(tensors_of(model_of(bias=bias)))
    assert huffman_bytes(tensors_of(model_of(weight=weight, bias=bias))) > small


def test_without_the_networks_it_says_which_claims_make_them(tmp_path):
    options = Options(name="coding", home=tmp_path)
    with pytest.raises(Missing, match="lenet5-bytes lenet300-bytes makes them"):
        next(cases(options))
