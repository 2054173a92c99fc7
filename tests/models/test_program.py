"""Exported programs: opened only when they hold no more than a network."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lilliput.artifact import TensorSpec
from lilliput.errors import LilliputError, Refused, VerificationFailed
from lilliput.export import program_file
from lilliput.export.onnx_file import export_network
from lilliput.export.program_file import export_pt2
from lilliput.models.program import LIMITS
from lilliput.models.source import load_network
from lilliput.network import Network
from lilliput.pt2_io import check_program, tensors_only
from lilliput.testing.zoo import zoo


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.norm(self.conv(x))
        return {"half": y[:, :, : y.shape[2] // 2], "flat": y.flatten(1)}


def small(*, batch: int | None = None) -> Network:
    torch.manual_seed(0)
    return Network(Small().eval(), (TensorSpec(name="x", shape=(batch, 3, 8, 8)),), name="small")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_pt2(small(), tmp_path_factory.mktemp("pt2") / "small.pt2").path


def test_a_program_is_a_network(program: Path, tmp_path: Path) -> None:
    original, opened = small(), load_network(str(program))
    assert opened.name == "small"
    assert opened.inputs[0].shape == (None, 3, 8, 8)
    assert opened.inputs[0].name == "x"
    assert opened.notes == (LIMITS,)
    for batch in (1, 7):
        x = original.example(batch)[0]
        with torch.no_grad():
            ours, theirs = opened.copy().module.eval()(x), original.module(x)
        assert ours.keys() == theirs.keys()
        assert all(torch.allclose(ours[k], theirs[k], atol=1e-6) for k in theirs)
    assert opened.module.train().training
    assert opened.params == original.params
    artifact = export_network(opened, tmp_path / "net.onnx")
    assert artifact.facts["max_rel_error"] < 1e-5


def test_a_fixed_batch_is_said(tmp_path: Path) -> None:
    path = export_pt2(small(batch=2), tmp_path / "two.pt2").path
    opened = load_network(str(path))
    assert opened.inputs[0].shape == (2, 3, 8, 8)
    assert opened.notes[1] == "its batch is fixed at 2, as it was exported"


def test_equal_networks_give_equal_programs_without_paths(tmp_path: Path) -> None:
    first = export_pt2(small(), tmp_path / "a.pt2")
    second = export_pt2(small(), tmp_path / "b.pt2")
    assert first.sha256 == second.sha256
    assert first.metadata.inputs == small().inputs
    assert b"stack_trace" not in first.path.read_bytes()


def test_the_runtime_opens_it(program: Path) -> None:
    torch_eager = pytest.importorskip("lilliput.runtimes.torch_eager")
    from lilliput.target import Target

    threads = torch.get_num_threads()
    session = torch_eager.open_here(program, Target(runtime="torch"))
    torch.set_num_threads(threads)
    x = small().example(3)[0]
    with torch.no_grad():
        wanted = small().module(x)
    for ours, theirs in zip(session.run([x.numpy()]), wanted.values(), strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["two_inputs", "transformer"])
def test_networks_of_the_zoo_come_back(name: str, tmp_path: Path) -> None:
    network = zoo()[name]()
    opened = load_network(str(export_pt2(network, tmp_path / "net.pt2").path))
    assert len(opened.inputs) == len(network.inputs)


def test_what_cannot_be_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if x.sum() > 1e6 else x

    network = Network(Branching(), (TensorSpec(name="x", shape=(None, 3)),), name="odd")
    with pytest.raises(LilliputError, match=r"torch\.export cannot follow network 'odd'"):
        export_pt2(network, tmp_path / "net.pt2")
    with pytest.raises(LilliputError, match=r"ends in \.pt2, not 'net\.onnx'"):
        export_pt2(small(), tmp_path / "net.onnx")

    def deviates(*_: Any) -> None:
        raise VerificationFailed("off by one")

    monkeypatch.setattr(program_file, "compare", deviates)
    with pytest.raises(VerificationFailed, match="is not faithful: off by one"):
        export_pt2(small(), tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())


def rewritten(program: Path, to: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The archive with its entries changed, in torch's own container format."""
    with zipfile.ZipFile(program) as archive:
        entries = {n.partition("/")[2]: archive.read(n) for n in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(to, "w") as archive:
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return to


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def pickled(thing: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


def replace(entry: str, old: str, new: str) -> Callable[[dict[str, bytes]], None]:
    def change(entries: dict[str, bytes]) -> None:
        text = entries[entry].decode()
        assert old in text
        entries[entry] = text.replace(old, new).encode()

    return change


def put(entry: str, content: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda entries: entries.__setitem__(entry, content)


def constant(stored_as: str) -> bytes:
    return json.dumps({"config": {"c": {"path_name": stored_as, "use_pickle": False}}}).encode()


ATTACKS = {
    "pickled weight": (replace(WEIGHTS, '"use_pickle": false', '"use_pickle": true'), "a pickle"),
    "pickled constant": (put(CONSTANTS, constant("opaque_obj_0")), "a pickle"),
    "script object": (put(CONSTANTS, constant("custom_obj_0")), "a pickle"),
    "path out of the archive": (put(CONSTANTS, constant("../tensor_0")), "a pickle"),
    "native code": (put("data/aotinductor/model/x.so", b"\x7fELF"), "more than a network's"),
    "old pickled weights": (put("data/weights/model.pt", b""), "more than a network's"),
    "any function": (
        replace(MODEL, "torch.ops.aten.conv2d.default", "torch.os.system"),
        "the target 'torch.os.system'",
    ),
    "files": (
        replace(MODEL, "torch.ops.aten.conv2d.default", "torch.ops.aten.from_file.default"),
        "the target",
    ),
    "code as a name": (
        replace(MODEL, '"name": "x"', '"name": "x=print(1)"'),
        "the name 'x=print",
    ),
    "code as an expression": (
        replace(MODEL, '"expr_str": "', '"expr_str": "exec(chr(49)) + '),
        "the expr str",
    ),
    "damaged graph": (put(MODEL, b"{"), "is damaged"),
    "no graph": (lambda entries: entries.pop(MODEL), "not a torch.export archive"),
    "code as a parameter": (
        replace(WEIGHTS, '"conv.weight"', r'"conv.weight\"; print"'),
        "the name",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_could_run_code_is_refused_unopened(
    attack: str, program: Path, tmp_path: Path
) -> None:
    """users-ask 20: no unsafe pickle, in no disguise."""
    change, message = ATTACKS[attack]
    path = rewritten(program, tmp_path / "evil.pt2", change)
    with pytest.raises(Refused, match=message.replace(".", r"\.")):
        load_network(str(path))


def test_sample_inputs_are_never_unpickled(program: Path, tmp_path: Path) -> None:
    mark = tmp_path / "was_here"
    bomb = put("data/sample_inputs/model.pt", pickled(Bomb(mark)))
    path = rewritten(program, tmp_path / "evil.pt2", bomb)
    with pytest.raises(Refused, match="cannot open"):
        load_network(str(path))
    assert not mark.exists()


def test_the_guard_on_unpickling_ends_where_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    monkeypatch.delenv(name, raising=False)
    with tensors_only():
        assert os.environ[name] == "1"
    assert name not in os.environ
    monkeypatch.setenv(name, "0")
    with tensors_only():
        assert os.environ[name] == "1"
    assert os.environ[name] == "0"


def test_archives_with_two_faces_are_refused(program: Path, tmp_path: Path) -> None:
    path = tmp_path / "two.pt2"
    path.write_bytes(program.read_bytes())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"another")
    with pytest.raises(Refused, match="not laid out as"):
        check_program(path)
    path.write_bytes(program.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("second/models/model.json", b"{}")
    with pytest.raises(Refused, match="not laid out as"):
        check_program(path)


def test_what_is_no_program(tmp_path: Path) -> None:
    with pytest.raises(LilliputError, match="no file at"):
        check_program(tmp_path / "none.pt2")
    (tmp_path / "text.pt2").write_text("hello")
    with pytest.raises(LilliputError, match=r"is not a \.pt2 file"):
        check_program(tmp_path / "text.pt2")
    with pytest.raises(Refused, match="holds its weights"):
        load_network("net.pt2", weights=Path("w.pt"))


def test_keyword_inputs_are_refused(tmp_path: Path) -> None:
    class Keyword(nn.Module):
        def forward(self, x: Tensor, *, scale: Tensor) -> Tensor:
            return x * scale

    one = torch.ones(2, 3)
    exported = torch.export.export(Keyword(), (one,), {"scale": one})
    torch.export.save(exported, tmp_path / "k.pt2")
    with pytest.raises(Refused, match=r"takes keyword arguments \(scale\)"):
        load_network(str(tmp_path / "k.pt2"))
