"""What a user takes home of ResNet-20: its int8 file, packed."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness import Claim, Options, Row
from benchmarks.int8 import CASES, prepared, quantized
from benchmarks.resnets import whole_test_drop
from lilliput.artifact import Artifact
from lilliput.context import Context
from lilliput.target import Target
from lilliput.verbs.pack import pack

NETWORK = "ResNet-20"
RATE = 3.0
"""Bits a weight."""
TEN_TIMES = ">= 10"
MAX_DROP = 1.0


def run(options: Options) -> Claim:
    context = _context(options)
    ordinary = packed(context, None)
    ours = packed(context, RATE)
    original = context.original.the_artifact()
    return Claim(
        says=f"ResNet-20 in int8 at {RATE:g} bits a weight, packed, is ten times smaller than the "
        "float file of the original; scored from the packed file",
        rows=(
            *rows_of(ours, context),
            Row(
                name="times smaller, int8 without a rate",
                figure=round(original.bytes / ordinary.stat().st_size, 2),
                unit="×",
                note=f"{ordinary.stat().st_size} bytes",
            ),
        ),
        files={"packed": options.commit(ours, "resnet20.lil")},
    )


def verify(options: Options) -> Claim:
    """Score the committed file again."""
    rows = rows_of(options.committed("packed"), _context(options))
    return Claim(says="the committed file, scored again", rows=rows)


def _context(options: Options) -> Context:
    return prepared(next(case for case in CASES if case.name == NETWORK), options)


def packed(context: Context, rate: float | None) -> Path:
    """The int8 file as `lilliput pack` leaves it."""
    plain = quantized(context, rate)
    return pack(plain, out=plain.with_suffix(".lil")).path


def rows_of(path: Path, context: Context) -> tuple[Row, ...]:
    original = context.original.the_artifact()
    size = path.stat().st_size
    return (
        Row(
            name="times smaller than the float file",
            figure=round(original.bytes / size, 2),
            unit="×",
            goal=TEN_TIMES,
            note=f"{size} of {original.bytes} bytes",
        ),
        Row.of(
            "points lost, whole test split",
            whole_test_drop(Artifact.of(path), original, Target()),
            goal=f"<= {MAX_DROP}",
        ),
    )
