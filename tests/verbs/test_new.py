"""A starter that runs: its network knows the digits, its recipe has no mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import lilliput
from lilliput.data.sources import load_data
from lilliput.errors import LilliputError, Missing
from lilliput.models.source import load_network
from lilliput.recipe import Recipe
from lilliput.steps.base import STAGES
from lilliput.tasks import task_of
from lilliput.verbs import new as new_module
from lilliput.verbs.new import RECIPE, Started, new


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Started:
    return new(tmp_path_factory.mktemp("starter") / "mine")


def test_its_files(started: Started) -> None:
    assert sorted(p.name for p in started.folder.iterdir()) == sorted(started.files)
    assert str(started).endswith(f"next: lilliput run {started.folder / 'recipe.yaml'}")


def test_its_network_knows_the_digits(started: Started) -> None:
    network = load_network(
        f"{started.folder / 'model.py'}:build", weights=started.folder / "net.safetensors"
    )
    assert network.inputs[0].shape == (None, 1, 8, 8)
    data = load_data("digits", task=task_of("classification"))
    with torch.no_grad():
        pictures = network.preprocessing(np.asarray(data.test.inputs))
        guesses = network.module(torch.from_numpy(pictures)).argmax(1).numpy()
    assert (guesses == np.asarray(data.test.targets)).mean() > 0.9


@pytest.mark.skipif("quantize" not in STAGES, reason="no quantize stage is registered")
def test_its_recipe_has_no_mistakes(started: Started) -> None:
    recipe = Recipe.read(started.folder / "recipe.yaml")
    assert [stage.name for stage in recipe.stages] == [
        "prune_channels",
        "distill",
        "export",
        "quantize",
    ]
    assert recipe.budget.max_drop == 1.0
    assert all(len(line) <= 100 for line in RECIPE.splitlines())


def test_its_recipe_names_the_schema_beside_it(started: Started) -> None:
    first = RECIPE.splitlines()[0]
    named = started.folder / first.removeprefix("# yaml-language-server: $schema=")
    assert json.loads(named.read_text()) == lilliput.schema()


def test_nothing_is_overwritten(started: Started) -> None:
    before = (started.folder / "model.py").read_bytes()
    with pytest.raises(LilliputError, match=r"already holds model\.py and .*\n.*another"):
        new(started.folder)
    assert (started.folder / "model.py").read_bytes() == before


def test_the_users_own_weights_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "net.safetensors").write_bytes(b"a week of training")
    with pytest.raises(LilliputError, match=r"already holds net\.safetensors"):
        new(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_without_the_workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_module, "installed_version", lambda name: None)
    with pytest.raises(Missing, match=r"torch is not installed\n.*lilliput\[train\]"):
        new(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
