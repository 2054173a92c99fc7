"""A file in its parts: the bill sums to its length (users-ask 41), times belong to layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from lilliput.codec.container import encode
from lilliput.errors import LilliputError
from lilliput.export.onnx_file import export_network
from lilliput.meter.anatomy import anatomy, stored_tensors
from lilliput.target import Target
from lilliput.testing import tiny_network


def test_layers_have_their_time_and_other_operators_theirs(classifier: Callable[..., Path]) -> None:
    path = classifier(1)
    found = anatomy(path, Target())
    (head,) = found.layers
    assert (head.name, head.macs, head.params, head.precision) == ("head", 9, 9, "fp32")
    assert head.seconds is not None
    assert {other.op for other in found.others} >= {"GlobalAveragePool"}
    parts = head.seconds + sum(other.seconds for other in found.others)
    assert parts == pytest.approx(found.seconds)
    assert found.bytes == path.stat().st_size


def test_a_runtime_that_tells_no_times_leaves_them_out(classifier: Callable[..., Path]) -> None:
    found = anatomy(classifier(1), Target(runtime="reference"))
    assert found.layers[0].seconds is None
    assert (found.seconds, found.others) == (0.0, ())
    assert found.tensors[0].name == "w"


def test_what_is_no_onnx_file_has_no_anatomy(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"no")
    with pytest.raises(LilliputError, match=r"the cost of 'a\.bin' is unknown"):
        anatomy(tmp_path / "a.bin", Target())


@given(st.lists(st.integers(0, 3000), max_size=6), st.text("abc/.", max_size=300))
def test_the_bill_is_exact(tmp_path_factory: pytest.TempPathFactory, sizes, name) -> None:
    tensors = [
        helper.make_tensor(f"{name}{n}", TensorProto.INT8, [size], bytes(size), raw=True)
        for n, size in enumerate(sizes)
    ]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [value])
    model = helper.make_model(graph)
    bare = graph_length(model)
    model.graph.initializer.extend(tensors)
    path = tmp_path_factory.mktemp("bill") / "m.onnx"
    onnx.save(model, str(path))
    found = stored_tensors(path)
    assert {tensor.name: tensor.count for tensor in found} == {
        f"{name}{n}": size for n, size in enumerate(sizes)
    }
    assert sum(tensor.bytes for tensor in found) == graph_length(model) - bare


def graph_length(model: onnx.ModelProto) -> int:
    return int(model.graph.ByteSize())


def test_a_packed_file_is_told_by_its_bill(tmp_path: Path) -> None:
    plain, packed = tmp_path / "net.onnx", tmp_path / "net.lil"
    export_network(tiny_network(), plain)
    made, bill = encode(plain.read_bytes())
    packed.write_bytes(made)
    found = anatomy(packed, Target())
    assert found.bytes == len(made)
    assert found.graph_bytes == bill.parts["header"] + bill.parts["graph"]
    assert {t.name for t in found.tensors} == {t.name for t in anatomy(plain, Target()).tensors}
    assert all(sum(t.parts.values()) == t.bytes for t in found.tensors)
    assert "values" in found.tensors[0].parts
