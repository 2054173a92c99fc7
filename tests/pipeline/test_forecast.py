"""How long a run will take, said before it and while it goes on (users-ask 31)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lilliput import forecast
from lilliput.context import Context
from lilliput.distill import speed
from lilliput.distill.speed import Gear, seconds_an_answer, seconds_an_example
from lilliput.forecast import ANSWER, CUT, Forecast, foreseen, told
from lilliput.network import Network
from lilliput.pipeline import execute
from lilliput.recipe import Recipe
from lilliput.runs.folder import RunFolder
from lilliput.testing import Heard, tiny_context
from lilliput.testing.tiny import TinyResidual
from lilliput.verbs.check import check

EXAMPLES = 96
"""Of `tiny_data`'s training split."""


@pytest.fixture
def paced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A world in which an example takes a second of training, and an answer none."""
    monkeypatch.setattr(forecast, "seconds_an_example", lambda *_: (1.0, 2.0))
    monkeypatch.setattr(forecast, "seconds_an_answer", lambda *_: (0.0, 0.0))
    return tiny_context(tmp_path)


def stages_of(*stages: object):  # type: ignore[no-untyped-def]
    plain = {"model": "a.py:b", "data": "digits", "task": "classification"}
    return Recipe.model_validate({**plain, "stages": stages}).stages


def test_a_larger_teacher_takes_longer_to_answer(paced: Context) -> None:
    wide = Network(TinyResidual(32).eval(), paced.original.the_network().inputs, "wide")
    stages = stages_of({"distill": {"epochs": 1, "batch_size": 32}}, "export")
    plain, taught = (
        foreseen(stages, replace(paced, other_teacher=teacher)).stages[0]
        for teacher in (None, wide)
    )
    assert taught[0] == plain[0]
    assert taught[1] > 3 * plain[1]


def test_a_training_takes_its_epochs_at_the_pace_of_the_original(paced: Context) -> None:
    found = foreseen(
        stages_of(
            {"finetune": {"epochs": 2, "batch_size": 32}},
            {"pack_dct": {"epochs": 2, "rounds": 3, "batch_size": 32}},
            {"prune_weights": {"density": 0.5, "epochs": 30, "minutes": 1, "batch_size": 32}},
            "export",
        ),
        paced,
    )
    epoch = EXAMPLES * CUT, EXAMPLES * 2 * (1 + ANSWER)
    assert found.stages[0] == pytest.approx((2 * epoch[0], 2 * epoch[1]))
    assert found.stages[1] == pytest.approx((6 * epoch[0], 6 * epoch[1]))
    assert found.stages[2] == (60.0, 60.0)
    assert found.left(4)[1] == pytest.approx(found.stages[3][1] + found.files[1])
    assert found.whole[0] == pytest.approx(sum(low for low, _ in [*found.stages, found.files]))
    assert Forecast.from_json(found.as_json()) == found


def test_what_a_stage_gives_is_what_the_next_has_to_do(paced: Context) -> None:
    short = {"finetune": {"epochs": 1, "batch_size": 32}}
    plain = foreseen(stages_of(short), paced).stages[0]
    shrunk = foreseen(stages_of({"shrink": {"minutes": 2, "finalists": 2}}, short), paced)
    assert shrunk.stages == (
        (120.0, 120.0),
        pytest.approx((2 * plain[0], 3 * plain[1])),
    )
    arms = foreseen(stages_of({"arms": {"a": [short], "b": [], "c": [short, short]}}, short), paced)
    assert arms.stages[:3] == (plain, plain, plain)
    assert arms.stages[3] == pytest.approx((3 * plain[0], 3 * plain[1]))


def test_zeros_that_the_size_does_not_ask_for_take_no_time(paced: Context) -> None:
    stages = stages_of({"prune_weights": {"density": "size", "epochs": 30}})
    roomy = replace(paced, budget=paced.budget.model_copy(update={"max_bytes": 10**6}))
    assert foreseen(stages, roomy).stages == ((0.0, 0.0),)


def test_a_network_that_cannot_be_trained_is_forecast_without_a_pace(
    paced: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> tuple[float, float]:
        raise RuntimeError("only in training mode")

    monkeypatch.setattr(forecast, "seconds_an_example", fails)
    bounded = {"prune_weights": {"density": 0.5, "epochs": 30, "minutes": 1}}
    found = foreseen(stages_of({"finetune": {"epochs": 1}}, bounded, "export"), paced)
    assert [told(span) for span in found.stages] == ["not known", "0 s to 1 min", "1 s to 5 s"]
    assert told(found.whole) == "not known"


@pytest.mark.parametrize(
    ("span", "says"),
    [
        ((0.0, 0.4), "about 1 s"),
        ((40.0, 50.0), "about 50 s"),
        ((30.0, 127.0), "30 s to 2 min 10 s"),
        ((1000.0, 4000.0), "17 min to 1 h 7 min"),
    ],
)
def test_a_time_is_said_as_exactly_as_it_is_known(span: tuple[float, float], says: str) -> None:
    assert told(span) == says


def test_the_pace_is_taken_with_the_gear_of_the_run_and_within_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = replace(tiny_context(tmp_path), train_threads=2, train_precision="bfloat16")
    network = context.original.the_network()
    sizes: list[int] = []

    def slow(_module: object, inputs: tuple[torch.Tensor, ...], gear: Gear) -> float:
        assert gear == Gear(2, "bfloat16")
        sizes.append(len(inputs[0]))
        return 0.05 * len(inputs[0])

    monkeypatch.setattr(speed, "_pass", slow)
    assert seconds_an_example(network, context) == pytest.approx((0.05, 0.05))
    assert sizes[0] == speed.FEW
    assert 0.05 * sum(sizes) <= speed.PROBED
    assert len(sizes) == 2


def test_taking_the_pace_changes_neither_the_network_nor_the_random_numbers(
    tmp_path: Path,
) -> None:
    context = tiny_context(tmp_path)
    network = context.original.the_network()
    before = {name: t.clone() for name, t in network.module.state_dict().items()}
    state = torch.get_rng_state()
    for low, high in (seconds_an_example(network, context), seconds_an_answer(network, context)):
        assert 0 < low <= high
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], t) for name, t in network.module.state_dict().items())


def test_the_plan_and_the_run_say_how_long_it_takes(home: Path) -> None:
    recipe = Recipe.model_validate(
        {
            "model": f"{home}/net.py:build",
            "data": f"{home}/photos.py:examples",
            "task": "classification",
            "stages": [{"finetune": {"epochs": 1, "batch_size": 32}}, "export"],
        }
    )
    plan = check(recipe)
    assert f"time      {told(plan.forecast.whole)}; no --time-budget is set" in str(plan)
    assert 0 < plan.forecast.stages[0][0] < plan.forecast.stages[0][1] < 60
    watched = Heard()
    with RunFolder.create(home / "run", recipe) as folder:
        execute(recipe, folder, watched)
        journalled = folder.journal.recall("how long it takes")
    assert journalled is not None
    ahead = Forecast.from_json(journalled)
    first, second = (line for line in watched.lines if line.startswith("stage "))
    rest = f"{told(ahead.stages[0])}; to the end of the run {told(ahead.whole)}"
    assert first == f"stage 1 of 2: finetune, {rest}"
    assert second.endswith(f"to the end of the run {told(ahead.left(2))}")
