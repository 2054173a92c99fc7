"""LeNet-5 on MNIST in as few bytes as its accuracy allows: the whole file, graph included."""

from __future__ import annotations

from benchmarks.harness import Claim, Options
from benchmarks.smallest import Point, published, smallest_claim, verify_smallest

NETWORK = "lenet5"
NARROW = (
    {"prune_channels": {"max_params": 40_000, "normalise": "mean", "multiple_of": 1}},
    {"distill": {"epochs": 8, "learning_rate": 0.05}},
)
SPARSE = {
    "floor": 0.3,
    "small": 600,
    "weight_decay": 1e-4,
    "learning_rate": 0.05,
    "settled": 0.5,
}
POINTS = (
    Point(
        "accurate",
        (
            *NARROW,
            {"prune_weights": {**SPARSE, "density": 0.065, "epochs": 16}},
            {"share_weights": {"values": 8, "bias_values": 8, "epochs": 4}},
        ),
        max_bytes=8_600,
        max_error=0.80,
    ),
    Point(
        "small",
        (
            *NARROW,
            {"prune_weights": {**SPARSE, "density": 0.04, "epochs": 18}},
            {"share_weights": {"values": 6, "bias_values": 8, "epochs": 4}},
        ),
        max_bytes=4_300,
        max_error=1.0,
    ),
)
PUBLISHED = (
    published("Deep Compression", 44_000, 0.74),
    published("random-code learning, small", 3_000, 0.69, "weights only, without biases and graph"),
    published("random-code learning, least", 1_500, 0.96, "weights only, without biases and graph"),
)


def run(options: Options) -> Claim:
    return smallest_claim(
        options,
        NETWORK,
        "LeNet-5 (431,080 parameters, 1,724,320 bytes in fp32) in one packed file: "
        "at least 200 times smaller at 0.80 % error, at least 400 times at 1.0 %",
        POINTS,
        PUBLISHED,
    )


def verify(options: Options) -> Claim:
    return verify_smallest(options, NETWORK, POINTS)
