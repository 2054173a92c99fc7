"""Candidates timed beside their reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lilliput.candidate import Candidate
from lilliput.meter import candidates
from lilliput.meter.candidates import with_latency
from lilliput.meter.stopwatch import Pace, compare_files
from lilliput.opening import timing_seconds
from lilliput.steps.export import Export
from lilliput.testing import tiny_context, tiny_network


def test_a_session_takes_what_the_run_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed: list[float] = []

    def watched(files: Any, reference: str, pace: Pace, **more: Any) -> Any:
        allowed.append(pace.max_seconds)
        return compare_files(files, reference, Pace(max_seconds=0.1), **more)

    monkeypatch.setattr(candidates, "compare_files", watched)
    context = tiny_context(tmp_path, timing_seconds=3.0)
    file = Export().apply(Candidate("net", network=tiny_network()), context)
    with_latency([file], file, context)
    with_latency([file], file, replace(context, timing_seconds=0.5))
    assert allowed == [3.0, 0.5]


@pytest.mark.parametrize(
    ("minutes", "seconds"), [(None, 20), (0.1, 2), (0.5, 3), (2, 12), (240, 20)]
)
def test_timing_keeps_the_time_budget(minutes: float | None, seconds: float) -> None:
    # users-ask 31: the time allowed is for the whole, measuring included
    assert timing_seconds(minutes) == seconds
