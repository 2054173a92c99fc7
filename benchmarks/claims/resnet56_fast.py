"""The file that `compress` recommends for ResNet-56 at one point lost, for ONNX Runtime."""

from __future__ import annotations

from benchmarks.fast import fast_claim
from benchmarks.harness import Claim, Options

GOALS = {"vnni": 4.0, "avx2": 3.0}


def run(options: Options) -> Claim:
    return fast_claim(
        options,
        network="resnet56",
        title="ResNet-56",
        runtime="onnxruntime",
        goals=GOALS,
        minutes=90,
    )
