"""`compress` of what can be neither trained nor cut, or not be computed in int8."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lilliput.artifact import TensorSpec
from lilliput.candidate import Candidate
from lilliput.data.dataset import Dataset
from lilliput.data.sources import load_data
from lilliput.errors import LilliputError, Mistakes, Refused
from lilliput.export.onnx_file import export_network
from lilliput.export.program_file import export_pt2
from lilliput.models.program import LIMITS
from lilliput.models.source import load_network
from lilliput.network import Network
from lilliput.recipe import Recipe
from lilliput.steps.base import STAGES
from lilliput.steps.export import Export
from lilliput.steps.quantize import Quantize
from lilliput.testing import tiny_context
from lilliput.units import parse_bytes
from lilliput.verbs.check import check, check_goals
from lilliput.verbs.compress import compress, recipe_for

INPUTS = (TensorSpec(name="x", shape=(None, 3, 8, 8)),)


class Corners(nn.Module):
    """The mean of each quarter: not a weight in it."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x.mean(1, keepdim=True), 4).flatten(1)


@pytest.fixture
def weightless(home: Path) -> str:
    network = Network(Corners().eval(), INPUTS, "corners")
    return str(export_network(network, home / "corners.onnx").path)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval()
    return str(
        export_pt2(
            Network(module, INPUTS, "linear"), tmp_path_factory.mktemp("pt2") / "linear.pt2"
        ).path
    )


def test_where_nothing_runs_in_int8_the_float_files_are_the_result(
    home: Path, weightless: str
) -> None:
    # users-ask 3: "a net with only un-quantizable ops reports `int8: no gain` and exits 0"
    result = compress(weightless, data=f"{home}/photos.py:examples", out=home / "run")
    assert result.exit_code == 0
    assert not result.failures
    assert result.best_file is not None
    assert result.best_file.read_bytes() == Path(weightless).read_bytes()
    report = (home / "run" / "report.md").read_text()
    assert "Int8: no gain for original: quantized 0 of 0 weighted layers" in report


