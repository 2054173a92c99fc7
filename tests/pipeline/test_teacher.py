"""Another network teaches in the original's place: in every training, and only if it can."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.errors import LilliputError, Mistakes, Refused
from lilliput.network import Network
from lilliput.pipeline import execute
from lilliput.recipe import Recipe
from lilliput.runs.folder import RunFolder
from lilliput.steps.base import STAGES, Step
from lilliput.steps.distill import Distill
from lilliput.steps.export import Export
from lilliput.teacher import introduced, load_teacher
from lilliput.testing import Heard, tiny_context, tiny_network
from lilliput.testing.contracts import fingerprint
from lilliput.testing.tiny import TinyResidual
from lilliput.verbs.check import check_goals
from lilliput.verbs.compress import recipe_for

BRIEF = {"epochs": 1, "batch_size": 32}
TRAINS: dict[str, dict[str, Any]] = {
    "distill": BRIEF,
    "distill_adversarial": {**BRIEF, "warmup": 0, "rise": 0},
    "pack_dct": {**BRIEF, "rounds": 1},
    "prune_weights": {**BRIEF, "density": 0.3},
    "quantize_weights": {**BRIEF, "bits": 2},
    "run_dct": {**BRIEF, "layers": ["block1.*"], "keep": 4},
    "share_weights": {**BRIEF, "values": 4},
    "shrink": {
        **BRIEF,
        "architectures": 1,
        "finalists": 1,
        "screen_steps": 2,
        "most_blocks": 1,
        "widths": [0.0],
    },
    "search_filters": {
        **BRIEF,
        "population": 4,
        "generations": 1,
        "screen_examples": 24,
        "rank_examples": 0,
        "screen_steps": 0,
        "tau_sample": 0,
        "points": 1,
        "refit_examples": 32,
        "max_drop": 90.0,
    },
}


class Reversed(nn.Module):
    """Gives the classes of another network in the opposite order."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x).flip(1)


def larger(context: Context, *, wide: int = 16) -> Network:
    torch.manual_seed(5)
    return replace(context.original.the_network(), module=TinyResidual(wide).eval())


def last(stage: Any, context: Context) -> Candidate:
    given = Candidate("x", network=context.original.the_network().copy())
    if isinstance(stage, Step):
        return stage.apply(given, context)
    return list(stage.explore(given, context))[-1]


def goals(home: Path) -> dict[str, Any]:
    return {
        "weights": home / "net.safetensors",
        "data": f"{home}/photos.py:examples",
        "task": "classification",
        "target": "onnxruntime",
        "budget": None,
        "preprocessing": None,
        "input_shape": None,
        "seed": 0,
        "time_budget_minutes": None,
        "epochs": None,
    }


@pytest.mark.parametrize("name", TRAINS)
def test_every_stage_that_trains_learns_from_the_runs_teacher(name: str, tmp_path: Path) -> None:
    stage = STAGES[name].model_validate(TRAINS[name])
    made = []
    for number, other in enumerate((False, True, True)):
        folder = tmp_path / str(number)
        folder.mkdir()
        context = tiny_context(folder)
        if other:
            context = replace(context, other_teacher=larger(context))
        made.append(fingerprint(last(stage, context)))
    assert made[1] == made[2]
    assert made[0] != made[1]


def test_a_student_answers_as_its_teacher_and_not_as_the_original(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    bare = replace(context.data.train, targets=None)
    original = context.original.the_network()
    backwards = replace(original, module=Reversed(original.module))
    context = replace(
        context, data=replace(context.data, train=bare, augment=()), other_teacher=backwards
    )
    student = last(Distill(epochs=40, learning_rate=0.1, batch_size=32), context).the_network()
    batch = next(iter(context.task.batches(context.data.test, original.preprocessing, 64))).inputs
    x = torch.from_numpy(batch[0])
    with torch.no_grad():
        ours, theirs = student.module(x).argmax(1), original.module(x).argmax(1)
    assert (ours == 3 - theirs).float().mean() > 0.7


def test_who_answers_in_another_form_is_no_teacher(home: Path, tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    (home / "other.py").write_text(
        "from torch import nn\n\n\ndef build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, 7))\n"
    )
    with pytest.raises(LilliputError, match=r"gives \(2, 7\) where the network gives \(2, 4\)"):
        load_teacher(
            f"{home}/other.py:build",
            None,
            context.original.the_network(),
            context.task,
            context.data,
        )


def test_a_worse_teacher_is_said_to_be_one(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    assert introduced(context) == ""
    trained = last(Distill(epochs=8, learning_rate=0.1, batch_size=32, imitation=0.0), context)
    context = replace(context, original=trained)
    worse = introduced(replace(context, other_teacher=larger(context)))
    assert worse.startswith("warning: the teacher")
    assert worse.endswith("it has little to teach")
    better = introduced(
        replace(
            context,
            original=Candidate("original", network=larger(context)),
            other_teacher=trained.the_network(),
        )
    )
    assert better.startswith("the teacher")


def test_a_run_introduces_its_teacher_and_compress_passes_it_on(home: Path) -> None:
    save_file(tiny_network(seed=3).module.state_dict(), home / "big.safetensors")
    recipe = recipe_for(
        f"{home}/net.py:build",
        **goals(home),
        teacher=f"{home}/net.py:build",
        teacher_weights=home / "big.safetensors",
    )
    stages = (Distill(**BRIEF), Export())
    recipe = Recipe.parse(recipe.model_copy(update={"stages": stages}).dump())
    told = Heard()
    with RunFolder.create(home / "run", recipe) as folder:
        execute(recipe, folder, told)
    kept = Recipe.read(home / "run/recipe.yaml").teacher
    assert kept is not None
    assert kept.weights == str(home / "big.safetensors")
    assert any("the teacher" in line and "validation examples" in line for line in told.lines)


def test_mistakes_with_a_teacher_are_told_before_anything_is_spent(home: Path) -> None:
    model = f"{home}/net.py:build"
    with pytest.raises(LilliputError, match="weights of a teacher, and no teacher"):
        recipe_for(model, **goals(home), teacher_weights="big.safetensors")
    with pytest.raises(Refused, match="torch networks, not ONNX files"):
        recipe_for("net.onnx", **goals(home), teacher=model)
    with pytest.raises(LilliputError, match="gone"):
        check_goals(recipe_for(model, **goals(home), teacher=f"{home}/gone.py:build"))


def test_a_recipe_names_its_teacher_as_its_model(tmp_path: Path) -> None:
    (tmp_path / "net.py").touch()
    (tmp_path / "big.py").touch()
    text = (
        "{model: 'net.py:build', data: digits, task: classification, stages: [export], teacher: X}"
    )
    path = tmp_path / "r.yaml"
    path.write_text(text.replace("X", "'big.py:build'"))
    teacher = Recipe.read(path).teacher
    assert teacher is not None
    assert teacher.factory == f"{tmp_path}/big.py:build"
    path.write_text(text.replace("X", "'bg.py:build'"))
    with pytest.raises(Mistakes, match=r"did you mean 'big.py'"):
        Recipe.read(path)
    (tmp_path / "big.onnx").touch()
    path.write_text(text.replace("X", "big.onnx"))
    with pytest.raises(Mistakes, match="torch networks, not ONNX files"):
        Recipe.read(path)
