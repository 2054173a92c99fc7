"""The file that `compress` recommends for ResNet-56 at one point lost, by target."""

from __future__ import annotations

from benchmarks.fast import fast_claim
from benchmarks.harness import Claim, Options

GOALS = {
    "onnxruntime": {"vnni": 4.0, "avx2": 3.0},
    "openvino": {"vnni": 9.0, "avx2": 3.5},
}


def run(options: Options) -> Claim:
    return fast_claim(options, network="resnet56", title="ResNet-56", goals=GOALS, minutes=90)
