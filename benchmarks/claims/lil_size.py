"""How small a `.lil` file is beside what else could be done with the ONNX file."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Claim, Options, Peer, Row
from benchmarks.lil import (
    COMPRESSORS,
    FEW,
    ORDINARY,
    RATED,
    Case,
    cases,
    general_compressors,
    integer_weights,
    nncodec_bytes,
    nncodec_python,
)
from lilliput.codec.container import decode, encode

GOALS = {ORDINARY: ">= 2", RATED: ">= 2", **dict.fromkeys(FEW, ">= 10"), "fp32": ">= 0"}
NNCODEC = "NNCodec 2.1.3, exact"


def run(options: Options) -> Claim:
    tools = general_compressors(needed=() if options.smoke else COMPRESSORS)
    python = nncodec_python(create=not options.smoke)
    rows: list[Row] = []
    peers: dict[str, list[Row]] = {name: [] for name in (*tools, NNCODEC)}
    for case in cases(options):
        options.log(case.name)
        content = case.path.read_bytes()
        packed, bill = encode(content)
        if decode(packed) != content:
            raise AssertionError(f"{case.name} does not come back")
        sizes = {name: size(content) for name, size in tools.items()}
        for name, size in sizes.items():
            peers[name].append(Row(name=case.name, figure=size, unit="B"))
        best = min(sizes, key=lambda name: sizes[name])
        rows += [
            Row(name=f"{case.name}: packed", figure=len(packed), unit="B", note=_of(len(content))),
            Row(
                name=f"{case.name}: smaller than {best}",
                figure=round(100 * (1 - len(packed) / sizes[best]), 2),
                unit="%",
                goal=GOALS[case.kind],
            ),
        ]
        if case.kind in (ORDINARY, RATED, "4-bit", "sparse int8"):
            rows += _weights_alone(case, {e.name: e.bytes for e in bill.entries})
            if python is not None:
                theirs = nncodec_bytes(python, integer_weights(case.path), options.work)
                peers[NNCODEC].append(Row(name=case.name, figure=theirs, unit="B"))
                ours = rows[-2].figure
                assert ours is not None
                rows.append(
                    Row(
                        name=f"{case.name}: weights, smaller than {NNCODEC}",
                        figure=round(100 * (1 - ours / theirs), 2),
                        unit="%",
                        goal=">= 0",
                    )
                )
    return Claim(
        says="A .lil file is smaller than what any general compressor makes of the ONNX file, by "
        "2 % on ordinary int8 and by 10 % on pruned, clustered and low-bit weights, and its "
        "integer weights are smaller than NNCodec's, bit for bit",
        rows=tuple(rows),
        peers=tuple(Peer(name=name, rows=tuple(held)) for name, held in peers.items() if held),
    )


def _of(size: int) -> str:
    return f"of {size} B"


def _weights_alone(case: Case, sizes: dict[str, int]) -> list[Row]:
    """The integer weights' share of the file, and how far that is from their entropy."""
    weights = integer_weights(case.path)
    ours = sum(sizes[name] for name in weights)
    entropy = sum(adaptive_bytes(tensor.ravel()) for tensor in weights.values())
    return [
        Row(name=f"{case.name}: weights alone", figure=ours, unit="B"),
        Row(
            name=f"{case.name}: weights, smaller than their adaptive entropy",
            figure=round(100 * (1 - ours / entropy), 2),
            unit="%",
            note="order 0, each tensor by itself, counts beginning with 1/2",
        ),
    ]


def adaptive_bytes(values: NDArray[np.generic]) -> float:
    """What an ideal coder that only counts would take (Krichevsky and Trofimov)."""
    from math import lgamma, log

    levels = int(values.max()) - int(values.min()) + 1
    counts = Counter(values.tolist()).values()
    total = sum(counts)
    nats = lgamma(total + levels / 2) - lgamma(levels / 2)
    nats -= sum(lgamma(count + 0.5) - lgamma(0.5) for count in counts)
    return nats / log(2) / 8
