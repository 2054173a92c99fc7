"""A finished run on disk, and small ONNX files, for the command line to talk about."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lilliput import cli
from lilliput.artifact import Artifact
from lilliput.budget import Budget
from lilliput.candidate import Candidate
from lilliput.measurement import Measurement
from lilliput.recipe import Recipe
from lilliput.runs.folder import RunFolder
from lilliput.runs.record import candidate_to_json
from lilliput.runs.result import RunResult


def a_recipe(model: str = "net.onnx", **settings: Any) -> Recipe:
    plain = {"model": model, "data": "digits", "task": "classification", "stages": []}
    return Recipe.model_validate(plain | settings)


def candidate(folder: Path, name: str, ratio: float, drop: float) -> Candidate:
    path = folder / f"{name}.bin"
    path.write_bytes(b"x" * int(1000 * ratio))
    told = {"verdict": "tie" if ratio == 1 else "faster"}
    figures = {"latency": 3 * ratio, "ratio": ratio, "metric": 90.0 - drop, "drop": drop}
    made = Candidate(id=name, artifact=Artifact.of(path), parent="original", stage="quantize")
    return made.measured(
        Measurement(quantity="bytes", value=path.stat().st_size, unit="B"),
        *(
            Measurement(
                quantity=quantity,
                value=value,
                unit="",
                interval=(value - 0.01, value + 0.01),
                conditions=told,
            )
            for quantity, value in figures.items()
        ),
    )


def fill(run: RunFolder) -> RunResult:
    """What a pipeline would leave in the folder."""
    files = [candidate(run.files, "original", 1.0, 0.0), candidate(run.files, "fast", 0.5, 0.4)]
    stored = [candidate_to_json(c, c.the_artifact().path, run.path) for c in files]
    run.journal.note("measured", candidates=stored)
    run.deliver(files[1].the_artifact())
    run.journal.note("finished", best="fast")
    return RunResult.of(run)


@pytest.fixture
def finished(tmp_path: Path) -> Callable[..., RunResult]:
    """Makes a finished run of two files under the given budget."""

    def build(name: str = "run", **limits: float) -> RunResult:
        recipe = a_recipe(budget=Budget.model_validate(limits))
        with RunFolder.create(tmp_path / name, recipe) as run:
            return fill(run)

    return build


@pytest.fixture
def digits_file(tmp_path: Path) -> Callable[..., Path]:
    """Makes a linear classifier of flattened 8×8 pictures with random weights."""

    def build(name: str = "digits.onnx", *, seed: int = 0, hidden: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        sizes = [64, *([hidden] * 2 if hidden else []), 10]
        weights = [
            numpy_helper.from_array(
                (rng.standard_normal((a, b)) / a**0.5).astype(np.float32), f"w{n}"
            )
            for n, (a, b) in enumerate(itertools.pairwise(sizes))
        ]
        nodes = [helper.make_node("Flatten", ["image"], ["h0"])]
        nodes += [
            helper.make_node("MatMul", [f"h{n}", f"w{n}"], [f"h{n + 1}"], name=f"layer{n}")
            for n in range(len(weights))
        ]
        graph = helper.make_graph(
            nodes,
            "digits",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 8, 8])],
            [helper.make_tensor_value_info(f"h{len(weights)}", TensorProto.FLOAT, ["n", 10])],
            weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, str(tmp_path / name))
        return tmp_path / name

    return build


@pytest.fixture
def lilliput_(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line: exit code, standard output, standard error."""

    def call(*argv: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main([str(arg) for arg in argv])
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return call
