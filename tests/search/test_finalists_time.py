"""How the time that is left is shared among finalists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lilliput.budget import Budget
from lilliput.candidate import Candidate
from lilliput.measurement import Measurement
from lilliput.runs.journal import JournalFile
from lilliput.search.architectures import Architecture
from lilliput.search.finalists import Screened
from lilliput.search.pace import Pace
from lilliput.search.shrinking import Considered, Training
from lilliput.steps import shrink
from lilliput.steps.shrink import Shrink
from lilliput.testing import tiny_context, tiny_network


@pytest.mark.parametrize(
    ("settings", "finished", "spent", "minutes"),
    [
        ({"finalists": 2}, 0, 0, 30),
        ({"finalists": 2}, 1, 40, 20),
        ({"finalists": 2}, 1, 44, 0),
        ({"finalists": 5}, 2, 20, 40 / 3),
        ({"finalists": 5}, 1, 40, 20),
        ({"finalists": 1}, 3, 30, 30),
        ({"finalists": 1}, 3, 56, 0),
        ({"finalists": 2, "epochs": 3}, 1, 40, 0),
        ({"finalists": 2, "epochs": 3}, 1, 30, 30),
    ],
)
def test_a_further_finalist_gets_what_is_left_if_that_is_worth_a_training(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, int],
    finished: int,
    spent: float,
    minutes: float,
) -> None:
    step = Shrink(minutes=60, **settings)
    monkeypatch.setattr(shrink.time, "monotonic", lambda: 60.0 * spent)
    with JournalFile(tmp_path / "journal.jsonl") as journal:
        context = replace(tiny_context(tmp_path), journal=journal)
        assert step._minutes_for_next(0.0, finished, 60.0, context) == pytest.approx(minutes)
        monkeypatch.setattr(shrink.time, "monotonic", lambda: 60.0 * 59)
        again = step._minutes_for_next(0.0, finished, 60.0, context)
        assert again == pytest.approx(minutes), "a resumed run decides anew"


def trainings_of(
    step: Shrink,
    costs: dict[str, float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    minutes: float,
    seconds_a_step: float,
    max_drop: float | None,
    most_epochs: int = 1000,
) -> list[tuple[str, int]]:
    """(architecture, epochs) of the full trainings, of 100 steps an epoch, by a clock of its own.

    Each loses two points; the dearer ones lost less after their short trainings.
    """
    clock, asked = [0.0], []

    def trained(one: Any, training: Any, epochs: int, context: Any) -> Candidate:
        asked.append((one.architecture.key, epochs))
        clock[0] += epochs * 100 * seconds_a_step
        drop = Measurement(quantity="proxy_drop", value=2.0, unit="%", estimated=True)
        return Candidate(one.architecture.key, network=tiny_network()).measured(drop)

    monkeypatch.setattr(shrink, "trained_in_full", trained)
    monkeypatch.setattr(shrink, "epoch_steps", lambda training, context: 100)
    monkeypatch.setattr(shrink, "MOST_EPOCHS", most_epochs)
    monkeypatch.setattr(shrink, "MOST_STEPS", 0)
    monkeypatch.setattr(shrink.time, "monotonic", lambda: clock[0])
    pace = Pace(seconds_a_step)
    screened = [Screened(key, cost, 1.0, 3.0 / cost, pace) for key, cost in costs.items()]
    considered = [Considered(Architecture(one.key, (), 0.0, ()), None, 1) for one in screened]
    with JournalFile(tmp_path / "journal.jsonl") as journal:
        context = tiny_context(tmp_path)
        context = replace(context, journal=journal, budget=Budget(max_drop=max_drop))
        original, training = context.original, Training(0.03, 32, 10)
        list(step._finalists(original, considered, screened, training, minutes, context))
    return asked


@pytest.mark.parametrize(
    ("max_drop", "seconds_a_step", "epochs"),
    [
        pytest.param(1.0, 0.1, [20], id="half the time is too little"),
        pytest.param(1.0, 0.01, [100, 100], id="half the time is enough"),
        pytest.param(None, 0.1, [10, 10], id="without a limit finalists spread"),
    ],
)
def test_the_first_finalist_gets_all_the_time_where_half_is_too_little(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    max_drop: float | None,
    seconds_a_step: float,
    epochs: list[int],
) -> None:
    asked = trainings_of(
        Shrink(minutes=200 / 60),
        {"a": 1, "b": 2},
        tmp_path,
        monkeypatch,
        minutes=200 / 60,
        seconds_a_step=seconds_a_step,
        max_drop=max_drop,
    )
    assert [epochs for _, epochs in asked] == epochs


@pytest.mark.parametrize(("minutes", "trained"), [(1000 / 60, 4), (230 / 60, 2), (None, 1)])
def test_while_time_lasts_a_better_one_is_sought(  # users-ask 14
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float | None, trained: int
) -> None:
    asked = trainings_of(
        Shrink(minutes=minutes, finalists=1),
        {"a": 1, "b": 2, "c": 3, "d": 4},
        tmp_path,
        monkeypatch,
        minutes=minutes or 1000 / 60,
        seconds_a_step=0.1,
        max_drop=None,
        most_epochs=10,
    )
    assert len({key for key, _ in asked}) == len(asked) == trained
