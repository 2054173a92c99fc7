"""Fixtures that every folder of tests shares."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import settings
from onnx import TensorProto, helper, numpy_helper

# Examples are the same in every run, and none is failed for being slow on a busy machine.
settings.register_profile("here", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("here")

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

TWICE_SEEN = (
    "codec/test_damage",
    "codec/test_specification",
    "conformance",
    "distill/test_adversary",
    "export/test_export_zoo",
    "frequency/test_running",
    "prune/test_random_networks",
    "prune/test_zoo_cuts",
)
"""Being traced doubles the time of these, and what they run has tests of its own."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tracing stops where a test runs the same lines again: other parameters, drawn examples.

    So the coverage that is reported is a little less than what it is.
    """
    traced = set()
    for item in items:
        place, _, name = item.nodeid.removeprefix("tests/").partition("::")
        function = place, name.partition("[")[0]
        drawn = getattr(getattr(item, "function", None), "is_hypothesis_test", False)
        if place.startswith(TWICE_SEEN) or drawn or function in traced:
            item.add_marker("no_cover")
        traced.add(function)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data and pretrained networks, or a skip that says what is missing."""
    named = os.environ.get("LILLIPUT_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}; set LILLIPUT_DATA to run this test")
    return folder


@pytest.fixture
def scripted_stopwatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """No layer is ever faster in float: equal seeds give equal files only without a real clock."""
    monkeypatch.setattr("lilliput.steps.quantize._Trials.faster", lambda *_: False)


class Builder:
    """A float graph written by hand, so that every number in it is known; `model` closes it."""

    def __init__(self, shape: tuple[int | str, ...] = ("n", 3, 8, 8), *, opset: int = 17) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.shape, self.opset = shape, opset
        self.rng = np.random.default_rng(0)

    def const(self, name: str, value: object) -> str:
        self.tensors.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **facts: object) -> str:
        name = str(facts.pop("name", f"{output}_{op}"))
        self.nodes.append(helper.make_node(op, inputs, [output], name=name, **facts))
        return output

    def conv(
        self,
        source: str,
        path: str,
        channels: tuple[int, int],
        *,
        kernel: int = 3,
        groups: int = 1,
        weight: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        **facts: object,
    ) -> str:
        before, after = channels
        if weight is None:
            weight = self.rng.normal(0, 0.3, (after, before // groups, kernel, kernel))
        if bias is None:
            bias = self.rng.normal(0, 0.1, after)
        names = [
            source,
            self.const(f"{path}.weight", weight.astype(np.float32)),
            self.const(f"{path}.bias", bias.astype(np.float32)),
        ]
        facts.setdefault("pads", [kernel // 2] * 4)
        return self.node(
            "Conv",
            names,
            f"{path}_out",
            name=f"/{path.replace('.', '/')}/Conv",
            group=groups,
            **facts,
        )

    def norm(self, source: str, path: str, channels: int) -> str:
        values = {
            "weight": self.rng.uniform(0.5, 2, channels),
            "bias": self.rng.normal(0, 0.3, channels),
            "mean": self.rng.normal(0, 0.3, channels),
            "var": self.rng.uniform(0.5, 2, channels),
        }
        names = [self.const(f"{path}.{k}", v.astype(np.float32)) for k, v in values.items()]
        return self.node("BatchNormalization", [source, *names], f"{path}_out")

    def linear(self, source: str, path: str, sizes: tuple[int, int]) -> str:
        weight = self.rng.normal(0, 0.3, (sizes[1], sizes[0])).astype(np.float32)
        bias = self.rng.normal(0, 0.1, sizes[1]).astype(np.float32)
        names = [source, self.const(f"{path}.weight", weight), self.const(f"{path}.bias", bias)]
        return self.node("Gemm", names, f"{path}_out", name=f"/{path}/Gemm", transB=1)

    def model(self, output: str, rank: int = 2) -> onnx.ModelProto:
        ends = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None] * rank)]
        starts = [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(self.shape))]
        graph = helper.make_graph(self.nodes, "tiny", starts, ends, self.tensors)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8
        )


@pytest.fixture
def builder() -> type[Builder]:
    return Builder


@pytest.fixture
def residual_net() -> onnx.ModelProto:
    """Conv, BN, Relu, a residual block, pooling, a linear head: what most networks are made of."""
    b = Builder()
    stem = b.node("Relu", [b.norm(b.conv("x", "stem", (3, 8)), "stem_bn", 8)], "stem_act")
    inner = b.node("Relu", [b.conv(stem, "block.conv1", (8, 8))], "inner_act")
    outer = b.conv(inner, "block.conv2", (8, 8))
    added = b.node("Relu", [b.node("Add", [outer, stem], "sum")], "sum_act")
    pooled = b.node("Flatten", [b.node("GlobalAveragePool", [added], "pool")], "flat")
    return b.model(b.linear(pooled, "head", (8, 4)))


@pytest.fixture
def run() -> Callable[..., np.ndarray]:
    """The first output of a model in ONNX Runtime, all optimizations on."""
    import onnxruntime

    def go(model: onnx.ModelProto, *inputs: np.ndarray, **config: str) -> np.ndarray:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        for key, value in config.items():
            options.add_session_config_entry(key.replace("__", "."), value)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        named = {i.name: x for i, x in zip(session.get_inputs(), inputs, strict=True)}
        return session.run(None, named)[0]

    return go
