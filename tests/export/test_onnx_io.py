"""Files that lie, files that reach elsewhere, files that were cut short."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lilliput.artifact import METADATA_KEY, ArtifactMetadata, TensorSpec, read_metadata
from lilliput.atomic import write_atomically
from lilliput.errors import LilliputError, Refused
from lilliput.onnx_io import get_metadata, read_model, set_metadata, strip, tensors, write_model
from lilliput.preprocessing import Preprocessing


def tiny(weight: np.ndarray | None = None) -> onnx.ModelProto:
    weight = np.ones((2, 3), np.float32) if weight is None else weight
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="m", doc_string="made by hand")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(weight, "w")],
        value_info=[helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = write_model(tiny(), tmp_path / "deep" / "net.onnx")
    assert read_model(path) == tiny()
    assert [p.name for p in path.parent.iterdir()] == ["net.onnx"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_metadata_goes_into_the_file_and_replaces_its_forerunner(tmp_path: Path) -> None:
    model = tiny()
    model.metadata_props.add(key="author", value="someone")
    first = ArtifactMetadata(version="1", task={"name": "classification"})
    second = ArtifactMetadata(
        version="2",
        preprocessing=Preprocessing(mean=(0.5,), channels=1),
        inputs=(TensorSpec(name="x", shape=(None, 2)),),
        isa=("avx2",),
    )
    assert get_metadata(model) == ArtifactMetadata()
    set_metadata(model, first)
    set_metadata(model, second)
    assert get_metadata(model) == second
    assert [entry.key for entry in model.metadata_props] == ["author", "lilliput"]
    assert read_metadata(write_model(model, tmp_path / "net.onnx")) == second


def test_strip_removes_text_and_keeps_the_function() -> None:
    model = tiny()
    model.doc_string = model.graph.doc_string = "long"
    model.graph.node[0].metadata_props.add(key="stack", value="trace " * 100)
    before = len(model.SerializeToString())
    strip(model)
    assert len(model.SerializeToString()) < before - 500
    assert not model.graph.value_info
    assert not model.graph.node[0].doc_string
    assert model.graph.node[0].name == "m"


@pytest.mark.parametrize("location", ["weights.bin", "../../etc/passwd", "/etc/passwd"])
def test_external_data_is_refused_before_anything_else_is_opened(
    tmp_path: Path, location: str
) -> None:
    model = tiny()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    write_model(model, tmp_path / "net.onnx")
    with pytest.raises(Refused, match=r"tensor 'w' of .* lies in another file"):
        read_model(tmp_path / "net.onnx")


def test_external_data_inside_a_branch_is_found(tmp_path: Path) -> None:
    inner = tiny().graph
    inner.initializer[0].external_data.add(key="location", value="x")
    branch = helper.make_node("If", ["c"], ["r"], then_branch=inner, else_branch=tiny().graph)
    model = tiny()
    model.graph.node.append(branch)
    assert len(list(tensors(model))) == 3
    write_model(model, tmp_path / "net.onnx")
    with pytest.raises(Refused, match="lies in another file"):
        read_model(tmp_path / "net.onnx")


@pytest.mark.parametrize("field", ["sparse_tensor", "sparse_tensors"])
@pytest.mark.parametrize("part", ["values", "indices"])
def test_external_data_inside_a_sparse_attribute_is_found(
    tmp_path: Path, field: str, part: str
) -> None:
    model = tiny()
    attribute = model.graph.node[0].attribute.add(name="sparse_value")
    sparse = getattr(attribute, field)
    sparse = sparse.add() if field == "sparse_tensors" else sparse
    getattr(sparse, part).external_data.add(key="location", value="x")
    write_model(model, tmp_path / "net.onnx")
    with pytest.raises(Refused, match="lies in another file"):
        read_model(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("dims", "says"),
    [
        ((2, 4), "declares 32 bytes and holds 24"),
        ((10**9, 10**9), "declares more than 2147483647 bytes and holds 24"),
        ((2**62,) * 64, "declares more than 2147483647 bytes and holds 24"),
        ((-2, -3), r"has a shape that no tensor has \(2 axes\)"),
        ((2**62,) * 300, r"has a shape that no tensor has \(300 axes\)"),
    ],
)
def test_a_tensor_that_lies_about_its_size_is_refused(
    tmp_path: Path, dims: tuple[int, ...], says: str
) -> None:
    model = tiny()
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)
    write_model(model, tmp_path / "net.onnx")
    with pytest.raises(Refused, match=rf"tensor 'w' of .* {says}"):
        read_model(tmp_path / "net.onnx")


@pytest.mark.parametrize("stored", [[], [1.0], [1.0] * 7])
def test_numbers_that_are_not_raw_are_counted_too(tmp_path: Path, stored: list[float]) -> None:
    model = tiny()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0] * 6)
    assert read_model(write_model(model, tmp_path / "whole.onnx")) == model
    tensor.ClearField("float_data")
    tensor.float_data.extend(stored)
    write_model(model, tmp_path / "net.onnx")
    with pytest.raises(Refused, match=rf"declares 6 numbers and holds {len(stored)}"):
        read_model(tmp_path / "net.onnx")


def test_a_type_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    model = tiny()
    model.graph.initializer[0].data_type = 99
    write_model(model, tmp_path / "net.onnx")
    with pytest.raises(Refused, match=r"does not know \(99\)"):
        read_model(tmp_path / "net.onnx")


@pytest.mark.parametrize("text", ["{not json", '{"inputs": 3}', "[]"])
def test_damaged_metadata_is_refused(tmp_path: Path, text: str) -> None:
    model = tiny()
    model.metadata_props.add(key=METADATA_KEY, value=text)
    write_model(model, tmp_path / "net.onnx")
    with pytest.raises(Refused, match="what the file says of itself"):
        read_metadata(tmp_path / "net.onnx")


def test_half_bytes_are_counted(tmp_path: Path) -> None:
    model = tiny()
    packed = helper.make_tensor("q", TensorProto.INT4, [3], b"\x12\x03", raw=True)
    model.graph.initializer.append(packed)
    assert read_model(write_model(model, tmp_path / "net.onnx")) == model


@pytest.mark.parametrize("content", [b"\xff\xfe not a model", b""])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(Refused, match=r"is not an ONNX model|holds no ONNX graph"):
        read_model(path)


def test_a_missing_file_and_a_wrong_suffix_are_said(tmp_path: Path) -> None:
    with pytest.raises(LilliputError, match="no file at"):
        read_model(tmp_path / "none.onnx")
    with pytest.raises(LilliputError, match=r"ends in \.onnx, not 'net\.pb'"):
        write_model(tiny(), tmp_path / "net.pb")
