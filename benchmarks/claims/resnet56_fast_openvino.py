"""The file that `compress` recommends for ResNet-56 at one point lost, for OpenVINO."""

from __future__ import annotations

from benchmarks.fast import Case, fast_claim, verify_fast
from benchmarks.harness import Claim, Options

CASE = Case(
    network="resnet56",
    title="ResNet-56",
    runtime="openvino",
    goals={"vnni": 9.0, "avx2": 3.5},
    minutes=75,
    epochs=12,
)


def run(options: Options) -> Claim:
    return fast_claim(options, CASE)


def verify(options: Options) -> Claim:
    return verify_fast(options, CASE)
