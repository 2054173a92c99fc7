"""The rungs between the first and the last, on one process and on several."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import pytest
import torch

from lilliput.runs.journal import JournalFile
from lilliput.search.delivering import explored
from lilliput.search.ladder import Workshop
from lilliput.search.searching import evolved, finalists
from lilliput.steps.search_bits import SearchBits
from lilliput.steps.search_filters import SearchFilters
from lilliput.testing.search_contracts import Halting
from lilliput.testing.tiny import tiny_context

BRIEF = {
    "population": 4,
    "generations": 1,
    "screen_examples": 24,
    "rank_examples": 48,
    "screen_steps": 2,
    "tau_sample": 2,
    "points": 1,
    "epochs": 1,
    "batch_size": 32,
    "refit_examples": 32,
    "max_drop": 90.0,
}


def search(stage, folder, workers, most=None):
    """The weights that are delivered, and all results in the journal but the times."""
    folder.mkdir(exist_ok=True)
    with JournalFile(folder / "journal.jsonl") as journal:
        writing = journal if most is None else Halting(journal, most)
        context = replace(tiny_context(folder), journal=writing, workers=workers)
        quest = stage.quest(context.original, context)
        found = list(explored(quest, context.original, suffix="found"))
        results = {
            entry.facts["key"]: entry.facts["result"]
            for entry in journal.entries
            if entry.event == "once"
        }
    for result in results.values():
        result.get("generation", {}).pop("minutes", None)
    return [child.the_network().module.state_dict() for child in found], results


def test_any_number_of_workers_and_a_stop_on_the_way_find_the_same_to_the_bit(tmp_path):
    stage = SearchBits(**BRIEF, filters="widths")
    weights, results = search(stage, tmp_path / "one", "1")
    trained = [n for n, key in enumerate(results) if " steps genome " in key]
    assert len(trained) >= 2
    others = [search(stage, tmp_path / "two", "2")]
    with pytest.raises(KeyboardInterrupt):
        search(stage, tmp_path / "stopped", "2", most=trained[0] + 1)
    others.append(search(stage, tmp_path / "stopped", "1"))
    for theirs, told in others:
        assert told == results
        for ours, other in zip(weights, theirs, strict=True):
            assert all(torch.equal(ours[name], other[name]) for name in ours)


def quest_of(folder, workers="2"):
    context = replace(tiny_context(folder), workers=workers)
    return SearchFilters(**BRIEF).quest(context.original, context)


def test_short_trainings_go_on_side_by_side(tmp_path, monkeypatch):
    """Each waits for another one, in vain if they came one after another."""
    quest, as_it_was, driver = quest_of(tmp_path), Workshop.trained, os.getpid()
    evolution = evolved(quest)

    def trained(shop, variant, training, *, epochs, key):
        assert os.getpid() != driver
        (tmp_path / f"begun {os.getpid()}").touch()
        until = time.monotonic() + 60
        while len(list(tmp_path.glob("begun *"))) < 2:
            assert time.monotonic() < until, "no other training is under way"
            time.sleep(0.01)
        return as_it_was(shop, variant, training, epochs=epochs, key=key)

    monkeypatch.setattr(Workshop, "trained", trained)
    assert finalists(quest, evolution)


@pytest.mark.parametrize("way", ["an error", "the death of its process"])
def test_a_short_training_that_fails_is_left_out_and_told(tmp_path, monkeypatch, way):
    monkeypatch.delenv("LILLIPUT_DEBUG", raising=False)
    as_it_was = Workshop.trained
    with JournalFile(tmp_path / "journal.jsonl") as journal:
        quest = quest_of(tmp_path)
        quest = replace(quest, context=replace(quest.context, journal=journal))
        evolution = evolved(quest)
        whole = quest.encoding.express(quest.encoding.seeds()[0])

        def trained(shop, variant, training, *, epochs, key):
            if variant == whole:
                if way != "an error":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise ValueError("no luck")
            return as_it_was(shop, variant, training, epochs=epochs, key=key)

        monkeypatch.setattr(Workshop, "trained", trained)
        chosen = finalists(quest, evolution)
        told = {
            entry.facts["key"].rpartition(" ")[2]: entry.facts["result"]
            for entry in journal.entries
            if " steps genome " in entry.facts.get("key", "")
        }
    failed = [result["failed"] for result in told.values() if "failed" in result]
    assert [failure["stage"] for failure in failed] == ["search_filters"]
    assert ("no luck" if way == "an error" else "died twice") in failed[0]["error"]
    assert all("loss" in result for result in told.values() if "failed" not in result)
    assert len(told) > 1
    assert whole not in [quest.variant(member) for member in chosen]
