"""Deep cuts: in several steps with training between them, and the log that each step leaves."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import pytest
import torch
from safetensors.torch import save_file

from lilliput.artifact import TensorSpec
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.data.sources import load_data
from lilliput.models.source import load_network
from lilliput.pipeline import execute
from lilliput.preprocessing import Preprocessing
from lilliput.recipe import Recipe
from lilliput.runs.folder import RunFolder
from lilliput.steps.finetune import Finetune
from lilliput.target import Target
from lilliput.tasks import task_of

NET = """
from torch import nn


def layer(inputs, outputs, stride=1):
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def build():
    layers = layer(1, 16), layer(16, 16), layer(16, 32, 2), layer(32, 32)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
"""
GRAY = Preprocessing(mean=(0.3,), std=(0.35,), channels=1)
RECIPE = """
model: {{factory: "{home}/net.py:build", weights: "{home}/net.safetensors"}}
data: digits
task: classification
preprocessing: {{mean: [0.3], std: [0.35], channels: 1}}
seed: {seed}
time_budget_minutes: 0.3
stages:
  - arms:
      at_once:
        - prune_channels: {{keep_macs: 0.08, multiple_of: 1}}
        - distill: {{epochs: 6, batch_size: 64}}
        - export
      in_two:
        - prune_channels: {{keep_macs: 0.283, multiple_of: 1}}
        - distill: {{epochs: 3, batch_size: 64}}
        - prune_channels: {{keep_macs: 0.283, multiple_of: 1}}
        - distill: {{epochs: 3, batch_size: 64}}
        - export
"""
STEPS = ["prune_channels", "distill"]


def train_on_digits(home: Path, seed: int) -> None:
    """The network of `home` with weights that get nearly all digits right."""
    (home / "net.py").write_text(NET)
    torch.manual_seed(seed)
    task = task_of("classification")
    spec = TensorSpec(name="input", shape=(None, 1, 8, 8))
    network = load_network(f"{home}/net.py:build", inputs=(spec,), preprocessing=GRAY)
    given = Candidate("net", network=network)
    context = Context(
        data=load_data("digits", task=task),
        task=task,
        target=Target(),
        original=given,
        folder=home,
        seed=seed,
    )
    trained = Finetune(epochs=12, learning_rate=0.1, batch_size=64).apply(given, context)
    save_file(trained.the_network().module.state_dict(), home / "net.safetensors")


@pytest.mark.slow
def test_two_cuts_with_training_between_beat_one_at_equal_training(tmp_path: Path) -> None:
    """A network of a twelfth of the multiply-adds; users-ask 15."""
    lost: dict[str, list[float]] = {"at_once": [], "in_two": []}
    for seed in range(3):
        home = tmp_path / str(seed)
        home.mkdir()
        train_on_digits(home, seed)
        recipe = Recipe.parse(RECIPE.format(home=home, seed=seed))
        with RunFolder.create(home / "run", recipe) as folder:
            result = execute(recipe, folder)
            stages = [stage["name"] for stage in folder.history().stages]
        for arm, found in lost.items():
            (file,) = [c for c in result.candidates if arm in c.id]
            found.append(file.measurements["test_drop"].value)
        assert stages == [*STEPS, "export", *STEPS, *STEPS, "export"]
    assert mean(lost["in_two"]) < mean(lost["at_once"])
