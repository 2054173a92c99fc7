"""Everything that prevents a file from opening is said before anything is loaded."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from lilliput.artifact import METADATA_KEY, ArtifactMetadata, TensorSpec
from lilliput.errors import LilliputError, Missing, Refused
from lilliput.runtimes import opening
from lilliput.runtimes.base import RUNTIMES, Runtime
from lilliput.target import Target


def test_the_known_runtimes() -> None:
    names = {"onnxruntime", "openvino", "torch", "reference", "null"}
    assert names <= set(RUNTIMES.names())
    for name in names:
        runtime = RUNTIMES[name]
        assert isinstance(runtime, Runtime)
        assert runtime.name == name
        assert "f32" in runtime.precisions


def test_no_library_is_imported_for_knowing_runtimes() -> None:
    # users-ask 36, 37: libraries are imported when a file is loaded
    code = (
        "import sys; from lilliput.runtimes.base import RUNTIMES; RUNTIMES.names();"
        "import lilliput.meter.stopwatch, lilliput.meter.explain, lilliput.meter.widths;"
        "bad = {'torch', 'onnx', 'onnxruntime', 'openvino'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LilliputError, match=r"no file at .*gone.onnx"):
        opening.open_session(tmp_path / "gone.onnx", Target())


def test_a_foreign_format_names_who_opens_it(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(b"")
    with pytest.raises(Refused, match=r"onnxruntime opens .onnx files, not 'net.pt2'") as caught:
        opening.open_session(path, Target())
    assert caught.value.hint == "runtimes that open .pt2: torch"


def test_an_unknown_precision_is_refused(small_net: Path) -> None:
    with pytest.raises(Refused, match="onnxruntime has no precision 'bf16'"):
        opening.open_session(small_net, Target(precision="bf16"))


def test_an_unknown_device_is_refused(small_net: Path) -> None:
    with pytest.raises(Refused, match="runs on the CPU here, not on 'cuda'"):
        opening.open_session(small_net, Target(device="cuda"))


def test_a_missing_library_is_said_with_its_command(
    small_net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lilliput.runtimes.hosted.installed_version", lambda _: None)
    with pytest.raises(Missing, match="the runtime openvino cannot be used here") as caught:
        opening.open_session(small_net, Target(runtime="openvino"))
    assert caught.value.hint == 'pip install "lilliput[openvino]"'


def test_a_files_own_sample_shape_is_used(small_net: Path, tmp_path: Path) -> None:
    model = onnx.load(str(small_net))
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "side"
    spec = TensorSpec(name="image", shape=(None, 3, None, None), sample=(1, 3, 24, 24))
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, ArtifactMetadata(inputs=(spec,)).model_dump_json()
    path = tmp_path / "free.onnx"
    onnx.save(model, str(path))
    session = opening.open_session(path, Target())
    assert session.inputs[0].sample == (1, 3, 24, 24)
    assert opening.random_feeds(session.inputs, batch=2)[0].shape == (2, 3, 24, 24)


def test_random_feeds_suit_the_type() -> None:
    specs = [
        TensorSpec(name="x", shape=(None, 4)),
        TensorSpec(name="i", shape=(3,), dtype="int64"),
    ]
    floats, integers = opening.random_feeds(specs, batch=2, seed=1)
    assert (floats.shape, floats.dtype) == ((2, 4), np.float32)
    assert integers.dtype == np.int64
    assert set(integers) <= {0, 1}
    np.testing.assert_array_equal(opening.random_feeds(specs, batch=2, seed=1)[0], floats)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ([], r"takes 1 inputs \(x\), got 0"),
        ([np.zeros((2, 3), np.float32)], "input 'x' takes any×4, got 2×3"),
        ([np.zeros(4, np.float32)], "input 'x' takes any×4, got 4"),
    ],
)
def test_wrong_feeds_are_named(feeds: list[np.ndarray], message: str) -> None:
    with pytest.raises(LilliputError, match=message):
        opening.check_feeds(feeds, [TensorSpec(name="x", shape=(None, 4))])
