"""The file that `compress` recommends for ResNet-56 at one point lost, for OpenVINO."""

from __future__ import annotations

from benchmarks.fast import fast_claim
from benchmarks.harness import Claim, Options

GOALS = {"vnni": 9.0, "avx2": 3.5}


def run(options: Options) -> Claim:
    return fast_claim(
        options,
        network="resnet56",
        title="ResNet-56",
        runtime="openvino",
        goals=GOALS,
        minutes=90,
    )
