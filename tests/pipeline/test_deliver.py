"""Members of a search's front, asked for by their ids when the search is long done."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from typer.testing import CliRunner

import lilliput
from lilliput import opening
from lilliput.cli import app
from lilliput.data.sources import load_data
from lilliput.errors import LilliputError, NotThere
from lilliput.reports.fronts import fronts_of
from lilliput.reports.summary import Summary
from lilliput.runs.folder import RunFolder
from lilliput.runs.journal import ONCE, read_entries
from lilliput.tasks import task_of

MODEL = """
from torch import nn


def build():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(64, 10),
    )
"""

RECIPE = """
model: {factory: "model.py:build", weights: net.safetensors}
data: digits
task: classification
preprocessing: {channels: 1}
time_budget_minutes: 0.01
stages:
  - search_bits:
      bits: [2, 4, 8]
      activations: true
      population: 8
      generations: 2
      screen_examples: 60
      rank_examples: 80
      screen_steps: 1
      tau_sample: 2
      points: 1
      epochs: 1
      refit_examples: 32
  - export: {}
"""


def train(home: Path) -> None:
    """A network that knows the digits, as a user brings one."""
    (home / "model.py").write_text(MODEL)
    scope: dict[str, Any] = {}
    exec(MODEL, scope)
    torch.manual_seed(0)
    network = scope["build"]()
    train = load_data("digits", task=task_of("classification")).train
    inputs = torch.from_numpy(np.asarray(train.inputs, np.float32).transpose(0, 3, 1, 2) / 255)
    targets = torch.as_tensor(np.asarray(train.targets)).long()
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(network(inputs), targets).backward()
        optimizer.step()
    save_file(network.state_dict(), home / "net.safetensors")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: one search, one member of its front delivered."""
    home = tmp_path_factory.mktemp("home")
    train(home)
    (home / "recipe.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(opening, "timing_seconds", lambda _: 0.3)
        return lilliput.run(home / "recipe.yaml", out=home / "run").path


def asked(run: Path) -> list[str]:
    """The keys of all that was done, in their order."""
    entries = read_entries(run / "journal.jsonl")
    return [entry.facts["key"] for entry in entries if entry.event == ONCE]


@pytest.fixture
def run(done: Path, tmp_path: Path) -> Path:
    """The run as its user has it before them, to go on with."""
    return Path(shutil.copytree(done, tmp_path / "run"))


def choose(run: Path, lines: str) -> None:
    """Write the line of the report into the run's recipe, as the report says."""
    (deliver,) = [line for line in lines.splitlines() if "deliver" in line]
    recipe = run / "recipe.yaml"
    found = [line for line in recipe.read_text().splitlines() if "deliver: " in line]
    assert len(found) == 1
    recipe.write_text(recipe.read_text().replace(found[0], deliver))


def test_a_member_is_trained_exported_and_measured_and_nothing_is_searched(run: Path) -> None:
    before = asked(run)
    assert sum(" genome " in key and " rung " not in key for key in before) == 16
    (name,) = fronts_of(Summary.of(RunFolder.look(run)))
    front = fronts_of(Summary.of(RunFolder.look(run)))[name]
    first = next(member for member in front.members if member.trained)
    wanted = next(member for member in front.members if not member.trained)
    choose(run, front.lines(wanted))
    result = lilliput.resume(run)

    new = asked(run)[len(before) :]
    made = f"original-bits-{wanted.id}"
    assert new[:2] == [f"search_bits original train {made}", f"02.export/{made}"]
    assert not [key for key in new if " genome " in key or " rung " in key or "generation" in key]

    files = {candidate.id: candidate for candidate in result.candidates}
    assert set(files) == {"original-fp32", "original-bits1-fp32", f"{made}-fp32"}
    assert {"metric", "drop", "latency", "bytes"} <= files[f"{made}-fp32"].measurements.keys()

    members = fronts_of(Summary.of(RunFolder.look(run)))[name].members
    linked = {member.id: [row.id for row in member.rows] for member in members if member.trained}
    assert linked == {first.id: ["original-bits1-fp32"], wanted.id: [f"{made}-fp32"]}
    told = next(member for member in members if member.id == wanted.id)
    assert told.simulated is not None
    assert told.figures == wanted.figures

    # Asked for nothing more, the run has nothing left to do, and loses nothing.
    choose(run, "      deliver: []")
    count = len(asked(run))
    again = lilliput.resume(run)
    assert {candidate.id for candidate in again.candidates} == set(files)
    assert not [key for key in asked(run)[count:] if "train" in key or "export" in key]


def test_an_unknown_member_ends_the_run_and_names_the_nearest(run: Path) -> None:
    (front,) = fronts_of(Summary.of(RunFolder.look(run))).values()
    known = front.members[0].id
    choose(run, f'      deliver: ["{known[:-2]}zz"]')
    before = asked(run)
    with pytest.raises(NotThere, match=f"has no member '{known[:-2]}zz'\n.*report.json.*{known}"):
        lilliput.resume(run)
    assert asked(run) == before, "no failure is kept"
    choose(run, '      deliver: ["elsewhere/aa"]')
    done = CliRunner().invoke(app, ["resume", str(run)])
    assert done.exit_code == 2 or isinstance(done.exception, NotThere)
    assert "no search of 'elsewhere'" in done.output + str(done.exception)


def test_any_other_edit_is_refused_still(run: Path) -> None:
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("generations: 2", "generations: 3"))
    with pytest.raises(LilliputError, match=r"edited since .*\n.*what may change .* is `deliver`"):
        lilliput.resume(run)
