"""A recipe from end to end, on a network of a thousand weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from lilliput.budget import Budget
from lilliput.errors import LilliputError, Refused
from lilliput.export.onnx_file import export_network
from lilliput.forecast import Forecast
from lilliput.opening import load_examples
from lilliput.pipeline import execute
from lilliput.planning import Bounds, Plan
from lilliput.recipe import Recipe
from lilliput.runs.folder import RunFolder
from lilliput.runs.front import LOSES
from lilliput.runtimes.null import NullRuntime
from lilliput.steps.distill import Distill
from lilliput.target import Target
from lilliput.tasks import task_of
from lilliput.testing import tiny_data, tiny_network
from lilliput.verbs.check import check_goals
from lilliput.verbs.compress import compress, recipe_for

RECIPE = """
model: {{factory: "{home}/net.py:build", weights: "{home}/net.safetensors"}}
data: "{home}/photos.py:examples"
task: classification
preprocessing: {{mean: [0.4], std: [0.2]}}
budget: {{max_drop: {max_drop}}}
stages:
  - prune_channels: {{ratio: 0.25, multiple_of: 1}}
  - distill: {{epochs: 1, batch_size: 16}}
  - export: {{}}
  - quantize: {{calibration_images: 16}}
"""


def recipe(home: Path, max_drop: float = 100.0) -> Recipe:
    return Recipe.parse(RECIPE.format(home=home, max_drop=max_drop))


def run(home: Path, name: str = "run", **settings: float):  # type: ignore[no-untyped-def]
    with RunFolder.create(home / name, recipe(home, **settings)) as folder:
        return execute(recipe(home, **settings), folder)


def test_every_file_is_measured_and_the_best_one_opens_anywhere(home: Path) -> None:
    result = run(home)
    chain = "original-prune_channels-distill"
    assert {c.id for c in result.candidates} == {
        "original-fp32",
        f"{chain}-fp32",
        f"{chain}-int8",
    }
    for candidate in result.candidates:
        assert candidate.measurements.keys() >= {
            *("bytes", "latency", "latency_p90", "ratio", "macs", "params", "metric", "drop"),
        }
        artifact = candidate.the_artifact()
        assert candidate.value("bytes") == artifact.path.stat().st_size
    assert result.exit_code == 0
    assert result.best_file is not None
    session = onnxruntime.InferenceSession(result.best_file)
    pictures = np.zeros((3, 3, 8, 8), np.float32)
    assert session.run(None, {session.get_inputs()[0].name: pictures})[0].shape == (3, 4)
    for name in ("recipe.yaml", "environment.json", "journal.jsonl", "report.md", "front.csv"):
        assert (result.path / name).stat().st_size > 0
    assert json.loads((result.path / "report.json").read_text())


def test_the_test_split_is_scored_only_for_what_is_delivered(home: Path) -> None:
    result = run(home)
    tested = {c.id for c in result.candidates if "test_metric" in c.measurements}
    assert tested == {"original-fp32", *(c.id for c in result.front), result.best.id}


@pytest.mark.usefixtures("scripted_stopwatch")
def test_a_run_that_dies_goes_on_without_doing_anything_twice(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = run(home, "undisturbed")
    monkeypatch.setenv("LILLIPUT_DEBUG", "1")

    def die(*_: object) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as cut:
        cut.setattr(Distill, "apply", die)
        with pytest.raises(RuntimeError, match="power cut"):
            run(home, "run")
    pruned = home / "run" / "networks" / "original-prune_channels.safetensors"
    before = pruned.stat().st_mtime_ns
    with RunFolder.open(home / "run") as folder:
        resumed = execute(recipe(home), folder)
    assert pruned.stat().st_mtime_ns == before
    ours = {c.id: c.the_artifact().sha256 for c in resumed.candidates}
    assert ours == {c.id: c.the_artifact().sha256 for c in undisturbed.candidates}


def test_a_candidate_that_fails_is_a_row_of_the_report(home: Path) -> None:
    """users-ask 6."""
    text = RECIPE.format(home=home, max_drop=100).replace(
        "calibration_images: 16", 'exclude: ["*"]'
    )
    broken = Recipe.parse(text)
    with RunFolder.create(home / "run", broken) as folder:
        with pytest.raises(LilliputError, match="nothing came out of stage 4"):
            execute(broken, folder)
        failures = folder.history().failures
    assert [f.stage for f in failures] == ["quantize"]


def test_what_a_cut_loses_beyond_the_limit_is_labelled_and_never_recommended(home: Path) -> None:
    """users-ask 15. Most channels go, nothing is trained, and the original is always right."""
    pictures = np.concatenate([tiny_data().train.inputs, tiny_data().test.inputs])
    np.savez(home / "pictures.npz", x=pictures)
    text = RECIPE.format(home=home, max_drop=1.0).replace("ratio: 0.25", "ratio: 0.75")
    text = text.replace("  - distill: {epochs: 1, batch_size: 16}\n", "")
    untrained = Recipe.parse(text.replace(f"{home}/photos.py:examples", f"{home}/pictures.npz"))
    with RunFolder.create(home / "run", untrained) as folder:
        result = execute(untrained, folder)
    cut = [c for c in result.candidates if "prune_channels" in c.id]
    assert len(cut) == 2
    assert all(c.value("drop") > 1.0 and LOSES in c.labels for c in cut)
    assert result.best is not None
    assert result.best.id == "original-fp32"
    assert LOSES not in result.best.labels
    assert result.exit_code == 0
    assert LOSES in (home / "run" / "report.md").read_text()


def test_a_missed_budget_still_leaves_files_and_says_by_how_much(home: Path) -> None:
    """users-ask 14."""
    goals = recipe(home).model_copy(
        update={"budget": recipe(home).budget.model_copy(update={"max_latency_ms": 1e-6})}
    )
    with RunFolder.create(home / "run", goals) as folder:
        result = execute(goals, folder)
    assert result.exit_code == 3
    assert result.best_file is not None
    assert result.best_file.is_file()
    assert "latency" in result.summary()
    assert "misses the limit" in result.summary()


def test_a_budget_below_the_minimum_is_refused_at_once(home: Path) -> None:
    """users-ask 35."""
    goals = replace_defaults(home, budget=Budget(max_bytes=1))
    with pytest.raises(Refused, match="below the minimum of") as error:
        check_goals(recipe_for(f"{home}/net.py:build", **goals))
    assert "--max-size" in str(error.value)


@pytest.mark.parametrize("form", ["class", "onnx"])
def test_a_latency_that_nothing_reaches_is_refused_at_once(home: Path, form: str) -> None:
    """users-ask 35. A run takes a millisecond by the script of `null`."""
    goals = replace_defaults(home, target=Target(runtime="null"))
    model = f"{home}/net.py:build"
    if form == "onnx":
        model = str(export_network(tiny_network(), home / "net.onnx").path)
        goals["weights"] = None
    with pytest.raises(Refused, match=r"budget of 0.5 ms is below the minimum of 1 ms") as error:
        check_goals(recipe_for(model, **goals | {"budget": Budget(max_latency_ms=0.5)}))
    assert "--max-latency 1ms" in str(error.value)
    plan = check_goals(recipe_for(model, **goals | {"budget": Budget(max_latency_ms=1.5)}))
    assert ", 1 ms\n" in str(plan)


def test_a_target_that_is_not_here_is_no_reason_to_refuse(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NullRuntime, "unavailable", lambda _: "pip install null")
    goals = replace_defaults(home, target=Target(runtime="null"), budget=Budget(max_latency_ms=0.5))
    assert check_goals(recipe_for(f"{home}/net.py:build", **goals)).bounds.least_ms is None


@pytest.mark.parametrize(
    ("minutes", "says"),
    [
        (0.5, "time      about 0.5 minutes, the time budget"),
        (None, "time      1 min 10 s to 3 min 40 s; no --time-budget is set"),
    ],
)
def test_the_plan_says_what_its_time_is(home: Path, minutes: float | None, says: str) -> None:
    goals = replace_defaults(home, time_budget_minutes=minutes)
    recipe = recipe_for(f"{home}/net.py:build", **goals)
    bounds = Bounds(macs=1, params=1, least_macs=1, least_params=1, least_bytes=1)
    forecast = Forecast(((60.0, 120.0), (0.0, 100.0)), (10.0, 0.0))
    plan = Plan(
        "net",
        bounds,
        tiny_data(),
        recipe.target,
        recipe.budget,
        ({"finetune": {}}, {"arms": {"a": [{"export": {}}], "b": []}}),
        minutes,
        forecast,
    )
    assert says in str(plan)
    assert "finetune: {}, 1 min to 2 min\n" in str(plan)
    assert "'b': []}, 0 s to 1 min 40 s\n" in str(plan)
    told = json.loads(json.dumps(plan.as_json(), allow_nan=False))
    assert told["seconds"] == [[60, 120], [0, 100]]
    assert told["data"]["train"] == len(tiny_data().train)
    assert told["stages"][0] == {"finetune": {}}


def replace_defaults(home: Path, **goals: object):  # type: ignore[no-untyped-def]
    given = {
        "weights": home / "net.safetensors",
        "data": f"{home}/photos.py:examples",
        "task": "classification",
        "target": "onnxruntime",
        "budget": None,
        "preprocessing": None,
        "input_shape": None,
        "seed": 0,
        "time_budget_minutes": 0.1,
        "epochs": 1,
    }
    return given | goals


@pytest.mark.slow
def test_compress_writes_the_recipe_that_it_ran_to_be_edited(home: Path) -> None:
    goals = replace_defaults(home)
    result = compress(f"{home}/net.py:build", **goals, out=home / "first")
    assert result.front
    again = Recipe.read(home / "first" / "recipe.yaml")
    assert [stage.name for stage in again.stages] == ["shrink", "export", "quantize"]
    assert "shrink" in str(check_goals(again))


def test_pictures_without_labels_are_an_ordinary_case(home: Path) -> None:
    pictures = np.concatenate([tiny_data().train.inputs, tiny_data().test.inputs])
    np.savez(home / "pictures.npz", x=pictures)
    stages = [
        {"shrink": {"widths": [0.5], "most_blocks": 1, "screen_steps": 1, "epochs": 0}},
        {"export": {}},
    ]
    plain = recipe(home).model_dump() | {"data": str(home / "pictures.npz"), "stages": stages}
    unlabelled = Recipe.model_validate(plain)
    with RunFolder.create(home / "run", unlabelled) as folder:
        result = execute(unlabelled, folder)
    assert not result.failures
    cut = next(c for c in result.candidates if "b1" in c.id)
    original = next(c for c in result.candidates if c.id == "original-fp32")
    assert original.value("metric") == 100
    assert cut.value("drop") == pytest.approx(100 - cut.value("metric"))
    assert "top-1 against the original, %" in result.table()
    report = (result.path / "report.md").read_text()
    assert "> **The validation and test examples have no labels: the original's own" in report


def test_the_plan_says_what_can_be_reached(home: Path) -> None:
    plan = str(check_goals(recipe_for(f"{home}/net.py:build", **replace_defaults(home))))
    assert "2 can be left out: block1, block2" in plan
    assert "stage     shrink" in plan


def test_a_recipe_says_how_training_pictures_are_changed(home: Path) -> None:
    plain = recipe(home)
    task = task_of("classification")

    def changed(*augment: str) -> Recipe:
        data = plain.data.model_copy(update={"augment": augment})
        return plain.model_copy(update={"data": data})

    assert load_examples(changed("nudge", "flip"), task).augment == ("nudge", "flip")
    assert load_examples(changed(), task).augment == ()
    with pytest.raises(LilliputError, match="no augmentation 'nudeg'") as refused:
        load_examples(changed("nudeg"), task)
    assert "nudge" in str(refused.value)
