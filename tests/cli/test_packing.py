"""`pack` and `unpack`, and every verb on a packed file."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import lilliput
from lilliput.artifact import ArtifactMetadata
from lilliput.cli import app
from lilliput.codec import container
from lilliput.codec.gaps import pack_tensors
from lilliput.errors import LilliputError, Refused, VerificationFailed
from lilliput.onnx_io import read_model, set_metadata, write_model
from lilliput.preprocessing import Preprocessing
from lilliput.runtimes.opening import open_session
from lilliput.target import Target

runner = CliRunner()


@pytest.fixture
def network(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((8, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "weight"], ["output"], "conv", pads=[1] * 4)],
        "graph",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, 3, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [None, 8, 8, 8])],
        [numpy_helper.from_array(weight, "weight")],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    set_metadata(model, ArtifactMetadata(precision="fp32", version="7"))
    return write_model(model, tmp_path / "net.onnx")


@pytest.fixture
def packed(network: Path) -> Path:
    return lilliput.pack(network).path


def test_there_and_back(network: Path, tmp_path: Path):
    done = runner.invoke(app, ["pack", str(network)])
    assert done.exit_code == 0, done.output
    assert "net.lil" in done.output
    assert "smaller" in done.output
    assert "weight" in done.output
    done = runner.invoke(
        app, ["unpack", str(tmp_path / "net.lil"), "-o", str(tmp_path / "again.onnx")]
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "again.onnx").read_bytes() == network.read_bytes()


def test_json_is_the_bill(network: Path, tmp_path: Path):
    target = tmp_path / "deep" / "net.lil"
    told = json.loads(
        runner.invoke(app, ["pack", str(network), "-o", str(target), "--json"]).stdout
    )
    assert told["bytes"] == target.stat().st_size == sum(e["bytes"] for e in told["entries"])
    assert sum(e["raw_bytes"] for e in told["entries"]) == network.stat().st_size
    back = tmp_path / "back.onnx"
    told = json.loads(runner.invoke(app, ["unpack", str(target), "-o", str(back), "--json"]).stdout)
    assert told["bytes"] == network.stat().st_size
    assert told["sha256"] == lilliput.Artifact.of(network).sha256


def test_python_functions_return_what_they_did(network: Path, packed: Path, tmp_path: Path):
    found = lilliput.pack(network, out=packed)
    assert found.bytes == packed.stat().st_size
    assert found.ratio > 1
    again = lilliput.unpack(packed, out=tmp_path / "b.onnx")
    assert again.path.read_bytes() == network.read_bytes()


def test_nothing_is_overwritten_unless_it_is_named(network: Path, packed: Path):
    with pytest.raises(LilliputError, match=r"net\.lil' is there already\n  → to replace it, name"):
        lilliput.pack(network)
    with pytest.raises(LilliputError, match=r"net\.onnx' is there already"):
        lilliput.unpack(packed)
    lilliput.pack(network, out=packed)


def test_names_must_tell_what_is_inside(network: Path, packed: Path, tmp_path: Path):
    with pytest.raises(LilliputError, match=r"such a file ends in \.lil, not 'net\.zip'"):
        lilliput.pack(network, out=tmp_path / "net.zip")
    with pytest.raises(LilliputError, match=r"such a file ends in \.onnx, not 'net\.lil'"):
        lilliput.unpack(packed, out=tmp_path / "net.lil")
    with pytest.raises(Refused, match=r"is packed already\n  → lilliput unpack"):
        lilliput.pack(packed)


def test_what_is_no_model_is_refused(tmp_path: Path):
    with pytest.raises(LilliputError, match="no file at"):
        lilliput.pack(tmp_path / "none.onnx")
    with pytest.raises(LilliputError, match="no file at"):
        lilliput.unpack(tmp_path / "none.lil")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(Refused, match=r"is not an ONNX model|holds no ONNX graph"):
        lilliput.pack(tmp_path / "text.onnx")
    (tmp_path / "words.lil").write_text("hello")
    with pytest.raises(Refused, match=r"words\.lil: this is not a \.lil file"):
        lilliput.unpack(tmp_path / "words.lil")


def test_a_tensor_in_another_file_is_refused(network: Path):
    model = read_model(network)
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    network.write_bytes(model.SerializeToString())
    with pytest.raises(Refused, match="lies in another file"):
        lilliput.pack(network)


def test_what_does_not_come_back_is_not_kept(network: Path, monkeypatch: pytest.MonkeyPatch):
    from lilliput.codec import verified

    monkeypatch.setattr(verified, "decode", lambda packed, max_bytes: b"something else")
    with pytest.raises(VerificationFailed, match="does not come back as it was; nothing is writ"):
        lilliput.pack(network)
    assert not network.with_suffix(".lil").exists()


def test_the_limit_can_be_raised(packed: Path, tmp_path: Path):
    done = runner.invoke(app, ["unpack", str(packed), "-o", str(tmp_path / "b.onnx")])
    assert done.exit_code == 0
    with pytest.raises(Refused, match=r"more than the limit of 100\n  → raise the limit"):
        lilliput.unpack(packed, out=tmp_path / "b.onnx", max_bytes=100)
    done = runner.invoke(
        app, ["unpack", str(packed), "-o", str(tmp_path / "b.onnx"), "--max-size", "1MB"]
    )
    assert done.exit_code == 0


def test_damage_is_told_with_the_file(packed: Path):
    content = bytearray(packed.read_bytes())
    content[40] ^= 1
    packed.write_bytes(content)
    with pytest.raises(Refused, match=r"net\.lil: the packed file is damaged or cut short"):
        read_model(packed)
    with pytest.raises(Refused, match="checksum"), open_session(packed, Target()):
        pass


def test_a_packed_file_runs_as_the_other_does(network: Path, packed: Path):
    image = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    outputs = []
    for path in (network, packed):
        session = open_session(path, Target())
        outputs.append(session.run([image])[0])
        assert session.conditions["load_ms"] == pytest.approx(1e3 * session.load_seconds, abs=1e-3)
        session.close()
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize("runtime", ["onnxruntime", "reference"])
def test_measure_takes_both(network: Path, packed: Path, runtime: str):
    found = lilliput.measure([network, packed], target=runtime, max_seconds=0.2)
    assert found.sizes[str(packed)] == packed.stat().st_size
    assert all("load_ms" in timing.conditions for timing in found.timings.values())
    assert "load" in str(found)


def test_metadata_and_cost_are_read_from_inside(network: Path, packed: Path):
    ours, theirs = lilliput.Artifact.of(packed), lilliput.Artifact.of(network)
    assert ours.format == "lil"
    assert ours.metadata == theirs.metadata
    assert ours.metadata.version == "7"
    found, other = lilliput.inspect(packed), lilliput.inspect(network)
    assert found.cost.layers == other.cost.layers
    assert found.bill.bytes == packed.stat().st_size
    assert "where the bytes went" in str(found)


def test_explain_names_the_packed_file(packed: Path):
    found = lilliput.explain(packed)
    assert found.file == "net.lil"
    assert found.operators


def test_a_packed_file_is_decoded_once_to_be_inspected(
    packed: Path, monkeypatch: pytest.MonkeyPatch
):
    decodings = []

    def counted(*given: Any) -> Any:
        decodings.append(given)
        return decode_(*given)

    decode_ = container._decode
    monkeypatch.setattr(container, "_decode", counted)
    assert lilliput.inspect(packed).bill.bytes == packed.stat().st_size
    assert len(decodings) == 1


def test_a_damaged_file_that_is_inspected_is_named(packed: Path):
    packed.write_bytes(packed.read_bytes()[:-4])
    with pytest.raises(Refused, match=r"net\.lil: the packed file is damaged or cut short"):
        lilliput.inspect(packed)


def test_a_packed_file_scores_as_the_other_does(digits_file: Callable[..., Path]):
    plain = digits_file()
    ours = lilliput.evaluate(
        lilliput.pack(plain).path,
        against=plain,
        data="digits",
        task="classification",
        preprocessing=Preprocessing(channels=1),
    )
    theirs = lilliput.evaluate(
        plain, data="digits", task="classification", preprocessing=Preprocessing(channels=1)
    )
    assert ours.file.suffix == ".lil"
    assert ours.metric.value == theirs.metric.value
    assert ours.metric.interval == theirs.metric.interval
    assert ours.drop.value == 0
    assert 0 < ours.metric.value < 100


def test_other_coders_stand_below_the_bill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # users-ask 41; xz at its highest fills hundreds of MB first
    monkeypatch.setattr("lilliput.codec.rivals.xz_bytes", lambda content: 2 * len(content))
    rng = np.random.default_rng(0)
    live = rng.random((20, 25)) < 0.1
    shared = np.where(live, rng.choice([-0.5, 0.25, 0.5], live.shape), 0).astype(np.float32)
    codes = rng.integers(-127, 128, (10, 12)).astype(np.int8)
    stored = [numpy_helper.from_array(a, n) for n, a in (("shared", shared), ("codes", codes))]
    nodes = [helper.make_node("Identity", ["shared"], ["y"])]
    graph = helper.make_graph(nodes, "graph", [], [], stored)
    content = helper.make_model(graph, ir_version=8).SerializeToString()
    (tmp_path / "net.onnx").write_bytes(content)
    told = runner.invoke(app, ["pack", str(tmp_path / "net.onnx"), "--compare"])
    assert told.exit_code == 0, told.output
    below = told.output.partition("total")[2]
    assert all(name in below for name in ("gzip -9", "xz -9e", "Huffman and gaps"))
    packed = lilliput.pack(tmp_path / "net.onnx", out=tmp_path / "net.lil", compare=True)
    by_gzip, by_xz, by_huffman = packed.as_json()["rivals"]
    assert by_gzip["bytes"] == len(zlib.compress(content, 9)) + 12
    assert by_xz["ratio"] == 2 * len(content) / packed.bytes
    # Three values and where they are; full bytes, which no code makes smaller, count as they are.
    floats, _ = pack_tensors({"shared": shared})
    header = struct.calcsize("<B2IBI")
    assert by_huffman["bytes"] == len(floats) + header + codes.nbytes
    assert by_huffman["ours"] < packed.bytes
