"""The child's side, run in this process: duties, mistakes, and the libraries it hosts."""

import io
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import misbehaving_runtime
import numpy as np
import pytest
import torch

from lilliput.artifact import TensorSpec
from lilliput.errors import LilliputError
from lilliput.runtimes import child, frames, null, ov, torch_eager
from lilliput.runtimes.opening import random_feeds
from lilliput.target import Target

TARGET = Target().model_dump(mode="json")
FEED = [np.zeros((1, 1), np.float32)]


def loaded(module: ModuleType, name: str) -> child.Worker:
    worker = child.Worker(module)
    message = {"do": "load", "session": 1, "path": name, "target": TARGET}
    facts, _ = worker.obey(message, [])
    assert TensorSpec.model_validate(facts["inputs"][0]).shape == (None, 1)
    assert facts["conditions"]["process"] == f"child {os.getpid()}"
    return worker


def test_every_duty_is_done() -> None:
    worker = loaded(misbehaving_runtime, "good.bin")
    assert worker.obey({"do": "bind", "session": 1}, FEED) == ({}, [])
    _, (times,) = worker.obey({"do": "burst", "session": 1, "count": 3}, [])
    assert times.tolist() == [1_000_000] * 3
    _, (output,) = worker.obey({"do": "run", "session": 1}, FEED)
    assert output.shape == (1, 1)
    facts, _ = worker.obey({"do": "peak"}, [])
    assert facts["peak_bytes"] > 1e7
    facts, _ = worker.obey({"do": "profile", "path": "good.bin", "target": TARGET}, FEED)
    assert facts == {"nodes": []}
    assert worker.obey({"do": "close", "session": 1}, []) == ({}, [])
    assert "mistake" in worker.obey({"do": "run", "session": 1}, FEED)[0], "closed"


def test_mistakes_become_answers() -> None:
    mistake = loaded(misbehaving_runtime, "explain.bin").obey({"do": "run", "session": 1}, FEED)
    assert mistake == (
        {"mistake": {"thing": "the input is upside down", "at": "layer 3", "hint": "turn it"}},
        [],
    )
    mistake = loaded(misbehaving_runtime, "fail.bin").obey({"do": "run", "session": 1}, FEED)
    assert mistake[0] == {"mistake": {"thing": "RuntimeError: no kernel for Frobnicate"}}


def test_serving_ends_with_the_requests() -> None:
    requests, answers = io.BytesIO(), io.BytesIO()
    frames.send(requests, {"do": "peak"})
    requests.seek(0)
    child.serve(requests, answers, child.Worker(null))
    answers.seek(0)
    assert frames.receive(answers)[0]["peak_bytes"] > 0


def test_peak_memory_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child.Path, "is_file", lambda _: False)
    assert child.peak_memory_bytes() > 1e7


def test_the_child_speaks_on_its_standard_streams(small_net: Path) -> None:
    requests = io.BytesIO()
    message = {"do": "load", "session": 1, "path": str(small_net), "target": TARGET}
    frames.send(requests, message)
    done = subprocess.run(
        [sys.executable, "-m", "lilliput.runtimes.child", "lilliput.runtimes.null"],
        input=requests.getvalue(),
        capture_output=True,
        check=True,
    )
    assert frames.receive(io.BytesIO(done.stdout))[0]["outputs"] == ["logits"]


def test_openvino_itself(small_net: Path) -> None:
    target = Target(runtime="openvino")
    session = ov.open_here(small_net, target)
    feeds = random_feeds(session.inputs, batch=2)
    with pytest.raises(LilliputError, match="burst before bind"):
        session.burst(1)
    assert session.run(feeds)[0].shape == (2, 5)
    session.bind(feeds)
    assert (session.burst(2) > 0).all()
    assert session.conditions["precision"] == "f32"
    session.close()
    assert {node.op for node in ov.profile_here(small_net, target, feeds, runs=2)} & {"Convolution"}
    assert ov.open_here(small_net, Target.parse("openvino:default")).conditions["precision"]


def test_torch_itself(tmp_path: Path) -> None:
    net = torch.nn.Linear(4, 3).eval()
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(net, (torch.zeros(2, 4),)), str(path))
    session = torch_eager.open_here(path, Target(runtime="torch"))
    feeds = random_feeds(session.inputs)
    assert session.inputs[0].shape == (2, 4)
    with pytest.raises(LilliputError, match="burst before bind"):
        session.burst(1)
    expected = net(torch.from_numpy(feeds[0])).detach().numpy()
    np.testing.assert_allclose(session.run(feeds)[0], expected, atol=1e-6)
    session.bind(feeds)
    assert (session.burst(2) > 0).all()
    session.close()
