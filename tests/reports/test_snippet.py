"""The code in the report runs as it stands, and feeds the file as our own preprocessing does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lilliput.artifact import Artifact, ArtifactMetadata, TensorSpec
from lilliput.preprocessing import Preprocessing
from lilliput.reports.snippet import loading_code, loading_line
from lilliput.target import Target


def identity_file(path: Path, shape: list[Any], metadata: ArtifactMetadata) -> Artifact:
    """A file that gives back what it gets."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["out"])],
        "identity",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return Artifact.of(path, metadata=metadata)


def run(code: str, pictures: np.ndarray | None = None) -> np.ndarray:
    if pictures is not None:
        line = next(x for x in code.splitlines() if x.startswith("pictures ="))
        code = code.replace(line, "pictures = given")
    scope: dict[str, Any] = {"given": pictures}
    exec(compile(code, "snippet", "exec"), scope)
    outputs = scope["outputs"]
    return np.asarray(outputs[0])


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        Preprocessing(scale=1.0),
        Preprocessing(scale=0.017, std=(2.0,)),
        Preprocessing(scale=1.0, mean=(127.0,)),
    ],
)
def test_the_code_feeds_pictures_as_we_do(
    tmp_path: Path, preprocessing: Preprocessing, runtime: str
):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    spec = TensorSpec(name="image", shape=(None, 3, 6, 4))
    metadata = ArtifactMetadata(preprocessing=preprocessing, inputs=(spec,))
    artifact = identity_file(tmp_path / "it's.onnx", ["n", 3, 6, 4], metadata)
    code = loading_code(artifact.path, artifact, Target(runtime=runtime))
    pictures = np.random.default_rng(0).integers(0, 256, (2, 6, 4, 3)).astype(np.uint8)
    np.testing.assert_allclose(run(code, pictures), preprocessing(pictures), rtol=2e-5, atol=1e-5)
    assert run(code).shape == (1, 3, 6, 4)
    assert loading_line(artifact.path, Target(runtime=runtime)) in code


def test_a_size_is_said_in_the_example(tmp_path: Path):
    spec = TensorSpec(name="image", shape=(None, 1, None, None), sample=(1, 1, 9, 9))
    metadata = ArtifactMetadata(
        preprocessing=Preprocessing(channels=1, size=(5, 7)), inputs=(spec,)
    )
    artifact = identity_file(tmp_path / "a.onnx", ["n", 1, "h", "w"], metadata)
    assert run(loading_code(artifact.path, artifact)).shape == (1, 1, 5, 7)


def test_files_that_take_no_pictures(tmp_path: Path):
    spec = TensorSpec(name="image", shape=(None, 4))
    artifact = identity_file(tmp_path / "a.onnx", ["n", 4], ArtifactMetadata(inputs=(spec,)))
    assert run(loading_code(artifact.path, artifact)).shape == (1, 4)
    bare = identity_file(tmp_path / "b.onnx", [1], ArtifactMetadata())
    assert "{'input': x}" in loading_code(bare.path, bare)
