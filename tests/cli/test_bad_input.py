"""What users get wrong, and every word of what they are told: the thing, the place, the way out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from safetensors.torch import save_file

from lilliput.data.sources import load_data
from lilliput.preprocessing import Preprocessing
from lilliput.steps.distill import Distill
from lilliput.tasks import task_of

Call = Callable[..., tuple[int, str, str]]

NET = """
import torch
from torch import nn


def build():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10),
    )


class Broken(nn.Module):
    def forward(self, x):
        raise ValueError("labels went missing")


def broken():
    return Broken()
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network and its weights, and we are in it."""
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    save_file(weights(), "net.safetensors")
    return tmp_path


def weights() -> dict[str, torch.Tensor]:
    return {
        "0.weight": torch.ones(4, 1, 3, 3),
        "0.bias": torch.zeros(4),
        "1.weight": torch.ones(4),
        "1.bias": torch.zeros(4),
        "1.running_mean": torch.zeros(4),
        "1.running_var": torch.ones(4),
        "1.num_batches_tracked": torch.tensor(1),
        "5.weight": torch.ones(10, 4),
        "5.bias": torch.zeros(10),
    }


def pictures(folder: Path, mode: str = "L", count: int = 10) -> Path:
    """Noise of 8×8 pixels."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for n in range(count):
        bands = {"L": (8, 8), "RGB": (8, 8, 3), "RGBA": (8, 8, 4)}[mode]
        Image.fromarray(rng.integers(0, 255, bands, np.uint8), mode).save(folder / f"{n}.png")
    return folder


def refused(call: Call, *argv: object) -> str:
    """What is said on standard error; the exit code is that of a mistake."""
    code, out, err = call(*argv)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    return err


def compress(call: Call, *more: object, model: str = "net.py:build", data: str = "digits") -> str:
    return refused(call, "compress", model, "--data", data, "-q", *more)


def test_weights_that_are_not_there(lilliput_: Call) -> None:
    assert compress(lilliput_, "--weights", "gone.safetensors") == (
        "error: no weights at 'gone.safetensors'\n  → check the path\n"
    )


def test_weights_that_are_damaged(lilliput_: Call) -> None:
    Path("bad.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{garbage garbage")
    assert compress(lilliput_, "--weights", "bad.safetensors") == (
        "error: 'bad.safetensors' is not a safetensors file\n"
    )


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("made-by-a-pickle",)


def test_a_pickle_that_would_run_code_is_named_and_not_opened(lilliput_: Call) -> None:
    torch.save({"a": Evil()}, "evil.pt")
    said = compress(lilliput_, "--weights", "evil.pt")
    assert said.startswith(
        "error: 'evil.pt' is a pickle that would run code to make 'posix.mkdir'; it was not "
        "opened\n  → where you trust the file, convert it once: "
    )
    assert not Path("made-by-a-pickle").exists()


def test_weights_that_are_not_numbers(lilliput_: Call) -> None:
    save_file(weights() | {"0.weight": torch.full((4, 1, 3, 3), torch.nan)}, "nan.safetensors")
    assert compress(lilliput_, "--weights", "nan.safetensors") == (
        "error: nan.safetensors: weights that are not finite: 0.weight\n"
        "  → the training diverged; give an earlier checkpoint\n"
    )


def test_an_input_shape_that_the_network_does_not_take(lilliput_: Call) -> None:
    said = compress(lilliput_, "--weights", "net.safetensors", "--input-shape", "1,3,32,32")
    assert said.startswith(
        "error: the network does not run on input (1, 3, 32, 32): in layer '0' Given groups=1, "
        "weight of size [4, 1, 3, 3], expected input[1, 3, 32, 32] to have 1 channels, but got 3"
    )
    assert "\n  → give the shape it was trained on with --input-shape" in said


def test_a_forward_that_fails_says_its_own_words(lilliput_: Call) -> None:
    assert compress(lilliput_, model="net.py:broken").startswith(
        "error: the network does not run on x (1, 1, 8, 8): labels went missing\n  → "
    )


def test_a_picture_that_does_not_decode_is_named(lilliput_: Call) -> None:
    for name in "ab":
        pictures(Path("photos") / name)
    Path("photos/a/5.png").write_bytes(b"not a picture")
    assert compress(lilliput_, "--weights", "net.safetensors", data="photos") == (
        "error: photos/a/5.png: this picture cannot be decoded: cannot identify image file "
        "'photos/a/5.png'\n  → remove the file or replace it by a whole one\n"
    )


def test_a_budget_that_nothing_reaches(lilliput_: Call) -> None:
    # users-ask 35
    assert compress(lilliput_, "--weights", "net.safetensors", "--max-size", "1B") == (
        "error: the budget of 1 B is below the minimum of 201 B that this network can be cut to\n"
        "  → allow at least --max-size 201B, or start from a smaller network\n"
    )


RECIPE = """\
model: {factory: "net.py:biuld", weights: nets.safetensors}
data: digts
task: {name: clasification}
target: {runtime: onnxrutime, threads: zero}
budget: {max_dro: 1}
seed: abc
stages:
  - prune_chanels: {ratio: 2}
  - distill: {epochs: -3, lr: 1}
  - quantize: {weight_bits: 5}
"""

