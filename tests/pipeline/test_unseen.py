"""Validation examples that the original has learnt by heart are replaced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lilliput import unseen
from lilliput.data.dataset import Split
from lilliput.runs.journal import JournalFile
from lilliput.testing import tiny_context


def scored(seen: float, heard: float):  # type: ignore[no-untyped-def]
    """Scores of an original that knows `seen` % of validation and `heard` % of test."""
    turn = iter((seen, heard))

    def scores(_network, split, _context):  # type: ignore[no-untyped-def]
        right = next(turn) / 100
        count = max(len(split), 1)
        return np.where(np.arange(count) < right * count, 100.0, 0.0)

    return scores


def test_memorised_validation_is_drawn_from_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unseen, "scores_in_torch", scored(100.0, 60.0))
    context = tiny_context(tmp_path)
    data, why = unseen.with_unseen_validation(context)
    before = context.data
    assert "by heart (100.0 % against 60.4 on test)" in why
    assert len(data.validation) + len(data.test) == len(before.test)
    assert len(data.train) == len(before.train) + len(before.validation)
    together = np.concatenate([data.validation.inputs, data.test.inputs])
    assert sorted(map(bytes, together)) == sorted(map(bytes, before.test.inputs))


def test_an_honest_original_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unseen, "scores_in_torch", scored(90.0, 88.0))
    context = tiny_context(tmp_path)
    assert unseen.with_unseen_validation(context) == (context.data, "")


def test_splits_of_different_populations_are_not_compared(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    context = replace(context, data=replace(context.data, alike=False))
    assert unseen.with_unseen_validation(context) == (context.data, "")


@pytest.mark.parametrize("bare", ["validation", "test"])
def test_examples_without_labels_are_not_compared(tmp_path: Path, bare: str) -> None:
    context = tiny_context(tmp_path)
    data = replace(context.data, **{bare: Split(getattr(context.data, bare).inputs)})
    context = replace(context, data=data)
    assert unseen.with_unseen_validation(context) == (data, "")


def test_a_resumed_run_uses_the_same_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unseen, "scores_in_torch", scored(100.0, 60.0))
    path = tmp_path / "journal.jsonl"
    first, _ = unseen.with_unseen_validation(tiny_context(tmp_path, journal=JournalFile(path)))
    # The second time nothing is scored: the iterator above is exhausted.
    again, _ = unseen.with_unseen_validation(tiny_context(tmp_path, journal=JournalFile(path)))
    assert np.array_equal(first.validation.inputs, again.validation.inputs)


def test_splits_that_are_sorted_by_class_are_compared_by_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first examples are of a few classes, of which the network may know more, or less."""

    def scores(_network, split, _context):  # type: ignore[no-untyped-def]
        return np.where(split.targets < 2, 100.0, np.arange(len(split)) % 2 * 100.0)

    monkeypatch.setattr(unseen, "scores_in_torch", scores)
    monkeypatch.setattr(unseen, "EXAMPLES", 300)
    context = tiny_context(tmp_path)

    def by_class(count: int) -> Split:
        return Split(np.zeros((count, 1)), np.sort(np.arange(count) % 10))

    data = replace(context.data, validation=by_class(1000), test=by_class(4000))
    context = replace(context, data=data)
    assert unseen.with_unseen_validation(context) == (data, "")
