"""How a search went, as the report tells it."""

from __future__ import annotations

from lilliput.reports.searches import HYPERVOLUME_SAYS, searches_of
from lilliput.runs.history import History
from lilliput.runs.journal import JournalFile


def test_generations_and_rungs_of_each_search(tmp_path):
    def facts(search, number, volume):
        return {
            "generation": {
                "search": search,
                "generation": number,
                "evaluated": 8 * number,
                "failed": 1,
                "infeasible": 3,
                "front": 4,
                "hypervolume": volume,
            }
        }

    rung = {"rung": {"search": "search_filters original", "tau": 0.4, "says": "do not trust it"}}
    with JournalFile(tmp_path / "journal.jsonl") as journal:
        journal.once("a 1", lambda: facts("search_filters original", 1, 0.25))
        journal.once("a 2", lambda: facts("search_filters original", 2, 0.5))
        journal.once("b 1", lambda: facts("search_bits original", 1, 0.75))
        journal.once("tau", lambda: rung)
        journal.note("anything", rung="sequential", generation=7)
        filters, bits = searches_of(History.of(journal.entries))
    assert filters.generations == [
        ["1", "8", "1", "3", "4", "0.2500"],
        ["2", "16", "1", "3", "4", "0.5000"],
    ]
    assert filters.says == ["do not trust it", HYPERVOLUME_SAYS]
    assert bits.name == "search_bits original"
    assert bits.says == [HYPERVOLUME_SAYS]
