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
    clock, asked = [0.0], []

    def trained(one: Any, training: Any, epochs: int, context: Any) -> Candidate:
        asked.append(epochs)
        clock[0] += epochs * 100 * seconds_a_step
        drop = Measurement(quantity="proxy_drop", value=2.0, unit="%", estimated=True)
        return Candidate(one.architecture.key, network=tiny_network()).measured(drop)

    monkeypatch.setattr(shrink, "trained_in_full", trained)
    monkeypatch.setattr(shrink, "epoch_steps", lambda training, context: 100)
    monkeypatch.setattr(shrink, "MOST_EPOCHS", 1000)
    monkeypatch.setattr(shrink.time, "monotonic", lambda: clock[0])
    pace = Pace(seconds_a_step)
    screened = [Screened(key, cost, 1.0, 3.0 / cost, pace) for key, cost in (("a", 1), ("b", 2))]
    considered = [Considered(Architecture(one.key, (), 0.0, ()), None, 1) for one in screened]
    minutes = 200 / 60
    with JournalFile(tmp_path / "journal.jsonl") as journal:
        context = tiny_context(tmp_path)
        context = replace(context, journal=journal, budget=Budget(max_drop=max_drop))
        step, training = Shrink(minutes=minutes), Training(0.03, 32, 10)
        original = context.original
        list(step._finalists(original, considered, screened, training, minutes, context))
    assert asked == epochs
