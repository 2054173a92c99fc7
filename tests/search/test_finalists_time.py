"""How the time that is left is shared among finalists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lilliput.runs.journal import JournalFile
from lilliput.steps import shrink
from lilliput.steps.shrink import Shrink
from lilliput.testing import tiny_context


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
