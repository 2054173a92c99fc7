"""How fast packing and unpacking are on one core, and what memory unpacking takes."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness import Claim, Options, Row
from benchmarks.lil import cases
from lilliput.codec.container import decode, encode

MEGABYTE = 1e6
REPEATS = 7
MEASURE = """
import re, sys
from pathlib import Path
from lilliput.codec.container import decode
# Of this process only: what getrusage tells begins with the peak of the one that started it.
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
with Path(sys.argv[1]).open("rb") as packed:
    content = decode(packed)
print((peak() - before) / len(content))
"""
SMALL = "a file of less than a few MB is mostly numpy's calls, some microseconds each"
SYMBOLS = "the range decoder alone takes 30 ns a symbol, and a symbol of int8 is one byte"


def run(options: Options) -> Claim:
    timed = {case.name: Speed.of(case.path.read_bytes(), options) for case in cases(options)}
    rows = [row for name, speed in timed.items() for row in speed.rows(name)]
    rows += sum(timed.values(), Speed()).rows("these files together", judged=True, limits=SMALL)
    for kind in ("float32", "int8"):
        content = large_file(kind, layers=2 if options.smoke else 16)
        name = f"{kind} network of {len(content) / MEGABYTE:.0f} MB"
        options.log(name)
        rows += Speed.of(content, options).rows(name, judged=True, limits=SYMBOLS)
        rows.append(
            Row(
                name=f"{name}: peak memory of unpacking",
                figure=round(peak(content, options.work), 2),
                unit="times the model",
                goal=None if options.smoke else "<= 2",
                note="what a process of its own grows by",
            )
        )
    return Claim(
        says="On one core a .lil file is unpacked at 20 MB of weights a second and packed at 5 MB "
        "a second, in less than twice the memory of the model",
        rows=tuple(rows),
    )


@dataclass(frozen=True)
class Speed:
    """Bytes of ONNX files, and the seconds that they take on one core."""

    size: int = 0
    unpacking: float = 0.0
    packing: float = 0.0

    @classmethod
    def of(cls, content: bytes, options: Options) -> Speed:
        repeats = 2 if options.smoke else REPEATS
        packed, _ = encode(content)
        return cls(
            len(content),
            seconds(lambda: decode(packed), repeats),
            seconds(lambda: encode(content), max(2, repeats // 2)),
        )

    def __add__(self, other: Speed) -> Speed:
        return Speed(
            self.size + other.size,
            self.unpacking + other.unpacking,
            self.packing + other.packing,
        )

    def rows(self, name: str, *, judged: bool = False, limits: str | None = None) -> list[Row]:
        goals = {"unpacked": (self.unpacking, 20.0), "packed": (self.packing, 5.0)}
        found = []
        for verb, (spent, goal) in goals.items():
            rate = round(self.size / MEGABYTE / spent, 1)
            found.append(
                Row(
                    name=f"{name}: {verb}",
                    figure=rate,
                    unit="MB/s",
                    goal=f">= {goal:g}" if judged else None,
                    limits=limits if rate < goal else None,
                )
            )
        return found


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median over the repeats, after one that warms up; the process keeps to one core."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(everywhere)})
    try:
        found = []
        for _ in range(repeats + 1):
            began = time.perf_counter()
            work()
            found.append(time.perf_counter() - began)
    finally:
        os.sched_setaffinity(0, everywhere)
    return statistics.median(found[1:])


def large_file(kind: str, layers: int) -> bytes:
    """Convolutions with weights as trained ones have them: channels of unlike size."""
    rng = np.random.default_rng(0)
    tensors = []
    for number in range(layers):
        size = np.exp(0.4 * rng.standard_normal((256, 256, 1, 1))[:, :1])
        weights = (0.05 * size * rng.standard_normal((256, 256, 3, 3))).astype(np.float32)
        if kind == "int8":
            weights = np.rint(127 * weights / np.abs(weights).max((1, 2, 3), keepdims=True))
        tensors.append(numpy_helper.from_array(weights.astype(kind), f"layer{number}.weight"))
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    node = helper.make_node("Identity", ["x"], ["y"])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    model: onnx.ModelProto = helper.make_model(
        helper.make_graph([node], "large", [value], [out], tensors)
    )
    return model.SerializeToString()


def peak(content: bytes, folder: Path) -> float:
    """Growth of a fresh process that unpacks, in lengths of the model."""
    path = folder / "large.lil"
    path.write_bytes(encode(content)[0])
    command = [sys.executable, "-c", MEASURE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)
