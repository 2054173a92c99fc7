"""Float graphs and calibration batches for the int8 engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
import pytest

Feeds = Callable[[], Iterator[tuple[np.ndarray, ...]]]


@pytest.fixture
def depthwise_net(builder) -> onnx.ModelProto:
    """Pointwise, depthwise, pointwise, with channel ranges that differ by a factor of 300."""
    b = builder(("n", 8, 8, 8))
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
