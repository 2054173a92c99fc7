"""From what a user has to a network that runs: the same whatever it was wrapped in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import prune

from lilliput.artifact import Artifact, TensorSpec
from lilliput.data.dataset import Dataset, Split
from lilliput.errors import LilliputError, Refused
from lilliput.export.onnx_file import export_network
from lilliput.models.source import load_model, load_network, network_of
from lilliput.network import Network
from lilliput.preprocessing import IDENTITY, Preprocessing
from lilliput.prune import analyse

CODE = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

def half():
    return build().half()
"""


def build() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


def out(network: Network) -> Tensor:
    with torch.no_grad():
        return network.module(*network.example(3))


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "small_net.py"
    path.write_text(CODE)
    return path


@pytest.fixture
def pictures() -> Dataset:
    rng = np.random.default_rng(0)
    return Dataset("p", train=Split(rng.integers(0, 256, (6, 10, 12, 3), np.uint8)))


def test_code_weights_and_data(code: Path, tmp_path: Path, pictures: Dataset) -> None:
    trained = build()
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    network = load_network(f"{code}:build", weights=tmp_path / "w.safetensors", data=pictures)
    assert network.name == "small_net"
    assert network.inputs[0].shape == (None, 3, 10, 12)
    assert network.preprocessing == Preprocessing(channels=3)
    assert network.notes == ()
    assert not network.module.training
    assert all(p.requires_grad for p in network.module.parameters())
    assert torch.equal(out(network), trained.eval()(*network.example(3)))


def test_the_shape_that_is_told_goes_before_the_data(code: Path, pictures: Dataset) -> None:
    told = (TensorSpec(name="x", shape=(None, 3, 16, 16)),)
    network = load_network(f"{code}:build", inputs=told, data=pictures)
    assert network.inputs == told
    without = load_network(f"{code}:build", inputs=told)
    assert without.preprocessing == IDENTITY
    assert torch.equal(out(network), out(without))


def test_nothing_says_what_shape(code: Path) -> None:
    with pytest.raises(LilliputError, match=r"what shape 'small_net' takes\n.*--input-shape"):
        load_network(f"{code}:build")


def test_a_half_precision_model_is_computed_in_float32(code: Path, pictures: Dataset) -> None:
    network = load_network(f"{code}:half", data=pictures)
    assert network.name == "half"
    assert network.notes == ("half-precision weights are computed in float32",)
    assert out(network).dtype == torch.float32


def test_the_module_given_is_never_touched(pictures: Dataset) -> None:
    module = build().train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    network = network_of(module, data=pictures)
    with torch.no_grad():
        network.module[0].weight.zero_()
    assert module.training
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("wrapper", ["DataParallel", "DistributedDataParallel", "torch.compile"])
def test_wrappers_come_off_and_change_nothing(
    wrapper: str, one_process: None, pictures: Dataset, tmp_path: Path
) -> None:
    """users-ask 17: wrapped inputs give the same result as bare ones."""
    bare = build()
    wrapped = {
        "DataParallel": nn.DataParallel,
        "DistributedDataParallel": nn.parallel.DistributedDataParallel,
        "torch.compile": torch.compile,
    }[wrapper](bare)
    plain, unwrapped = network_of(bare, data=pictures), network_of(wrapped, data=pictures)
    assert plain.notes == ()
    assert unwrapped.notes == (f"{wrapper} was taken off",)
    assert type(unwrapped.module) is nn.Sequential
    assert torch.equal(out(plain), out(unwrapped))
    first = export_network(plain, tmp_path / "a.onnx")
    assert export_network(unwrapped, tmp_path / "b.onnx").sha256 == first.sha256


@pytest.mark.parametrize("wrapper", [nn.DataParallel, torch.compile])
def test_wrappers_inside_come_off_a_copy(
    wrapper: Callable[[nn.Module], nn.Module], pictures: Dataset, tmp_path: Path
) -> None:
    """AlexNet's training script wraps the features alone: users-ask 17."""
    plain, partly = build(), build()
    partly[0] = wrapper(partly[0])
    save_file(partly.state_dict(), tmp_path / "net.safetensors")
    given = type(partly[0])
    network = network_of(partly, weights=tmp_path / "net.safetensors", data=pictures)
    assert type(partly[0]) is given
    assert type(network.module[0]) is nn.Conv2d
    assert "of '0' was taken off" in network.notes[0]
    assert torch.equal(out(network), out(network_of(plain, data=pictures)))
    assert analyse(network).prunable


