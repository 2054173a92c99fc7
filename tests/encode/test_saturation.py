"""The old-CPU emulator against whole numbers, and against the real thing where it is at hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from lilliput.encode.saturation import (
    OldCpu,
    can_saturate,
    pair_products,
    saturates,
    saturating_dot,
)
from lilliput.meter.host import cpu_flags

OLD = "avx2" in cpu_flags() and saturates(cpu_flags())


def slow_dot(inputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The definition, number by number."""
    result = np.zeros((len(inputs), len(weights)), np.int64)
    for r, row in enumerate(inputs.tolist()):
        for o, weight in enumerate(weights.tolist()):
            for k in range(0, len(row), 2):
                pair = sum(a * w for a, w in zip(row[k : k + 2], weight[k : k + 2], strict=True))
                result[r, o] += max(-32768, min(32767, pair))
    return result


def qdq_conv(
    weight: np.ndarray, *, kind: type = np.uint8, groups: int = 1, zero: int = 0
) -> onnx.ModelProto:
    """x → Q → DQ → Conv → Q → DQ with scale 1 on the way in, so that inputs are the integers."""
    outs = len(weight)
    top = float(np.abs(weight.astype(np.int64)).reshape(outs, -1).sum(1).max()) * 2
    values = {
        "one": np.array(1.0, np.float32),
        "zero": np.array(zero, kind),
        "w": weight,
        "ws": np.full(outs, 0.01, np.float32),
        "wz": np.zeros(outs, np.int8),
        "ys": np.array(top / 100, np.float32),
        "yz": np.array(128 if kind is np.uint8 else 0, kind),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["xq"], name="q"),
        helper.make_node("DequantizeLinear", ["xq", "one", "zero"], ["xd"], name="d"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], name="dw", axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["c"], name="c", group=groups, pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["c", "ys", "yz"], ["cq"], name="cq"),
        helper.make_node("DequantizeLinear", ["cq", "ys", "yz"], ["y"], name="cd"),
    ]
    graph = helper.make_graph(
        nodes,
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", None, None, None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
        [numpy_helper.from_array(v, k) for k, v in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.sampled_from([127, 64, 20]))
def test_sums_follow_the_definition(seed: int, width: int, largest: int) -> None:
    rng = np.random.default_rng(seed)
    inputs = rng.integers(0, 256, (5, width)).astype(np.uint8)
    weights = rng.integers(-largest, largest + 1, (4, width)).astype(np.int8)
    np.testing.assert_array_equal(saturating_dot(inputs, weights), slow_dot(inputs, weights))


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9))
def test_without_overflow_the_sums_are_exact(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    inputs = rng.integers(0, 256, (5, width)).astype(np.uint8)
    weights = rng.integers(-64, 65, (4, width)).astype(np.int8)
    assert not can_saturate(weights).any()
    exact = inputs.astype(np.int64) @ weights.T.astype(np.int64)
    np.testing.assert_array_equal(saturating_dot(inputs, weights), exact)


@pytest.mark.parametrize(
    ("pair", "overflows"),
    [
        ((64, 64), False),
        ((127, 1), False),
        ((127, 2), True),
        ((-64, -65), True),
        ((127, -128), False),
    ],
)
def test_which_pairs_can_overflow(pair: tuple[int, int], overflows: bool) -> None:
    assert can_saturate(np.array([pair], np.int8)).item() is overflows


def test_smaller_activations_allow_larger_weights() -> None:
    pair = np.array([[127, 127]], np.int8)
    assert can_saturate(pair).item()
    assert not can_saturate(pair, largest=128).item()


def test_an_odd_last_weight_stands_beside_zero() -> None:
    np.testing.assert_array_equal(pair_products(np.array([[1, 2, 3]], np.int8))[0, 1], [3, 0])


def test_a_crafted_convolution_goes_wrong_and_the_emulator_shows_it() -> None:
    # users-ask 12
    model = qdq_conv(np.full((4, 8, 3, 3), 127, np.int8))
    x = np.full((1, 8, 6, 6), 200, np.float32)
    exact, old = (OldCpu(model, saturating=s).run((x,))[0] for s in (False, True))
    assert old[0, 0, 3, 3] < 0.7 * exact[0, 0, 3, 3]


@pytest.mark.skipif(not OLD, reason="needs a CPU with AVX2 and without VNNI")
@pytest.mark.parametrize("channels", [3, 4, 5, 8, 16])
@pytest.mark.parametrize("zero", [0, 37])
def test_the_emulator_is_this_cpu(run, channels: int, zero: int) -> None:
    """Bit for bit: random full-range weights, odd channels included, real ONNX Runtime."""
    rng = np.random.default_rng(channels)
    weight = rng.integers(-127, 128, (12, channels, 3, 3)).astype(np.int8)
    model = qdq_conv(weight, zero=zero)
    x = rng.integers(-zero, 256 - zero, (2, channels, 7, 7)).astype(np.float32)
    real = run(model, x)
    np.testing.assert_array_equal(OldCpu(model).run((x,))[0], real)
    exact = OldCpu(model, saturating=False).run((x,))[0]
    assert np.abs(exact - real).max() > 0
    np.testing.assert_array_equal(run(model, x, session__x64quantprecision="1"), exact)


@pytest.mark.skipif(not OLD, reason="needs a CPU with AVX2 and without VNNI")
@pytest.mark.parametrize("groups", [2, 8])
def test_groups_and_depthwise_kernels_are_this_cpus_too(run, groups: int) -> None:
    rng = np.random.default_rng(groups)
    weight = rng.integers(-127, 128, (16, 8 // groups, 3, 3)).astype(np.int8)
    if groups == 8:
        weight = weight[:8]
    model = qdq_conv(weight, groups=groups)
    x = rng.integers(0, 256, (2, 8, 7, 7)).astype(np.float32)
    np.testing.assert_array_equal(OldCpu(model).run((x,))[0], run(model, x))


def test_signed_activations_do_not_saturate() -> None:
    model = qdq_conv(np.full((4, 8, 3, 3), 127, np.int8), kind=np.int8)
    x = np.full((1, 8, 6, 6), 100, np.float32)
    first, second = (OldCpu(model, saturating=s).run((x,))[0] for s in (False, True))
    np.testing.assert_array_equal(first, second)


def test_flags_decide() -> None:
    assert saturates(("avx2",))
    assert saturates(("avx512f", "avx512bw"))
    assert not saturates(("avx2", "avx_vnni"))
    assert not saturates(("neon",))
    assert saturates(())


def test_float_layers_run_beside_integer_ones(residual_net, feeds, run) -> None:
    x = next(feeds()())[0]
    np.testing.assert_allclose(
        OldCpu(residual_net).over(lambda: iter([(x,)]))[0],
        run(residual_net, x),
        rtol=1e-4,
        atol=1e-5,
    )
