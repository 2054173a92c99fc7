"""What `lenet5-bytes` and `lenet300-bytes` share: a recipe's stages, the packed file, its bill.

Every stage works as in a recipe. What a seed's chain came to is kept, so that an interrupted claim
goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks.harness import Claim, CommittedFile, Options, Peer, Row
from benchmarks.lenets import error, lenet_context
from lilliput.candidate import Candidate
from lilliput.export.onnx_file import export_network
from lilliput.network import Network
from lilliput.steps.base import STAGES, Step
from lilliput.verbs.pack import pack

FP32 = "fp32 file, packed"
SMOKE = {"epochs": 1}

Stages = Sequence[Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Point:
    """Stages of a recipe, and the limits that the packed file of every seed should keep."""

    name: str
    stages: Stages
    max_bytes: int
    max_error: float


@dataclass(frozen=True)
class Made:
    """A seed's packed file, its error on MNIST's test pictures in per cent, and its history.

    `sizes` are bytes of the packed file after each stage, `left` the weights that are not zero.
    """

    path: Path
    error: float
    sizes: dict[str, int]
    left: dict[str, int]
    parts: dict[str, int]


def smallest_claim(
    options: Options, network: str, says: str, points: Sequence[Point], published: Sequence[Peer]
) -> Claim:
    """All points with all seeds; sizes are of the largest file, errors mean, least and largest."""
    torch.set_num_threads(1)
    seeds = options.seeds[:1] if options.smoke else options.seeds
    rows: list[Row] = []
    files: dict[str, CommittedFile] = {}
    for point in points[:1] if options.smoke else points:
        made = {seed: packed(options, network, point, seed) for seed in seeds}
        rows += rows_of(point, list(made.values()), raw_bytes(network))
        for seed, one in made.items():
            name = f"{options.name}-{point.name}-{seed}.lil".replace(" ", "-")
            files[f"{point.name}, seed {seed}"] = options.commit(one.path, name)
    return Claim(says=says, rows=tuple(rows), peers=tuple(published), files=files)


def verify_smallest(options: Options, network: str, points: Sequence[Point]) -> Claim:
    """Score the committed files again."""
    rows = []
    for point in points:
        paths = [options.committed(f"{point.name}, seed {seed}") for seed in options.seeds]
        made = [Made(path, error(path), {}, {}, {}) for path in paths]
        rows += rows_of(point, made, raw_bytes(network))
    return Claim(says="the committed files, scored again", rows=tuple(rows))


def raw_bytes(network: str) -> int:
    """All parameters in fp32, as the literature counts a network."""
    return {"lenet5": 1_724_320, "lenet300": 1_066_440}[network]


def packed(options: Options, network: str, point: Point, seed: int) -> Made:
    """The chain of one seed, or what an earlier run made of it."""
    folder = options.work / f"{network}-{seed}"
    path = folder / f"{point.name}.lil".replace(" ", "-")
    note = path.with_suffix(".json")
    if not note.is_file():
        sizes, left, parts = _chain(options, network, point, seed, path)
        note.write_text(json.dumps({"sizes": sizes, "left": left, "parts": parts}))
    told = json.loads(note.read_text())
    made = Made(path, error(path), **told)
    size = path.stat().st_size
    options.log(f"{point.name}, seed {seed}: {size} bytes, {made.error:.2f} % wrong")
    return made


def _chain(
    options: Options, network: str, point: Point, seed: int, path: Path
) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    context = lenet_context(options, network, seed=seed)
    candidate = context.original
    sizes, left = {FP32: _size(candidate.the_network(), path)}, {}
    for number, stage in enumerate(point.stages):
        step = _step(stage, smoke=options.smoke)
        named = Candidate(f"{point.name} {number}", network=candidate.the_network())
        candidate = step.apply(named, context)
        label = f"after {number + 1}, {step.name}"
        sizes[label] = _size(candidate.the_network(), path)
        left[label] = _left(candidate.the_network())
        options.log(f"  {label}: {sizes[label]} bytes, {left[label]} weights")
    return sizes, left, pack(path.with_suffix(".onnx"), out=path).bill.parts


def _step(stage: Mapping[str, Mapping[str, Any]], *, smoke: bool) -> Step:
    ((name, settings),) = stage.items()
    short = SMOKE if smoke and "epochs" in settings else {}
    made = STAGES[name].model_validate({**settings, **short})
    assert isinstance(made, Step)
    return made


def _size(network: Network, path: Path) -> int:
    return pack(export_network(network, path.with_suffix(".onnx")).path, out=path).bytes


def _left(network: Network) -> int:
    return sum(int((p != 0).sum()) for p in network.module.parameters())


def rows_of(point: Point, made: Sequence[Made], raw: int) -> list[Row]:
    """The point's figures, then what each stage left of the bytes and where the rest lies."""
    bytes_ = [one.path.stat().st_size for one in made]
    errors = [one.error for one in made]
    count = len(made)
    rows = [
        Row(
            name=f"{point.name}: bytes, the largest of the seeds",
            figure=max(bytes_),
            interval=(min(bytes_), max(bytes_)),
            unit="B",
            goal=f"<= {point.max_bytes}",
            seeds=count,
        ),
        Row(
            name=f"{point.name}: test error",
            figure=round(mean(errors), 3),
            interval=(min(errors), max(errors)),
            unit="%",
            goal=f"<= {point.max_error}",
            seeds=count,
            note="mean, least and largest; from the packed files",
        ),
        Row(name=f"{point.name}: times smaller", figure=round(raw / max(bytes_), 1), unit="×"),
    ]
    for label in made[0].sizes:
        left = [one.left[label] for one in made if label in one.left]
        rows.append(
            Row(
                name=f"{point.name}: {label}",
                figure=round(mean(one.sizes[label] for one in made)),
                unit="B",
                note=f"{round(mean(left))} weights left" if left else None,
            )
        )
    for part in made[0].parts:
        size = round(mean(one.parts.get(part, 0) for one in made))
        rows.append(Row(name=f"{point.name}: {part} in the file", figure=size, unit="B"))
    return rows


def published(name: str, size: int, error: float, note: str | None = None) -> Peer:
    """A figure from the literature, as it stands there."""
    return Peer(
        name=f"{name} (published)",
        rows=(
            Row(name="bytes", figure=size, unit="B", note=note),
            Row(name="test error", figure=error, unit="%"),
        ),
    )