def test_a_model_that_cannot_be_copied(pictures: Dataset) -> None:
    module = build()
    module.cached = module[0].weight * 2  # type: ignore[assignment]
    with pytest.raises(LilliputError, match=r"cannot be copied.*\n.*register it as a buffer"):
        network_of(module, data=pictures)


@pytest.mark.parametrize("how", ["weight_norm", "spectral_norm", "prune"])
def test_weights_that_hooks_compute_are_copied(pictures: Dataset, how: str, tmp_path: Path) -> None:
    module = build()
    if how == "prune":
        prune.l1_unstructured(module[0], "weight", amount=0.5)
    else:
        getattr(nn.utils, how)(module[0])
    network = network_of(module, data=pictures)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = module.eval()(x)
        torch.testing.assert_close(network.module(x), expected)
        torch.testing.assert_close(network.copy().module(x), expected)
    assert export_network(network, tmp_path / "it.onnx").bytes


def test_an_onnx_file_is_an_artifact(pictures: Dataset, tmp_path: Path) -> None:
    path = export_network(network_of(build(), data=pictures), tmp_path / "net.onnx").path
    loaded = load_model(str(path))
    assert isinstance(loaded, Artifact)
    assert loaded.metadata.inputs[0].shape == (None, 3, 10, 12)
    with pytest.raises(Refused, match="holds its weights; leave `weights` out"):
        load_model(str(path), weights="w.pt")
    with pytest.raises(Refused, match=r"needs a torch network\n.*quantize"):
        load_network(str(path))
    path.write_bytes(b"cut short")
    with pytest.raises(Refused, match="ONNX"):
        load_model(str(path))


def test_a_file_from_elsewhere_takes_what_the_user_says(pictures: Dataset, tmp_path: Path) -> None:
    path = export_network(network_of(build(), data=pictures), tmp_path / "net.onnx").path
    model = onnx.load(str(path))
    del model.metadata_props[:]
    onnx.save(model, str(path))
    form = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    loaded = load_model(str(path), preprocessing=form, data=pictures)
    assert isinstance(loaded, Artifact)
    assert loaded.metadata.preprocessing == form
    assert loaded.metadata.inputs[0].shape == (None, 3, 10, 12)
    with pytest.raises(Refused, match="does not say how pictures become its input"):
        load_model(str(path), data=pictures)


def test_a_recipes_model(code: Path, tmp_path: Path, pictures: Dataset) -> None:
    save_file(build().state_dict(), tmp_path / "w.safetensors")
    weights = str(tmp_path / "w.safetensors")
    shape = TensorSpec(name="", shape=(None, 3, 9, 9), sample=(1, 3, 9, 9))
    network = load_model(f"{code}:build", weights=weights, inputs=(shape,))
    assert isinstance(network, Network)
    assert network.inputs[0].shape == (None, 3, 9, 9)
    from_data = load_model(f"{code}:build", weights=weights, data=pictures)
    assert isinstance(from_data, Network)
    assert from_data.inputs[0].shape == (None, 3, 10, 12)


def test_a_load_is_the_same_in_another_process(code: Path) -> None:
    """users-ask 34: the same seed gives the same network, in every process."""
    script = (
        "import sys\n"
        "from lilliput.models.source import load_network\n"
        "from lilliput.artifact import TensorSpec\n"
        "shape = TensorSpec(name='', shape=(None, 3, 8, 8))\n"
        "network = load_network(sys.argv[1], inputs=(shape,))\n"
        "print(network.module[0].weight.flatten().tolist())\n"
    )
    other = subprocess.run(
        [sys.executable, "-c", script, f"{code}:build"], capture_output=True, text=True, check=True
    ).stdout
    here = load_network(f"{code}:build", inputs=(TensorSpec(name="", shape=(None, 3, 8, 8)),))
    assert other.strip() == str(here.module[0].weight.flatten().tolist())
