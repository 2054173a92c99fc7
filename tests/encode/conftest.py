"""Tiny float graphs, written by hand so that every number in them is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Feeds = Callable[[], Iterator[tuple[np.ndarray, ...]]]


class Builder:
    """Collects nodes and initializers; `model` closes the graph."""

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
def depthwise_net() -> onnx.ModelProto:
    """Pointwise, depthwise, pointwise, with channel ranges that differ by a factor of 300."""
    b = Builder(("n", 8, 8, 8))
    spread = np.geomspace(1 / 300, 1.0, 16)
    weight = b.rng.normal(0, 0.5, (16, 8, 1, 1)) * spread[:, None, None, None]
    bias = b.rng.normal(0, 0.2, 16) * spread
    wide = b.conv("x", "expand", (8, 16), kernel=1, weight=weight, bias=bias)
    kernel = b.rng.normal(0, 0.4, (16, 1, 3, 3))
    act = b.node("Relu", [wide], "expand_act")
    deep = b.conv(act, "depthwise", (16, 16), groups=16, weight=kernel, bias=0 * bias)
    deep = b.node("Relu", [deep], "depthwise_act")
    weight = b.rng.normal(0, 0.5, (8, 16, 1, 1)) / spread[None, :, None, None]
    narrow = b.conv(deep, "project", (16, 8), kernel=1, weight=weight)
    pooled = b.node("Flatten", [b.node("GlobalAveragePool", [narrow], "pool")], "flat")
    return b.model(b.linear(pooled, "head", (8, 5)))


@pytest.fixture
def feeds() -> Callable[..., Feeds]:
    """Batches of normal noise that are the same each time they are asked for."""

    def make(
        count: int = 4, size: int = 8, shape: tuple[int, ...] = (3, 8, 8), seed: int = 0
    ) -> Feeds:
        def batches() -> Iterator[tuple[np.ndarray, ...]]:
            rng = np.random.default_rng(seed)
            for _ in range(count):
                yield (rng.normal(0, 1, (size, *shape)).astype(np.float32),)

        return batches

    return make


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
