"""Small ONNX files of every kind of tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def _model_of(tensors: Mapping[str, np.ndarray]) -> bytes:
    """An ONNX file with these initializers and one node."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["input"], ["output"])],
        "graph",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(graph).SerializeToString()


def _smooth_kernels(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Weights as trained convolutions have them: channels of unlike size, neighbours alike."""
    rows, columns, *kernel = shape
    size = np.exp(0.5 * rng.standard_normal((rows, 1, 1, 1)))
    size = size * np.exp(0.5 * rng.standard_normal((1, columns, 1, 1)))
    base = rng.standard_normal((rows, columns, 1, 1))
    return (size * (0.6 * base + rng.standard_normal((rows, columns, *kernel)))).astype(np.float32)


def _quantized(weights: np.ndarray, levels: int = 127) -> np.ndarray:
    """Per output channel, to -levels ... levels."""
    scale = np.abs(weights).max((1, 2, 3), keepdims=True) / levels
    return np.rint(weights / scale).astype(np.int8)


@pytest.fixture(scope="session")
def model_of():
    return _model_of


@pytest.fixture(scope="session")
def smooth_kernels():
    return _smooth_kernels


@pytest.fixture(scope="session")
def quantized():
    return _quantized


@pytest.fixture(scope="session")
def mixed() -> bytes:
    """A file with every kind of tensor that is coded in a way of its own."""
    rng = np.random.default_rng(0)
    weights = _smooth_kernels(rng, 12, 8, 3, 3)
    scale = rng.random(12).astype(np.float32)
    tensors = {
        "input_scale": np.float32(0.02),
        "float": weights,
        "half": weights.astype(np.float16),
        "half in single": weights.astype(np.float16).astype(np.float32),
        "double": weights[:2].astype(np.float64),
        "pruned": np.where(np.abs(weights) > 1.2, weights, 0),
        "clustered": np.round(weights).astype(np.float32),
        "int8": _quantized(weights),
        "again": _quantized(weights),
        "low": _quantized(weights, 3),
        "sparse": _quantized(np.where(np.abs(weights) > 1.2, weights, 0)),
        "uint8": (_quantized(weights).astype(np.int16) + 128).astype(np.uint8),
        "zero points": np.zeros(12, np.int8),
        "fives": np.full(12, 5, np.uint8),
        "scale": scale,
        "bias_scale": scale * np.float32(0.02),
        "bias": rng.integers(-5000, 5000, 12).astype(np.int32),
        "shape": np.array([1, -1], np.int64),
        "odd": np.array([np.nan, -np.nan, np.inf, -0.0, 0.0, 1e-42], np.float32),
        "text": np.arange(4000, dtype=np.float32) % 7,
    }
    return _model_of(tensors)


@pytest.fixture(scope="session")
def four_bits() -> bytes:
    """A file with packed 4-bit tensors, one of an odd number of elements."""
    rng = np.random.default_rng(0)
    made = onnx.load_from_string(_model_of({}))
    for name, kind, shape in (
        ("s", TensorProto.INT4, (40, 30)),
        ("u", TensorProto.UINT4, (33, 37)),
    ):
        count = shape[0] * shape[1]
        nibbles = np.zeros(count + count % 2, np.uint8)
        middle = 8 if kind == TensorProto.INT4 else 0
        nibbles[:count] = (rng.binomial(15, 0.5, count) - middle) & 15
        packed = (nibbles[0::2] | nibbles[1::2] << 4).tobytes()
        made.graph.initializer.add(name=name, data_type=kind, dims=shape, raw_data=packed)
    return made.SerializeToString()


@pytest.fixture(scope="session")
def on_grids() -> Callable[..., np.ndarray]:
    """Weights of 4 bits with a step a row, another factor folded in: two roundings."""

    def made(*shape: int) -> np.ndarray:
        rng = np.random.default_rng(sum(shape))
        each = (shape[0], *[1] * (len(shape) - 1))
        steps, factors = np.exp(rng.standard_normal((2, *each))).astype(np.float32)
        whole = np.clip(np.rint(2 * rng.standard_normal(shape)), -7, 7).astype(np.float32) + 0
        return whole * steps * (factors - np.float32(0.7))

    return made


@pytest.fixture(scope="session")
def picture_weights() -> Callable[[int, int, float], np.ndarray]:
    """Rows of weights on the pixels of a square picture, the largest left, as signs."""

    def made(rows: int, side: int, gone: float) -> np.ndarray:
        fields = np.random.default_rng(4).standard_normal((rows, side, side))
        for axis in (1, 2):
            fields = fields + np.roll(fields, 1, axis) + np.roll(fields, -1, axis)
        pixels = fields.reshape(rows, side * side)
        live = np.abs(pixels) > np.quantile(np.abs(pixels), gone)
        return np.where(live, np.sign(pixels), 0).astype(np.float32)

    return made
