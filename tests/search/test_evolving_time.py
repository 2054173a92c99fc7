"""How long a search evolves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lilliput.runs.journal import JournalFile
from lilliput.search import searching
from lilliput.search.evolution import Evolution
from lilliput.search.genomes import key_of
from lilliput.search.searching import Quest, evolved, finalists
from lilliput.steps.search_filters import SearchFilters
from lilliput.testing import tiny_context

BRIEF: dict[str, Any] = {
    "population": 8,
    "generations": 4,
    "screen_examples": 24,
    "rank_examples": 0,
    "screen_steps": 0,
    "refit_examples": 32,
    "criterion": "l2",
}


class Clock:
    """Runs only while a candidate is evaluated; `stop` says after how many Ctrl-C comes."""

    def __init__(self, seconds_each: float) -> None:
        self.now, self.each = 0.0, seconds_each
        self.evaluated, self.stop = 0, 10**6

    def figures(self, _quest: Any, genome: Any) -> dict[str, float]:
        if self.evaluated == self.stop:
            raise KeyboardInterrupt
        self.evaluated += 1
        self.now += self.each
        return {"loss": float(genome.sum()) / 100, "bytes": 1e6 / (1 + float(genome.sum()))}


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Clock]:
    def made(seconds_each: float) -> Clock:
        clock = Clock(seconds_each)
        monkeypatch.setattr(searching, "figures_of", clock.figures)
        monkeypatch.setattr(searching.time, "monotonic", lambda: clock.now)
        return clock

    return made


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Quest:
    context = tiny_context(tmp_path_factory.mktemp("quest"))
    return SearchFilters(**BRIEF).quest(context.original, context)


def search(
    endless: Quest, path: Path, minutes: float | None, *, retry: bool = False, **more: Any
) -> Evolution[Any]:
    """A session of the run with this journal: begun, or gone on with."""
    stage = SearchFilters(**{**BRIEF, **more}, minutes=minutes)
    with JournalFile(path) as journal:
        if retry:
            journal.forget_failures()
        quest = replace(
            endless,
            settings=stage,
            context=replace(endless.context, journal=journal),
        )
        evolution = evolved(quest)
        assert finalists(quest, evolution), "nothing is delivered"
    return evolution


# users-ask 31
@pytest.mark.parametrize(
    ("minutes", "seconds_each", "evaluated"),
    [
        pytest.param(1, 7, 9, id="in the second generation"),
        pytest.param(1, 7.5, 8, id="as the first generation ends"),
        pytest.param(1, 61, 1, id="in the first evaluation"),
        pytest.param(None, 61, 32, id="without a limit"),
    ],
)
def test_no_evaluation_begins_after_the_time(
    tmp_path: Path,
    endless: Quest,
    clocked: Callable[[float], Clock],
    minutes: float | None,
    seconds_each: float,
    evaluated: int,
) -> None:
    clock = clocked(seconds_each)
    found = search(endless, tmp_path / "run", minutes)
    assert clock.evaluated == len(found.archive) == evaluated
    clock = clocked(0.0)
    again = search(endless, tmp_path / "run", minutes)
    assert clock.evaluated == 0, "a resumed run decides anew"
    assert again.state() == found.state()


# users-ask 31
@pytest.mark.parametrize("stop", [5, 8], ids=["in the first generation", "in the second"])
def test_time_is_counted_over_sessions_by_the_generations_that_ended(
    tmp_path: Path, endless: Quest, clocked: Callable[[float], Clock], stop: int
) -> None:
    clocked(7)
    whole = search(endless, tmp_path / "whole", 1.3)
    clock = clocked(7)
    clock.stop = stop
    with pytest.raises(KeyboardInterrupt):
        search(endless, tmp_path / "stopped", 1.3)
    clock = clocked(7)
    found = search(endless, tmp_path / "stopped", 1.3)
    assert clock.evaluated + stop == len(found.archive)
    assert len(whole.archive) == 12
    if stop == 8:
        assert found.state() == whole.state()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("algorithm", ["nsga2", "paper"])
def test_what_failed_and_is_tried_again_changes_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str, seed: int
) -> None:
    # users-ask 30
    monkeypatch.delenv("LILLIPUT_DEBUG", raising=False)
    settings = {"algorithm": algorithm, "seed": seed, "generations": 6, "multiple_of": 1}
    context = tiny_context(tmp_path)
    quest = SearchFilters(**{**BRIEF, **settings}).quest(context.original, context)

    def figures(_quest: Any, genome: Any) -> dict[str, float]:
        return {"loss": float(genome.sum() % 5) / 100, "bytes": 400 * (1 + float(genome.sum()))}

    def unlucky(of: Any, genome: Any) -> dict[str, float]:
        if int(key_of(genome), 16) % 4 == 0:
            raise ValueError("out of memory")
        return figures(of, genome)

    monkeypatch.setattr(searching, "figures_of", figures)
    whole = search(quest, tmp_path / "whole", None, **settings)
    monkeypatch.setattr(searching, "figures_of", unlucky)
    first = search(quest, tmp_path / "run", None, **settings)
    assert any(member.outcome.failed for member in first.archive.values())
    monkeypatch.setattr(searching, "figures_of", figures)
    found = search(quest, tmp_path / "run", None, retry=True, **settings)
    assert found.state() == whole.state()
