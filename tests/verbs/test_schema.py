"""The schema takes what runs and underlines what does not, in the words of a real validator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

import lilliput
from lilliput.budget import Budget
from lilliput.preprocessing import Preprocessing
from lilliput.recipe import Recipe
from lilliput.steps.base import STAGES
from lilliput.target import Target
from lilliput.verbs.new import RECIPE

GOOD = """\
model: net.py:build
teacher: big.pt2
data: digits
task: classification
target: openvino:bf16
stages:
  - finetune
  - export:
  - quantize: {}
"""


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = lilliput.schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def underlined(validator: Draft202012Validator, text: str) -> list[str]:
    """The places of a YAML text that an editor would underline."""
    return sorted({error.json_path for error in validator.iter_errors(yaml.safe_load(text))})


ARMS = GOOD.replace(
    "  - finetune\n", "  - arms: {labels: [finetune], teacher: [distill: {epochs: 3}]}\n"
)


@pytest.mark.parametrize("text", [GOOD, RECIPE, ARMS], ids=["short forms", "the starter", "arms"])
def test_what_people_write_is_not_underlined(validator: Draft202012Validator, text: str):
    assert Recipe.parse(text).stages
    assert underlined(validator, text) == []


def test_what_a_run_writes_is_not_underlined(validator: Draft202012Validator):
    recipe = Recipe.parse(GOOD).model_copy(
        update={
            "target": Target(isa=("avx2",)),
            "budget": Budget(max_latency_ms=3, max_bytes=1000),
            "preprocessing": Preprocessing(mean=(0.5, 0.4, 0.3), size=(32, 32)),
            "time_budget_minutes": 3.0,
        }
    )
    assert underlined(validator, recipe.dump()) == []
    assert underlined(validator, GOOD.replace("openvino:bf16", "{isa: avx2}")) == []


@pytest.mark.parametrize("name", sorted(STAGES))
def test_every_stage_as_it_is_written_out(validator: Draft202012Validator, name: str):
    settings = STAGES[name].model_construct().model_dump(mode="json")
    plain = yaml.safe_load(GOOD) | {"stages": [{name: settings}]}
    assert [*validator.iter_errors(plain)] == []


@pytest.mark.parametrize(
    ("right", "wrong", "place"),
    [
        ("- quantize: {}", "- quantise: {}", "$.stages[2]"),
        ("- finetune", "- finetune: {epochs: -1}", "$.stages[0]"),
        ("- finetune", "- finetune: {epoch: 1}", "$.stages[0]"),
        ("data: digits", "data: {sourse: digits}", "$.data"),
        ("task: classification", "task: classifying", "$.task"),
        ("target: openvino:bf16", "target: {runtime: openwine}", "$.target"),
        ("target: openvino:bf16", "budget: {max_latency_ms: 3ms}", "$.budget.max_latency_ms"),
        ("target: openvino:bf16", "targets: openvino", "$"),
        ("task: classification\n", "", "$"),
    ],
)
def test_mistakes_are_underlined(
    validator: Draft202012Validator, right: str, wrong: str, place: str
):
    assert right in GOOD
    assert underlined(validator, GOOD.replace(right, wrong)) == [place]


def test_names_and_words_are_there_to_be_offered():
    schema = lilliput.schema()
    told = json.dumps(schema)
    assert set(schema["$defs"]) >= {f"stage.{name}" for name in STAGES}
    for word in ("cifar10", "super_resolution", "onnxruntime"):
        assert f'"{word}"' in told
    epochs = schema["$defs"]["stage.finetune"]["properties"]["epochs"]
    assert epochs["minimum"] == 0
    assert epochs["description"]


def test_the_verb_prints_or_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from lilliput import cli

    def call(*argv: str) -> str:
        with pytest.raises(SystemExit) as left:
            cli.main(["schema", *argv])
        assert left.value.code == 0
        return capsys.readouterr().out

    found: dict[str, Any] = lilliput.schema()
    assert json.loads(call()) == found
    target = tmp_path / "deep" / "recipe.schema.json"
    assert call("--out", str(target)) == f"wrote {target}\n"
    assert json.loads(target.read_text()) == found


@pytest.mark.parametrize("arm", ["[shrink]", "[distil]", "[{distill: {epochs: -1}}]", "distill"])
def test_what_is_wrong_within_an_arm_is_underlined(validator: Draft202012Validator, arm: str):
    assert underlined(validator, ARMS.replace("[finetune]", arm)) == ["$.stages[0]"]
