"""`evaluate` and `measure` of files for another CPU than this one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lilliput
from lilliput import cli
from lilliput.artifact import ArtifactMetadata
from lilliput.data.sources import load_data
from lilliput.errors import Refused
from lilliput.onnx_io import set_metadata
from lilliput.preprocessing import Preprocessing
from lilliput.tasks import task_of

SAID = ArtifactMetadata(
    task={"name": "classification"},
    preprocessing=Preprocessing(channels=1),
    precision="int8",
)


@pytest.fixture
def templates(tmp_path: Path) -> Callable[..., Path]:
    """Makes an int8 matrix of the digits' mean pictures, nearly all weights ±`largest`."""

    def build(largest: int) -> Path:
        train = load_data("digits", task=task_of("classification")).train
        pictures, labels = np.asarray(train.inputs, np.float32), np.asarray(train.targets)
        means = np.stack([pictures[labels == n].mean(0).reshape(-1) for n in range(10)])
        means -= means.mean(0)
        weights = np.clip(np.rint(means * 8), -largest, largest).astype(np.int8)
        values = {
            "scale": np.array(1 / 255, np.float32),
            "zero": np.array(0, np.uint8),
            "w": weights.T.copy(),
            "ws": np.array(0.01, np.float32),
            "wz": np.array(0, np.int8),
        }
        nodes = [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("QuantizeLinear", ["flat", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
            helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
            helper.make_node("MatMul", ["d", "wd"], ["scores"], name="head"),
        ]
        graph = helper.make_graph(
            nodes,
            "templates",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 8, 8])],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])],
            [numpy_helper.from_array(value, name) for name, value in values.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        set_metadata(model, SAID)
        path = tmp_path / f"templates-{largest}.onnx"
        onnx.save(model, str(path))
        return path

    return build


def test_an_old_cpu_is_told_beside_this_one(templates: Callable[..., Path]):
    # users-ask 12; the reference evaluator adds exactly, whatever CPU this is
    clipped = lilliput.evaluate(templates(127), data="digits", target="reference", old_cpu=True)
    assert clipped.metric.value > 60
    assert clipped.old_cpu is not None
    assert clipped.old_cpu.drop.value > 1
    lost = clipped.metric.value - clipped.old_cpu.metric.value
    assert clipped.old_cpu.drop.value == pytest.approx(lost)
    assert "as an x86 CPU without VNNI computes it: " in str(clipped)
    safe = lilliput.evaluate(templates(64), data="digits", target="reference", old_cpu=True)
    assert safe.old_cpu is not None
    assert safe.old_cpu.drop.conditions["changed"] == 0


def test_a_file_is_scored_on_the_test_split_of_its_own_run(templates: Callable[..., Path]):
    """Digits come as one heap: another seed's test split holds examples that it learnt from."""
    path, other = templates(64), templates(127)
    model = onnx.load(str(path))
    set_metadata(model, SAID.model_copy(update={"seed": 3}))
    onnx.save(model, str(path))

    def score(file: Path, seed: int | None = None) -> float:
        return lilliput.evaluate(file, data="digits", target="reference", seed=seed).metric.value

    assert score(path) == score(path, seed=3) != score(path, seed=0)
    assert score(other) == score(other, seed=0)
    against = lilliput.evaluate(other, data="digits", target="reference", against=path)
    (warned,) = against.warnings
    assert warned.startswith(f"{path}: made with seed 3 and scored on the test split of seed 0: ")
    assert not lilliput.evaluate(path, data="digits", target="reference", against=path).warnings


def test_few_examples_are_emulated_and_paired(
    templates: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr("lilliput.verbs.evaluate.OLD_CPU_EXAMPLES", 50)
    with pytest.raises(SystemExit) as left:
        cli.main(["evaluate", str(templates(64)), "--data", "digits", "--old-cpu", "--json"])
    assert left.value.code == 0
    told = json.loads(capsys.readouterr().out)["old_cpu"]
    assert told["metric"]["conditions"]["examples"] == 50
    assert told["drop"]["conditions"]["changed"] == 0


def test_a_file_without_int8_says_so(templates: Callable[..., Path]):
    path = templates(64)
    model = onnx.load(str(path))
    model.graph.node[3].CopyFrom(helper.make_node("Cast", ["w"], ["wd"], to=TensorProto.FLOAT))
    onnx.save(model, str(path))
    with pytest.raises(Refused, match=r"templates-64\.onnx has no int8 layer"):
        lilliput.evaluate(path, data="digits", old_cpu=True)


@pytest.mark.parametrize(
    ("recorded", "here", "scored", "timed"),
    [
        ((), "avx2", "", ""),
        (("avx2",), "avx2 fma", "", ""),
        (("vnni",), "avx2", "may clip", "may clip"),
        (("avx2", "avx_vnni"), "avx512f", "may clip", "may clip"),
        (("avx2",), "avx_vnni", "", "made for avx2; times taken here are of vnni"),
    ],
)
def test_a_record_of_another_class_of_cpu_is_a_warning(
    templates: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    recorded: tuple[str, ...],
    here: str,
    scored: str,
    timed: str,
):
    # users-ask 11
    path = templates(64)
    model = onnx.load(str(path))
    set_metadata(model, SAID.model_copy(update={"isa": recorded}))
    onnx.save(model, str(path))
    monkeypatch.setattr("lilliput.meter.host.cpu_flags", lambda: frozenset(here.split()))
    found = lilliput.evaluate(path, data="digits")
    assert len(found.warnings) == bool(scored)
    assert scored in str(found)
    measured = lilliput.measure(path, max_seconds=0.05)
    assert len(measured.warnings) == bool(timed)
    assert timed in str(measured)
