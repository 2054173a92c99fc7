"""Arms: several ways from the same candidates, compared in one run."""

from __future__ import annotations

from pathlib import Path

import pytest

from lilliput.candidate import Candidate
from lilliput.errors import LilliputError
from lilliput.pipeline import execute
from lilliput.recipe import Recipe
from lilliput.runs.folder import RunFolder
from lilliput.runs.journal import JournalFile
from lilliput.staging import run_stages
from lilliput.steps.distill import Distill
from lilliput.steps.finetune import Finetune
from lilliput.testing import tiny_context

RECIPE = """
model: {{factory: "{home}/net.py:build", weights: "{home}/net.safetensors"}}
data: "{home}/photos.py:examples"
task: classification
preprocessing: {{mean: [0.4], std: [0.2]}}
stages:
  - arms:
      labels:
        - finetune: {{epochs: 1, batch_size: 32}}
        - export
      teacher:
        - distill: {{epochs: 1, batch_size: 32}}
        - export
      untrained: [export]
  - pack
"""
FILES = {
    "original-labels-finetune": "original-labels-finetune-fp32",
    "original-teacher-distill": "original-teacher-distill-fp32",
    "original": "original-untrained-fp32",
}


def test_every_arm_begins_with_the_same_network_and_goes_on_together(home: Path) -> None:
    recipe = Recipe.parse(RECIPE.format(home=home))
    with RunFolder.create(home / "run", recipe) as folder:
        result = execute(recipe, folder)
        stages = folder.history().stages
    found = {c.id: c for c in result.candidates}
    for parent, name in FILES.items():
        assert found[name].parent == parent
        assert found[f"{name}-lil"].parent == name
    weights = {found[name].the_artifact().sha256 for name in FILES.values()}
    assert len(weights) == 3
    assert [(s["number"], s["name"]) for s in stages] == [
        (1, "finetune"),
        (2, "export"),
        (3, "distill"),
        (4, "export"),
        (5, "export"),
        (6, "pack"),
    ]
    assert len(stages[-1]["candidates"]) == 3


def arms(**branches: list[object]) -> tuple[object, ...]:
    return Recipe(
        model="a.py:b", data="digits", task="classification", stages=[{"arms": branches}]
    ).stages  # type: ignore[arg-type]


def broken(*_: object) -> Candidate:
    raise LilliputError("out of luck")


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = {"epochs": 1, "batch_size": 32}
    stages = arms(labels=[{"finetune": short}], teacher=[{"distill": short}])
    with JournalFile(tmp_path / "journal.jsonl") as journal:
        context = tiny_context(tmp_path, journal=journal)
        with monkeypatch.context() as cut:
            cut.setattr(Distill, "apply", interrupt)
            with pytest.raises(KeyboardInterrupt):
                list(run_stages(stages, [context.original], context))
        monkeypatch.setattr(Finetune, "apply", broken)
        came = [c.id for c in run_stages(stages, [context.original], context)]
    assert came == ["original-labels-finetune", "original-teacher-distill"]


def interrupt(*_: object) -> Candidate:
    raise KeyboardInterrupt


def test_an_arm_that_comes_to_nothing_does_not_end_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = arms(labels=[{"finetune": {"epochs": 0}}], none=["export"])
    monkeypatch.setattr(Finetune, "apply", broken)
    with JournalFile(tmp_path / "journal.jsonl") as journal:
        context = tiny_context(tmp_path, journal=journal)
        came = [c.id for c in run_stages(stages, [context.original], context)]
        assert came == ["original-none-fp32"]
        alike = arms(one=[{"finetune": {"epochs": 0}}], other=[{"finetune": {"epochs": 0}}])
        with pytest.raises(LilliputError, match="nothing came out of stage 2"):
            list(run_stages(alike, [context.original], context))


def test_an_empty_arm_passes_on_what_it_gets_once(tmp_path: Path) -> None:
    stages = (*arms(a=[], b=[]), *arms(c=["export"], d=["export"]))
    with JournalFile(tmp_path / "journal.jsonl") as journal:
        context = tiny_context(tmp_path, journal=journal)
        came = [c.id for c in run_stages(stages, [context.original], context)]
    assert came == ["original-c-fp32", "original-d-fp32"]
