"""Which members of a search become networks, under which names, and what is told of all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lilliput.candidate import Candidate
from lilliput.errors import NotThere
from lilliput.runs.history import History
from lilliput.runs.journal import JournalFile
from lilliput.steps.search_filters import SearchFilters
from lilliput.testing.tiny import tiny_context

BRIEF: dict[str, Any] = {
    "population": 6,
    "generations": 2,
    "screen_examples": 24,
    "rank_examples": 0,
    "screen_steps": 0,
    "tau_sample": 0,
    "points": 2,
    "epochs": 0,
    "refit_examples": 32,
    "max_drop": 90.0,
    "criterion": "l2",
}
NAME = "search_filters original"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[JournalFile]:
    with JournalFile(tmp_path / "journal.jsonl") as opened:
        yield opened


def searched(journal: JournalFile, **more: Any) -> dict[str, str]:
    """{genome: name} of what comes out."""
    context = replace(tiny_context(journal.path.parent), journal=journal)
    children: list[Candidate] = list(
        SearchFilters(**BRIEF, **more).explore(context.original, context)
    )
    return {child.settings["search_filters"]["genome"]: child.id for child in children}


def untold(journal: JournalFile, trained: dict[str, str]) -> list[str]:
    """Ids of members of the front that were not trained."""
    members = History.of(journal.entries).fronts[NAME]["members"]
    return [m["id"] for m in members if m["id"] not in trained and not m["beaten"]]


def trainings(journal: JournalFile) -> int:
    return sum(" train " in str(entry.facts.get("key")) for entry in journal.entries)


def test_who_is_asked_for_later_comes_beside_those_that_are_trained(journal: JournalFile) -> None:
    first = searched(journal)
    assert list(first.values()) == ["original-filters1", "original-filters2"]
    wanted = untold(journal, first)[0]
    count = len(journal.entries)
    second = searched(journal, deliver=(wanted,))
    assert second == first | {wanted: f"original-filters-{wanted}"}
    new = [entry.facts["key"] for entry in journal.entries[count:]]
    assert new == [f"{NAME} train original-filters-{wanted}"]
    # Nobody is trained twice under two names, whatever is asked for next.
    assert searched(journal) == second
    assert searched(journal, deliver=(*first, f"original/{wanted}")) == second
    assert trainings(journal) == 3


def test_in_a_new_run_only_those_are_trained_that_are_asked_for(
    journal: JournalFile, tmp_path: Path
) -> None:
    finalist = next(iter(searched(journal)))
    (tmp_path / "other").mkdir()
    with JournalFile(tmp_path / "other" / "journal.jsonl") as other:
        only = searched(other, deliver=(finalist,))
        assert only == {finalist: f"original-filters-{finalist}"}
        # A finalist that is there already keeps its name.
        assert searched(other)[finalist] == f"original-filters-{finalist}"
        assert trainings(other) == 2


def test_all_that_is_delivered_is_told_and_what_is_beaten_is_told_as_such(
    journal: JournalFile,
) -> None:
    first = searched(journal)
    told = {m["id"]: m for m in History.of(journal.entries).fronts[NAME]["members"]}
    assert set(first) <= set(told)
    evaluated = {
        str(entry.facts["key"]).rpartition(" ")[2]: entry.facts["result"]
        for entry in journal.entries
        if " genome " in str(entry.facts.get("key"))
    }
    for name, member in told.items():
        for objective, value in member["figures"].items():
            assert value == pytest.approx(evaluated[name][objective])
    beaten = next(name for name in evaluated if name not in told)
    searched(journal, deliver=(beaten,))
    facts = History.of(journal.entries).fronts[NAME]
    assert [m["id"] for m in facts["members"] if m["beaten"]] == [beaten]
    assert facts["objectives"] == {"loss": "%", "bytes": "B"}
    assert facts["members"][0]["parts"]["kept"].keys() == facts["original"]["kept"].keys()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (
            "{}0",
            r"search of 'original' has no member '.*'\n.*list its members; did you mean '{}'\?",
        ),
        ("other/{}", "this run has no search of 'other'"),
    ],
)
def test_who_is_not_there_is_an_error_that_names_the_nearest(
    journal: JournalFile, asked: str, says: str
) -> None:
    known = untold(journal, searched(journal))[0]
    with pytest.raises(NotThere, match=says.replace("{}", known)):
        searched(journal, deliver=(asked.replace("{}", known),))
