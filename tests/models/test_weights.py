"""Weights come from files that cannot run code; what does not fit is listed at once."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lilliput.errors import LilliputError, Mistakes, Refused
from lilliput.models.weights import load_weights, read_weights


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        OrderedDict(conv1=nn.Conv2d(3, 4, 3), bn1=nn.BatchNorm2d(4), fc=nn.Linear(4, 2))
    )


def fresh() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(
        OrderedDict(conv1=nn.Conv2d(3, 4, 3), bn1=nn.BatchNorm2d(4), fc=nn.Linear(4, 2))
    )


def same(a: nn.Module, b: nn.Module) -> bool:
    other = b.state_dict()
    return all(torch.equal(v, other[k]) for k, v in a.state_dict().items())


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


SHAPES_OF_CHECKPOINTS: dict[str, Any] = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"epoch": 3, "state_dict": s, "optimizer": {"state": {0: {"m": s}}}},
    "model": lambda s: {"model": s, "args": {"lr": 0.1}},
    "deep": lambda s: {"checkpoint": {"weights": {"params": s}}},
    "module.": lambda s: prefixed("module.", s),
    "_orig_mod.": lambda s: prefixed("_orig_mod.", s),
    "module._orig_mod.": lambda s: prefixed("module._orig_mod.", s),
    "_orig_mod in the middle": lambda s: {
        n.replace("conv1.", "conv1._orig_mod."): t for n, t in s.items()
    },
    "backbone.": lambda s: {"model_state_dict": prefixed("backbone.", s)},
    "no counters": lambda s: {n: t for n, t in s.items() if "num_batches" not in n},
}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize("shape", SHAPES_OF_CHECKPOINTS)
def test_whatever_the_training_script_put_around_them(
    shape: str, suffix: str, tmp_path: Path
) -> None:
    source, module = net(), fresh()
    content = SHAPES_OF_CHECKPOINTS[shape](source.state_dict())
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        if not all(isinstance(v, Tensor) for v in content.values()):
            pytest.skip("safetensors hold named tensors alone")
        save_file(content, path)
    else:
        torch.save(content, path)
    notes = load_weights(module, read_weights(path), str(path))
    assert same(source, module)
    assert bool(notes) == (shape not in ("plain", "state_dict", "model", "deep", "no counters"))


def test_half_precision_is_cast_and_said(tmp_path: Path) -> None:
    source, module = net(), fresh()
    half = {k: v.half() if v.is_floating_point() else v for k, v in source.state_dict().items()}
    save_file(half, tmp_path / "w.safetensors")
    notes = load_weights(module, read_weights(tmp_path / "w.safetensors"), "w")
    assert notes == ("weights were cast: float16→float32",)
    assert module.conv1.weight.dtype == torch.float32
    assert torch.equal(module.conv1.weight, source.conv1.weight.half().float())


def test_all_mismatches_at_once_with_the_nearest_names() -> None:
    module = net()
    state = dict(module.state_dict())
    state["conv_1.weight"] = state.pop("conv1.weight")
    state["fc.weight"] = torch.zeros(3, 4)
    state["extra.bias"] = torch.zeros(1)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(Mistakes) as caught:
        load_weights(module, state, "net.safetensors")
    text = str(caught.value)
    assert text.startswith("net.safetensors: 4 mistakes")
    assert "'conv1.weight' is missing from the file" in text
    assert "the file has others: did you mean 'conv_1.weight'?" in text
    assert "'conv_1.weight' in the file belongs to no layer of the model" in text
    assert "did you mean 'conv1.weight'?" in text
    assert "'fc.weight' has shape (3, 4) in the file, (2, 4) in the model" in text
    assert "'extra.bias' in the file belongs to no layer" in text
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())


def test_hundreds_of_mismatches_are_shortened() -> None:
    state = {f"layer{n}.weight": torch.zeros(1) for n in range(100)}
    with pytest.raises(Mistakes, match=r"\.\.\. and \d+ more of the kind"):
        load_weights(net(), state, "other.pt")


def test_tied_weights_may_be_stored_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
            self.b.weight = self.a.weight

    module, wanted = Tied(), torch.ones(2, 2)
    load_weights(module, {"a.weight": wanted}, "w")
    assert torch.equal(module.b.weight, wanted)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", ["zip", "legacy", "bare pickle"])
def test_a_pickle_that_runs_code_never_runs(protocol: str, tmp_path: Path) -> None:
    """users-ask 20: no unsafe pickle."""
    mark, path = tmp_path / "was_here", tmp_path / "evil.pt"
    content = {"state_dict": {"a": torch.zeros(1)}, "payload": Bomb(mark)}
    if protocol == "bare pickle":
        path.write_bytes(pickle.dumps(content["payload"]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=protocol == "zip")
    with pytest.raises(Refused, match=r"(?s)evil\.pt'.*(run code|not a torch file)"):
        read_weights(path)
    assert not mark.exists()


def test_a_pickled_module_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    torch.save(net(), tmp_path / "whole.pth")
    with pytest.raises(
        Refused, match=r"(?s)would run code to make 'torch\.nn.*safetensors.*'whole\.safetensors'"
    ):
        read_weights(tmp_path / "whole.pth")


def test_a_torchscript_program_is_told_apart(tmp_path: Path) -> None:
    torch.jit.script(nn.ReLU()).save(str(tmp_path / "script.pt"))
    with pytest.raises(Refused, match="is a TorchScript program"):
        read_weights(tmp_path / "script.pt")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = net().state_dict()
    state["fc.bias"][1] = float("nan")
    state["conv1.weight"][0, 0, 0, 0] = float("inf")
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(Refused, match=r"not finite: conv1\.weight, fc\.bias\n.*diverged"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, r"no state dict in .*: keys \['epoch'\]"),
        ([1, 2], "no state dict in .*: no mapping"),
        ({"a": {"x": torch.zeros(1)}, "b": {"y": torch.zeros(1)}}, "no state dict in"),
    ],
)
def test_files_without_weights(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(LilliputError, match=message):
        read_weights(tmp_path / "w.pt")


def test_files_that_are_something_else(tmp_path: Path) -> None:
    for name in ("w.safetensors", "w.pt", "w.h5"):
        (tmp_path / name).write_bytes(b"not weights")
    with pytest.raises(Refused, match="is not a safetensors file"):
        read_weights(tmp_path / "w.safetensors")
    with pytest.raises(Refused, match=r"is not a torch file|would run code"):
        read_weights(tmp_path / "w.pt")
    with pytest.raises(Refused, match=r"'w\.h5' is no weights file"):
        read_weights(tmp_path / "w.h5")
    with pytest.raises(LilliputError, match="no weights at"):
        read_weights(tmp_path / "none.pt")


def test_layers_that_wait_for_their_input_take_the_shapes_of_the_file() -> None:
    lazy = nn.Sequential(
        OrderedDict(conv1=nn.LazyConv2d(4, 3), bn1=nn.LazyBatchNorm2d(), fc=nn.LazyLinear(2))
    )
    assert load_weights(lazy, net().state_dict(), "net") == ()
    assert same(lazy, net())
    with pytest.raises(Mistakes, match=r"'fc\.bias' is missing"):
        load_weights(
            nn.Sequential(OrderedDict(fc=nn.LazyLinear(2))), {"fc.weight": torch.ones(2, 4)}, "net"
        )
