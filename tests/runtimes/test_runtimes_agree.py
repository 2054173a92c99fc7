"""Every runtime computes what the file says, and says how it was set."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lilliput.errors import LilliputError
from lilliput.runtimes.base import RUNTIMES, Session
from lilliput.runtimes.opening import open_session, random_feeds
from lilliput.runtimes.ort import optimized_graph
from lilliput.target import Target


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "reference"])
def test_outputs_agree_with_the_specification(small_net: Path, name: str) -> None:
    session = open_session(small_net, Target(runtime=name))
    feeds = random_feeds(session.inputs, batch=3)
    expected = RUNTIMES["reference"].load(small_net, Target()).run(feeds)
    got = session.run(feeds)
    assert [spec.name for spec in session.inputs] == ["image"]
    assert session.outputs == ("logits",)
    np.testing.assert_allclose(got[0], expected[0], atol=1e-5)
    session.close()


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "reference", "null"])
def test_bursts_are_timed_run_by_run(small_net: Path, name: str) -> None:
    session = open_session(small_net, Target(runtime=name))
    with pytest.raises(LilliputError, match="burst before bind"):
        session.burst(1)
    session.bind(random_feeds(session.inputs))
    times = session.burst(4)
    assert (times.shape, times.dtype) == ((4,), np.int64)
    assert (times > 0).all()
    session.close()


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_bursts_are_of_the_bound_inputs_whatever_ran_between(small_net: Path, name: str) -> None:
    session = open_session(small_net, Target(runtime=name))
    large = random_feeds(session.inputs, batch=512)
    session.bind(large)
    of_large = float(np.median(session.burst(5)))
    session.bind(random_feeds(session.inputs, batch=1))
    session.run(large)
    assert float(np.median(session.burst(5))) < of_large / 3
    session.close()


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_conditions_are_recorded(small_net: Path, name: str) -> None:
    # users-ask 11: a row holds version, threads, precision
    session = open_session(small_net, Target(runtime=name))
    assert session.conditions["runtime"] == name
    assert session.conditions["threads"] == 1
    assert session.conditions["precision"] == "f32"
    assert session.conditions["version"]
    assert session.load_seconds > 0
    session.close()


def test_openvino_says_what_its_default_precision_is(small_net: Path) -> None:
    session = open_session(small_net, Target.parse("openvino:default"))
    assert session.conditions["precision_asked"] == "default"
    assert session.conditions["precision"] in ("f32", "bf16", "f16")
    session.close()


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_profiles_name_operators_and_times(small_net: Path, name: str) -> None:
    feeds = [np.zeros((1, 3, 8, 8), np.float32)]
    nodes = RUNTIMES[name].profile(small_net, Target(runtime=name), feeds)
    assert any(node.op in ("Conv", "Convolution") for node in nodes)
    seconds = [node.seconds for node in nodes]
    assert seconds == sorted(seconds, reverse=True)
    assert {node.precision for node in nodes} == {"fp32"}
    assert all(node.provider for node in nodes)


def test_the_reference_has_no_times_to_tell(small_net: Path) -> None:
    assert RUNTIMES["reference"].profile(small_net, Target(), []) == []


def test_the_optimized_graph_is_what_runs(small_net: Path) -> None:
    ops = [node.op_type for node in optimized_graph(small_net, Target()).graph.node]
    assert "Relu" not in ops, "fused into the convolution"
    assert "Conv" in ops or "FusedConv" in ops


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "reference"])
def test_a_broken_file_is_an_error_with_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(LilliputError, match=r"cannot load 'broken.onnx'"):
        RUNTIMES[name].load(path, Target(runtime=name))


def test_a_binding_outlives_the_callers_array(small_net: Path) -> None:
    session: Session = open_session(small_net, Target())
    feeds = random_feeds(session.inputs)
    session.bind(feeds)
    del feeds
    assert session.burst(2).shape == (2,)


def test_nothing_is_written_into_the_home(small_net: Path, tmp_path: Path) -> None:
    """Neither library leaves an id, a database or statistics behind."""
    code = (
        "import sys; from pathlib import Path\n"
        "from lilliput.runtimes.opening import open_session, random_feeds\n"
        "from lilliput.target import Target\n"
        "for name in ('onnxruntime', 'openvino'):\n"
        "    session = open_session(Path(sys.argv[1]), Target(runtime=name))\n"
        "    session.run(random_feeds(session.inputs)); session.close()\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", code, str(small_net)]
    subprocess.run(command, check=True, env={**environment, **home})
    assert list(tmp_path.rglob("*")) == []
