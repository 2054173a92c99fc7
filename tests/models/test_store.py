"""A network on disk: plain weights, no code, rebuilt bit for bit from its class."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lilliput.artifact import TensorSpec
from lilliput.errors import LilliputError, Mistakes, Refused
from lilliput.models.source import network_of
from lilliput.models.store import is_saved, load, load_saved, read_header, save_network
from lilliput.network import Network
from lilliput.preprocessing import Preprocessing
from lilliput.prune.edits import replay

CODE = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(),
                         nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 2))
"""
CUT = {
    "edit": "cut_channels",
    "removed": [
        {"tensor": name, "dim": dim, "of": 6, "indices": [1, 4]}
        for name, dim in [
            ("0.weight", 0),
            ("0.bias", 0),
            ("1.weight", 0),
            ("1.bias", 0),
            ("1.running_mean", 0),
            ("1.running_var", 0),
            ("3.weight", 1),
        ]
    ],
}


def build() -> nn.Module:
    scope: dict[str, object] = {}
    exec(CODE, scope)
    torch.manual_seed(0)
    return scope["build"]()  # type: ignore[operator]


def pruned() -> Network:
    torch.manual_seed(7)
    module = replay(build(), [CUT]).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    spec = TensorSpec(name="x", shape=(None, 3, 8, 8))
    return Network(module, (spec,), "small", Preprocessing(mean=(0.5,)), (CUT,))


def out(network: Network) -> Tensor:
    with torch.no_grad():
        return network.module(*network.example(3))


def test_a_pruned_network_comes_back_whole(tmp_path: Path) -> None:
    """users-ask 20: pruned models load back."""
    network = pruned()
    path = save_network(network, tmp_path / "net.safetensors")
    again = load_saved(path, build())
    assert (again.name, again.inputs) == (network.name, network.inputs)
    assert again.preprocessing == network.preprocessing
    assert list(again.edits) == [CUT]
    assert torch.equal(out(again), out(network))
    assert not again.module.training
    assert torch.equal(out(load(path, build)), out(network))
    assert torch.equal(out(load(str(path), build())), out(network))
    assert torch.equal(out(load(path, lambda: nn.DataParallel(build()))), out(network))


def test_it_opens_in_a_fresh_process_with_the_file_and_the_factory_alone(tmp_path: Path) -> None:
    """users-ask 20: no pickle, no project import beside the factory."""
    network = pruned()
    save_network(network, tmp_path / "net.safetensors")
    (tmp_path / "factory.py").write_text(CODE)
    script = (
        "import json, pickle\n"
        "def never(*_, **__): raise SystemExit('unpickled something')\n"
        "import torch\n"
        "from factory import build\n"
        "from lilliput.models.store import load\n"
        "pickle.load = pickle.loads = pickle.Unpickler = never\n"
        "network = load('net.safetensors', build)\n"
        "with torch.no_grad(): print(json.dumps(network.module(*network.example(3)).tolist()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert torch.allclose(torch.tensor(json.loads(done.stdout)), out(network), atol=1e-6)


def test_any_tool_reads_the_weights_and_equal_networks_give_equal_bytes(tmp_path: Path) -> None:
    network = pruned()
    first = save_network(network, tmp_path / "a.safetensors")
    second = save_network(network.copy(), tmp_path / "b.safetensors")
    assert first.read_bytes() == second.read_bytes()
    assert load_file(first).keys() == network.module.state_dict().keys()
    with safe_open(first, "pt") as file:
        assert json.loads(file.metadata()["lilliput"])["name"] == "small"


def test_weights_in_two_places_are_stored_once(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x))

    network = Network(Tied().eval(), (TensorSpec(name="x", shape=(None, 4)),))
    path = save_network(network, tmp_path / "tied.safetensors")
    assert sorted(load_file(path)) == ["a.bias", "a.weight", "b.bias"]
    assert read_header(path).aliases == {"b.weight": "a.weight"}
    again = load(path, Tied)
    assert torch.equal(out(again), out(network))
    assert again.module.a.weight is again.module.b.weight


def test_views_and_other_precisions_survive(tmp_path: Path) -> None:
    module = nn.Linear(4, 4)
    module.weight = nn.Parameter(torch.randn(4, 8)[:, ::2].T)
    network = Network(module.double().eval(), (TensorSpec(name="x", shape=(None, 4)),))
    again = load(save_network(network, tmp_path / "n.safetensors"), lambda: nn.Linear(4, 4))
    assert again.module.weight.dtype == torch.float64
    assert torch.equal(again.module.weight, module.weight)


def test_a_saved_network_serves_as_weights(tmp_path: Path) -> None:
    network = pruned()
    path = save_network(network, tmp_path / "net.safetensors")
    again = network_of(build(), weights=path)
    assert again.inputs == network.inputs
    assert again.preprocessing == network.preprocessing
    assert again.notes == ("saved changes replayed: 1",)
    assert torch.equal(out(again), out(network))


def test_another_class_is_refused(tmp_path: Path) -> None:
    path = save_network(pruned(), tmp_path / "net.safetensors")
    with pytest.raises(LilliputError, match=r"edit 1"):
        load_saved(path, nn.Sequential(nn.Linear(3, 3)))
    plain = Network(build(), (TensorSpec(name="x", shape=(None, 3, 8, 8)),))
    path = save_network(plain, tmp_path / "plain.safetensors")
    with pytest.raises(Mistakes, match=r"plain\.safetensors: \d+ mistakes"):
        load_saved(path, nn.Sequential(nn.Linear(3, 3)))


def test_files_that_are_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    assert not is_saved(path)
    with pytest.raises(LilliputError, match=r"weights alone, not a saved network\n.*load_network"):
        load_saved(path, build())
    with pytest.raises(LilliputError, match="no file at"):
        load_saved(tmp_path / "none.safetensors", build())
    with pytest.raises(LilliputError, match=r"ends in .safetensors, not 'net.pt'"):
        save_network(pruned(), tmp_path / "net.pt")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ('{"format": 99}', r"has format 99, and this version reads 1\n.*--upgrade"),
        ('{"surprise": 1}', "has a damaged header"),
        ("[1, 2]", "has a damaged header"),
        ("{", "has a damaged header"),
    ],
)
def test_damaged_headers(header: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata={"lilliput": header})
    with pytest.raises(Refused, match=message):
        load_saved(path, build())


@pytest.mark.parametrize("content", [b"\xff" * 64, b"\x08\0\0\0\0\0\0\0notjson!", b"abc"])
def test_what_is_no_safetensors_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(Refused, match="is not a safetensors file"):
        is_saved(path)