TEN = """\
error: 11 mistakes
  1. recipe.yaml:1: model.weights: no file at '{home}/nets.safetensors'
  → did you mean 'net.safetensors'?
  2. recipe.yaml:2: data.source: no data 'digts': not a folder, a file, a function or a set's name
  → did you mean 'digits'?
  3. recipe.yaml:3: task.name: no task 'clasification'
  → did you mean 'classification'?
  4. recipe.yaml:4: target.threads: 'zero' must be a whole number
  5. recipe.yaml:4: target.runtime: no runtime 'onnxrutime'
  → did you mean 'onnxruntime'?
  6. recipe.yaml:5: budget.max_dro: there is no such key
  → did you mean 'max_drop' or 'max_params' or 'max_macs'?
  7. recipe.yaml:6: seed: 'abc' must be a whole number
  8. recipe.yaml:8: stages[0].prune_chanels: there is no such stage
  → did you mean 'prune_channels' or 'prune_blocks' or 'prune_weights'?
  9. recipe.yaml:9: stages[1].distill.epochs: -3 must be at least 0
  10. recipe.yaml:9: stages[1].distill.lr: there is no such key
  → known: {settings}
  11. recipe.yaml:10: stages[2].quantize.weight_bits: 5 must be 7 or 8
"""


def test_ten_mistakes_are_said_at_once_with_their_lines(lilliput_: Call, home: Path) -> None:
    # users-ask 39
    Path("recipe.yaml").write_text(RECIPE)
    known = ", ".join(sorted(Distill.model_fields))
    assert refused(lilliput_, "check", "recipe.yaml") == TEN.format(home=home, settings=known)


def an_onnx_file(name: str, node: onnx.NodeProto, *weights: onnx.TensorProto) -> Path:
    """One node between a digit's picture and ten scores."""
    sides = [
        helper.make_tensor_value_info(side, TensorProto.FLOAT, shape)
        for side, shape in (("x", [1, 1, 8, 8]), ("y", [1, 10]))
    ]
    graph = helper.make_graph([node], "g", sides[:1], sides[1:], list(weights))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    Path(name).write_bytes(model.SerializeToString())
    return Path(name)


def test_a_file_that_points_out_of_its_folder_is_not_followed(lilliput_: Call) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[8, 10])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    an_onnx_file("escape.onnx", helper.make_node("MatMul", ["x", "w"], ["y"]), tensor)
    elsewhere = (
        "error: tensor 'w' of 'escape.onnx' lies in another file, and only self-contained ONNX "
        "files are read\n  → where you trust the file, make it one: "
    )
    for verb, *more in (["inspect"], ["evaluate", "--data", "digits"]):
        assert refused(lilliput_, verb, "escape.onnx", *more).startswith(elsewhere)
    assert compress(lilliput_, model="escape.onnx").startswith(elsewhere)
    for verb in ("measure", "explain"):
        said = refused(lilliput_, verb, "escape.onnx")
        assert "External data path escapes model directory" in said


def test_an_operator_that_the_runtime_does_not_have(lilliput_: Call) -> None:
    node = helper.make_node("Frobnicate", ["x"], ["y"], domain="my.own")
    an_onnx_file("odd.onnx", node)
    for verb in ("measure", "explain"):
        said = refused(lilliput_, verb, "odd.onnx")
        assert said.startswith("error: odd.onnx: onnxruntime cannot load 'odd.onnx': ")
        assert "my.own:Frobnicate(-1) is not a registered function/op" in said


def test_a_file_that_is_no_onnx_at_all(lilliput_: Call) -> None:
    Path("junk.onnx").write_bytes(b"junk" * 10)
    assert refused(lilliput_, "inspect", "junk.onnx").startswith(
        "error: 'junk.onnx' is not an ONNX model ("
    )
    for verb in ("measure", "explain"):
        assert "Protobuf parsing failed" in refused(lilliput_, verb, "junk.onnx")


def test_labels_that_are_needed_and_not_there(lilliput_: Call) -> None:
    flatten = helper.make_node("Flatten", ["x"], ["y"])
    an_onnx_file("flat.onnx", flatten)
    pictures(Path("photos"))
    said = refused(
        lilliput_,
        "evaluate",
        "flat.onnx",
        "--data",
        "photos",
        "--task",
        "classification",
        "--scale",
        "1/255",
        "--mean",
        "0",
        "--std",
        "1",
    )
    assert said == (
        "error: the examples have no truth to score against\n"
        "  → give labelled examples, or compare the file with the original instead\n"
    )


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_grey_and_transparent_pictures_are_brought_to_what_the_network_takes(mode: str) -> None:
    for name in "ab":
        pictures(Path("photos") / name, mode)
    form = Preprocessing(size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    found = load_data("photos", task=task_of("classification"), preprocessing=form)
    assert np.shape(found.train.inputs)[1:] == (8, 8, 3)
