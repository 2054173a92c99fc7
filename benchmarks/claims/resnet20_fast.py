"""The file that `compress` recommends for ResNet-20 at one point lost, for ONNX Runtime."""

from __future__ import annotations

from benchmarks.fast import fast_claim
from benchmarks.harness import Claim, Options

GOALS = {"vnni": 2.7, "avx2": 2.2}


def run(options: Options) -> Claim:
    return fast_claim(
        options,
        network="resnet20",
        title="ResNet-20",
        runtime="onnxruntime",
        goals=GOALS,
        minutes=45,
    )
