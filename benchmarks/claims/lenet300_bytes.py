"""LeNet-300-100 on MNIST in as few bytes as its accuracy allows: the whole file."""

from __future__ import annotations

from benchmarks.harness import Claim, Options
from benchmarks.smallest import Point, published, smallest_claim, verify_smallest

NETWORK = "lenet300"
POINTS = (
    Point(
        "sparse",
        (
            {
                "prune_weights": {
                    "density": 0.03,
                    "epochs": 24,
                    "floor": 0.3,
                    "small": 2_000,
                    "weight_decay": 1e-4,
                    "learning_rate": 0.05,
                    "settled": 0.5,
                }
            },
            {"share_weights": {"values": 8, "bias_values": 16, "epochs": 4}},
        ),
        max_bytes=13_300,
        max_error=1.64,
    ),
)
PUBLISHED = (published("Deep Compression", 27_000, 1.58),)


def run(options: Options) -> Claim:
    return smallest_claim(
        options,
        NETWORK,
        "LeNet-300-100 (266,610 parameters, 1,066,440 bytes in fp32) in one packed file: at least "
        "80 times smaller at 1.64 % error",
        POINTS,
        PUBLISHED,
    )


def verify(options: Options) -> Claim:
    return verify_smallest(options, NETWORK, POINTS)
