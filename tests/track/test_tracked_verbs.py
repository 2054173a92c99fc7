"""`--track` from the command line and in Python, on a real run of a tiny network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

import lilliput
from lilliput import cli
from lilliput.errors import Missing
from lilliput.track import base

NET = """\
from torch import nn


def build():
    return nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 10))
"""
RECIPE = """\
model: net.py:build
data: digits
task: classification
preprocessing: {channels: 1}
stages:
  - finetune: {epochs: 2}
  - export
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.setattr("lilliput.opening.timing_seconds", lambda _: 0.3)
    return tmp_path / "recipe.yaml"


def test_a_real_run_is_shown_with_losses_and_figures(recipe: Path):
    out = recipe.parent / "run"
    with pytest.raises(SystemExit):
        cli.main(["run", str(recipe), "--out", str(out), "--track", "tensorboard", "--quiet"])
    found = EventMultiplexer().AddRunsFromDirectory(str(out / "tensorboard")).Reload()
    runs = found.Runs()
    (losses,) = (tag for tag in runs["."]["scalars"] if tag.startswith("loss/"))
    assert [event.step for event in found.Scalars(".", losses)] == [1, 2]
    entries = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    noted = [entry["facts"]["loss"] for entry in entries if entry["event"] == "epoch"]
    assert [event.value for event in found.Scalars(".", losses)] == pytest.approx(noted)
    files = [c for c in lilliput.resume(out).candidates if c.value("ratio") > 0]
    for file in files:
        assert {"latency_ms", "bytes", "metric"} <= set(runs[file.id]["scalars"])
        (size,) = found.Scalars(file.id, "bytes")
        assert size.value == file.value("bytes")
    told = json.loads((out / "tracking-tensorboard.json").read_text())["told"]
    lilliput.resume(out, track=["tensorboard"])
    again = json.loads((out / "tracking-tensorboard.json").read_text())
    assert again["told"] > told


def test_a_missing_client_is_told_before_the_recipe_is_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(base, "installed_version", lambda package: None)
    for call in (
        lambda: lilliput.run("no.yaml", track="mlflow"),
        lambda: lilliput.resume("nowhere", track="mlflow"),
        lambda: lilliput.compress("no.py:net", track="mlflow"),
    ):
        with pytest.raises(Missing, match=r'pip install "lilliput\[mlflow\]"'):
            call()