def test_what_was_opened_to_be_checked_is_not_opened_again_to_be_compressed(
    home: Path, weightless: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def load(source: str, **settings: object) -> Dataset:
        opened.append(source)
        return load_data(source, **settings)

    monkeypatch.setattr("lilliput.opening.load_data", load)
    data = f"{home}/photos.py:examples"
    compress(weightless, data=data, out=home / "run")
    assert opened == [data]


def test_what_is_refused_for_another_reason_is_no_missing_gain(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    plain = Export().apply(Candidate("net", network=context.original.network), context)
    step = Quantize(when="possible", exclude=("stam",))
    assert step.has_work(plain, context)
    assert not Quantize(when="possible", exclude=("*",)).has_work(plain, context)
    assert Quantize(exclude=("*",)).has_work(plain, context)


def test_a_program_is_exported_and_quantized_and_the_plan_says_why_no_more(
    home: Path, program: str
) -> None:
    goals = {"data": f"{home}/photos.py:examples", "time_budget_minutes": 0.1}
    defaults = {"weights": None, "task": "classification", "target": "onnxruntime", "seed": 0}
    shape = {"budget": None, "preprocessing": None, "input_shape": None, "epochs": None}
    plan = str(check_goals(recipe_for(program, **goals, **defaults, **shape)))
    assert f"cuts      none: {LIMITS}" in plan
    assert "shrink" not in plan
    result = compress(program, **goals, out=home / "run")
    assert {c.id for c in result.candidates} == {"original-fp32", "original-int8"}
    assert result.exit_code == 0


def test_steps_that_train_or_cut_refuse_a_program(program: str) -> None:
    original = Candidate("original", network=load_network(program))
    stages = [STAGES[name] for name in STAGES]
    changing = [s for s in stages if (s.takes, s.gives) == ("network", "network")]
    assert len(changing) > 5
    for stage in changing:
        with pytest.raises(Refused, match="cannot change 'linear': an exported program") as error:
            stage.check_kind(stage.model_construct(), original)
        assert "give the function that builds the network" in str(error.value)
    Export().check_kind(original)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_size_that_a_fixed_graph_cannot_reach_is_refused_with_the_least_it_can(
    home: Path, program: str, weightless: str, suffix: str
) -> None:
    # users-ask 35
    model = {".onnx": weightless, ".pt2": program}[suffix]
    plain = {
        "model": model,
        "data": f"{home}/photos.py:examples",
        "task": "classification",
        "stages": [*([] if suffix == ".onnx" else ["export"]), "pack"],
    }
    least = check(Recipe.model_validate(plain)).bounds.least_bytes
    with pytest.raises(Refused, match=r"the minimum of .*B that this fixed graph can be") as error:
        check(Recipe.model_validate({**plain, "budget": {"max_bytes": least - 1}}))
    said = re.search(r"allow at least --max-size (\S+), or", str(error.value))
    assert said is not None
    assert check(Recipe.model_validate({**plain, "budget": {"max_bytes": parse_bytes(said[1])}}))
    assert "or give the function that builds the network, which can be cut" in str(error.value)


CHANGING = """
model: {model}
data: "{home}/photos.py:examples"
task: classification
budget: {{max_bytes: 1, max_macs: 1}}
stages:
  - finetune: {{epochs: 100}}
  - arms:
      wide: [{{prune_channels: {{ratio: 0.1}}}}, export]
      same: [export]
  - quantize: {{epoch: 1}}
"""


def test_a_recipe_that_changes_a_fixed_graph_is_refused_with_its_lines(program: str) -> None:
    text = CHANGING.format(model=program, home="/nowhere")
    with pytest.raises(Mistakes) as caught:
        Recipe.parse(text)
    first, second, third = map(str, caught.value.errors)
    fixed = "changes a network, and an exported program is a fixed graph\n  → give the model as"
    assert first.startswith(f"recipe:7: stages[0].finetune: {fixed}")
    assert second.startswith(f"recipe:9: stages[1].arms.wide[0].prune_channels: {fixed}")
    assert third.startswith("recipe:11: stages[2].quantize.epoch: there is no such key")


@pytest.mark.parametrize(
    ("suffix", "told"),
    [
        (".onnx", "works on torch networks, and gets exported files here"),
        (".pt2", "finetune cannot change 'linear': an exported program is a fixed graph"),
    ],
)
def test_check_refuses_a_fixed_graph_in_a_recipe_made_in_python(
    home: Path, program: str, weightless: str, suffix: str, told: str
) -> None:
    model = {".onnx": weightless, ".pt2": program}[suffix]
    recipe = Recipe.model_validate(
        {
            "model": model,
            "data": f"{home}/photos.py:examples",
            "task": "classification",
            "stages": [{"finetune": {"epochs": 100}}, "export"],
        }
    )
    with pytest.raises(LilliputError) as caught:
        check(recipe)
    assert str(caught.value).startswith("stages[0].finetune: ")
    assert told in str(caught.value)


def test_check_asks_every_stage_and_tells_all_that_they_refuse(home: Path) -> None:
    recipe = Recipe.model_validate(
        {
            "model": f"{home}/net.py:build",
            "data": f"{home}/photos.py:examples",
            "task": "classification",
            "budget": {"max_bytes": 1},
            "stages": [
                {"distill": {"epochs": 100}},
                {"prune_channels": {"ratio": 0.1, "protect": ["stam", "1.convv"]}},
                {"prune_blocks": {"remove": ["haed"]}},
                "export",
            ],
        }
    )
    with pytest.raises(Mistakes) as caught:
        check(recipe)
    globs, blocks, size = map(str, caught.value.errors)
    assert globs.startswith("stages[1].prune_channels: protect: 2 mistakes\n")
    assert "matches 'stam'" in globs
    assert "matches '1.convv'" in globs
    assert blocks.startswith("stages[2].prune_blocks: 'haed' is no block that can go\n  → ")
    assert size.startswith("the budget of 1 B is below the minimum of")


def test_check_refuses_no_name_that_an_earlier_stage_may_make(home: Path) -> None:
    recipe = {
        "model": f"{home}/net.py:build",
        "data": f"{home}/photos.py:examples",
        "task": "classification",
    }
    rewrite: object = {"run_dct": {"layers": ["stem"], "keep": 4, "epochs": 0}}
    narrow: object = {"prune_channels": {"ratio": 0.1, "protect": ["stem.mix"]}}
    check(Recipe.model_validate({**recipe, "stages": [rewrite, narrow, "export"]}))
    with pytest.raises(LilliputError, match=r"stem\.mix"):
        check(Recipe.model_validate({**recipe, "stages": [narrow, rewrite, "export"]}))
