"""What goes in comes out, bit for bit, and small."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lilliput.codec import container, payload, wire
from lilliput.codec.container import decode, decode_with_bill, encode
from lilliput.codec.phases import likely_line, of_lines
from lilliput.errors import Refused

KINDS = (np.float32, np.float16, np.float64, np.int8, np.uint8, np.int32, np.uint32, np.int64)


def round_trip(content: bytes) -> bytes:
    packed, bill = encode(content)
    assert bytes(decode(packed)) == content
    assert bill.bytes == len(packed)
    assert bill.raw_bytes == len(content)
    return packed


def test_every_kind_of_tensor_comes_back(mixed):
    assert len(round_trip(mixed)) < 0.6 * len(mixed)


def test_what_repeats_across_shapes_is_left_to_lzma(model_of):
    noise = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    copies = {f"{rows}": noise.reshape(rows, -1) for rows in (1, 2, 4, 5, 8, 10)}
    assert len(round_trip(model_of(copies))) < 1.1 * noise.nbytes


def test_packed_nibbles_come_back(four_bits):
    _, bill = encode(four_bits)
    assert [entry.raw_bytes for entry in bill.entries[2:]] == [600, 611]
    round_trip(four_bits)


def test_a_nibble_that_should_be_unused_comes_back(four_bits):
    model = onnx.load_from_string(four_bits)
    odd = next(t for t in model.graph.initializer if t.name == "u")
    odd.raw_data = odd.raw_data[:-1] + bytes([odd.raw_data[-1] | 0x50])
    round_trip(model.SerializeToString())


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_numbers_come_back(model_of, data):
    shapes = arrays.array_shapes(min_dims=0, max_dims=5, max_side=6)
    tensors = {
        f"t{n}": data.draw(arrays.arrays(data.draw(st.sampled_from(KINDS)), data.draw(shapes)))
        for n in range(data.draw(st.integers(0, 4)))
    }
    round_trip(model_of(tensors))


@pytest.mark.parametrize("kind", [np.int8, np.float32])
@pytest.mark.parametrize("columns", [1, 2, 3, 5, 8, 15, 16, 17])
def test_sparse_tensors_of_few_columns_come_back(model_of, kind, columns):
    rng = np.random.default_rng(columns)
    sparse = np.where(rng.random((60, columns)) < 0.1, rng.integers(1, 4, (60, columns)), 0)
    round_trip(model_of({"weight": sparse.astype(kind)}))


@given(st.binary(max_size=400))
@settings(max_examples=60, deadline=None)
def test_what_is_no_onnx_file_comes_back_too(content):
    round_trip(content)


@pytest.mark.parametrize("kind", [np.float32, np.int8, np.float16])
@pytest.mark.parametrize(
    "shape", [(7, 50), (40, 3, 3, 3), (900,), (2, 301), (1, 1, 40, 40), (1,) * 7]
)
def test_tensors_larger_than_a_unit_come_in_parts(monkeypatch, model_of, kind, shape):
    monkeypatch.setattr(payload, "UNIT", 128)
    monkeypatch.setattr(container, "_WHOLE", 0)
    monkeypatch.setattr(container, "_MOST_AT_ONCE", 300)
    values = np.random.default_rng(0).normal(0, 30, shape).astype(kind)
    round_trip(model_of({"a": values, "b": values[::-1].copy()}))


def test_nibbles_larger_than_a_unit_come_in_pairs(monkeypatch, four_bits):
    monkeypatch.setattr(payload, "UNIT", 160)
    monkeypatch.setattr(container, "_WHOLE", 0)
    round_trip(four_bits)


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_of_an_older_version_is_still_read(version):
    packed = (Path(__file__).parent / f"version-{version}.lil").read_bytes()
    assert packed[3] == version
    again = decode(packed)
    assert onnx.load_from_string(bytes(again)).graph.initializer
    packed_again, _ = encode(bytes(again))
    assert packed_again[3] == container.VERSION
    assert decode(packed_again) == again
    assert decode_with_bill(packed)[1].bytes == len(packed)


def _pruned(rng: np.random.Generator, shape: tuple[int, int], share: float) -> np.ndarray:
    """A layer of 16 values, a half of whose rows and columns hold nearly all that is left."""
    rows, columns = (np.where(np.arange(n) % 2, 1.0, 0.02) for n in shape)
    live = rng.random(shape) < 4 * share * np.outer(rows, columns)
    values = rng.standard_normal(16).astype(np.float16).astype(np.float32)
    return np.where(live, rng.choice(values, shape), np.float32(0))


def test_what_is_empty_by_rows_and_columns_costs_less_than_its_entropy(model_of):
    weights = _pruned(np.random.default_rng(3), (300, 400), 0.02)
    _, bill = encode(model_of({"weight": weights}))
    share = np.count_nonzero(weights) / weights.size
    entropy = -weights.size * (share * np.log2(share) + (1 - share) * np.log2(1 - share)) / 8
    assert bill.entries[2].parts["significance"] < 0.85 * entropy
    assert bill.entries[2].parts["codebook"] < 50


@pytest.mark.parametrize("most", [1, 3, 7, 31])
def test_rows_on_grids_cost_little_more_than_their_integers(model_of, most):
    rng = np.random.default_rng(most)
    whole = np.clip(np.rint(most / 3 * rng.standard_normal((64, 288))), -most, most)
    steps = np.exp(rng.standard_normal((64, 1))).astype(np.float32)
    weights = (whole + 0).astype(np.float32) * steps * np.float32(1.1)
    counts = np.unique(whole, return_counts=True)[1]
    entropy = -(counts * np.log2(counts / whole.size)).sum() / 8
    packed = round_trip(model_of({"weight": weights}))
    assert len(packed) < 1.12 * entropy + 400


@pytest.mark.parametrize(
    "spoilt",
    [
        pytest.param(lambda w: np.where(w == 0, np.float32(-0.0), w), id="negative zeros"),
        pytest.param(
            lambda w: np.where(w == 0, np.copysign(w, np.arange(-50, 50)), w), id="mixed zeros"
        ),
        pytest.param(lambda w: w + (w == w.max()) * np.float32(1e-3), id="one value off"),
        pytest.param(lambda w: np.where(w == w.max(), np.float32(np.nan), w), id="not a number"),
        pytest.param(lambda w: w * np.float32(1e-42), id="subnormal"),
        pytest.param(lambda w: w * np.float32(1e38), id="infinite"),
    ],
)
def test_rows_that_are_not_quite_on_grids_come_back_too(model_of, on_grids, spoilt):
    with np.errstate(over="ignore", invalid="ignore"):
        round_trip(model_of({"weight": spoilt(on_grids(16, 100))}))


def test_lines_of_a_picture_are_found_and_neighbours_tell(model_of, picture_weights):
    weights = picture_weights(40, 20, 0.95)
    shuffled = weights[:, np.random.default_rng(4).permutation(400)]
    in_order, at_random = (
        encode(model_of({"weight": w}))[1].entries[2].parts for w in (weights, shuffled)
    )
    assert likely_line(np.sign(weights).astype(np.int8)) == 20
    assert in_order["significance"] < 0.9 * at_random["significance"]
    assert in_order["values"] < 0.5 * at_random["values"]


@given(st.integers(1, 80), st.integers(1, 80))
def test_every_column_comes_once_and_after_its_neighbours(columns, line):
    done = set()
    for phase in of_lines(columns, min(line, columns)):
        assert done.isdisjoint(phase.columns)
        assert done.issuperset(set(phase.beside.ravel()) - {columns})
        done |= set(phase.columns)
    assert done == set(range(columns))


def test_a_small_file_is_not_mostly_header_and_graph(tmp_path):
    from lilliput.export.onnx_file import export_network
    from lilliput.testing import tiny_network

    path = tmp_path / "tiny.onnx"
    export_network(tiny_network(), path)
    packed, bill = encode(path.read_bytes())
    assert decode(packed) == path.read_bytes()
    usual = len(lzma.compress(wire.cut(path.read_bytes(), wire.payloads(path.read_bytes()))))
    assert bill.parts["header"] <= 20
    assert bill.parts["graph"] < 0.6 * usual


def test_equal_files_give_equal_bytes(mixed):
    assert encode(mixed)[0] == encode(mixed)[0]


def test_a_file_that_another_program_wrote_comes_back(model_of):
    # Tensors whose name follows the contents, packed float_data, an unknown field.
    model = onnx.load_from_string(model_of({"a": np.arange(30, dtype=np.float32)}))
    tensor = model.graph.initializer[0]
    del tensor.float_data[:]
    tensor.float_data.extend(np.frombuffer(tensor.raw_data, np.float32))
    tensor.ClearField("raw_data")
    content = model.SerializeToString() + bytes([0xFA, 0x7F, 2, 1, 2])
    assert encode(content)[1].entries[2].raw_bytes == 120
    round_trip(content)


def test_tensors_in_nodes_and_branches_are_found(model_of):
    value = onnx.numpy_helper.from_array(np.arange(64, dtype=np.float32), "inner")
    inner = onnx.helper.make_graph(
        [onnx.helper.make_node("Constant", [], ["c"], value=value)], "branch", [], []
    )
    model = onnx.load_from_string(model_of({}))
    node = onnx.helper.make_node("If", ["input"], ["x"], then_branch=inner, else_branch=inner)
    model.graph.node.append(node)
    content = model.SerializeToString()
    _, bill = encode(content)
    assert [e.name for e in bill.entries] == ["header", "graph", "inner", "inner"]
    round_trip(content)


def test_external_data_is_refused(model_of):
    model = onnx.load_from_string(model_of({"far": np.zeros(300, np.float32)}))
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    with pytest.raises(Refused, match="tensor 'far' lies in another file"):
        encode(model.SerializeToString())


@pytest.mark.parametrize(
    ("made", "share"),
    [
        pytest.param(lambda w, q: q(w), 0.98, id="int8"),
        pytest.param(lambda w, q: q(w, 7), 0.9, id="4 bits"),
        pytest.param(lambda w, q: np.round(3 * w) / np.float32(3.3), 0.85, id="clustered"),
        pytest.param(lambda w, q: np.where(np.abs(w) > 2, w, 0), 0.9, id="pruned"),
        pytest.param(lambda w, q: w, 0.93, id="float"),
        pytest.param(lambda w, q: w.astype(np.float16).astype(np.float32), 0.93, id="half"),
    ],
)
def test_weights_are_smaller_than_lzma_makes_them(model_of, smooth_kernels, quantized, made, share):
    weights = made(smooth_kernels(np.random.default_rng(1), 64, 48, 3, 3), quantized)
    content = model_of({"weight": weights})
    usual = len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    assert len(encode(content)[0]) < share * usual


def test_a_bias_scale_costs_next_to_nothing(mixed):
    entries = {e.name: e for e in encode(mixed)[1].entries}
    assert entries["scale"].bytes > 30
    assert entries["bias_scale"].bytes <= 3
    assert entries["again"].bytes <= 3 < 400 < entries["int8"].bytes


def test_the_bill_names_the_parts(mixed):
    packed, bill = encode(mixed)
    parts = {e.name: set(e.parts) for e in bill.entries}
    assert parts["header"] == {"header"}
    assert parts["graph"] == {"graph"}
    assert "codebook" in parts["clustered"]
    assert "significance" in parts["pruned"]
    assert "significance" in parts["sparse"]
    assert decode_with_bill(packed)[1] == bill
    assert sum(bill.parts.values()) == len(packed)
    assert "total" in str(bill)
    assert bill.as_json()["bytes"] == len(packed)


@pytest.mark.data
@pytest.mark.slow
def test_committed_int8_files_come_back_smaller():
    folder = Path(__file__).parents[2] / "benchmarks" / "artifacts"
    for name in ("resnet8", "resnet20", "resnet56"):
        path = folder / f"int8-{name}.onnx"
        if not path.is_file():
            pytest.skip(f"no {path}")
        content = path.read_bytes()
        usual = len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
        assert len(round_trip(content)) < 0.98 * usual
