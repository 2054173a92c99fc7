"""The file that `compress` recommends for ResNet-20 at one point lost, for ONNX Runtime."""

from __future__ import annotations

from benchmarks.fast import Case, fast_claim, verify_fast
from benchmarks.harness import Claim, Options

CASE = Case(
    network="resnet20",
    title="ResNet-20",
    runtime="onnxruntime",
    goals={"vnni": 2.7, "avx2": 2.2},
    minutes=80,
    epochs=30,
    limits={
        "avx2": "the file was chosen by its time on a CPU with VNNI, where int8 gains more; an "
        "AVX2 machine has only timed it"
    },
)


def run(options: Options) -> Claim:
    return fast_claim(options, CASE)


def verify(options: Options) -> Claim:
    return verify_fast(options, CASE)
