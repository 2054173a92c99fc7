"""The front against brute force, and what is recommended from it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput.artifact import Artifact
from lilliput.budget import Budget
from lilliput.candidate import Candidate
from lilliput.measurement import Measurement
from lilliput.runs.front import (
    NO_GAIN,
    NOT_FASTER,
    RANKED,
    beats,
    label_gains,
    pareto,
    recommend,
    what_would_reach,
)


def candidate(
    name: str,
    *,
    ratio: float | None = None,
    noise: float = 0.0,
    size: int = 1000,
    drop: float = 0.0,
    latency: float | None = None,
    parent: str | None = None,
    stage: str = "export",
) -> Candidate:
    figures = [
        Measurement(quantity="bytes", value=size, unit="B"),
        Measurement(quantity="drop", value=drop, unit="points"),
    ]
    if ratio is not None:
        around = (ratio - noise, ratio + noise)
        figures.append(Measurement(quantity="ratio", value=ratio, unit="", interval=around))
        figures.append(Measurement(quantity="latency", value=latency or ratio * 10, unit="ms"))
    artifact = Artifact(path=Path(f"{name}.onnx"), format="onnx", bytes=size, sha256="")
    made = Candidate(id=name, artifact=artifact, parent=parent, stage=stage)
    return made.measured(*figures)


def network(name: str, parent: str | None) -> Candidate:
    return Candidate(id=name, network=object(), parent=parent, stage="prune")  # type: ignore[arg-type]


few = st.sampled_from([0.5, 0.6, 0.7, 0.8, 1.0])
crowd = st.lists(
    st.tuples(few, st.sampled_from([0.0, 0.05, 0.15]), st.sampled_from([1, 2, 3]), few),
    max_size=9,
).map(
    lambda rows: [
        candidate(f"c{n}", ratio=r, noise=noise, size=size, drop=drop)
        for n, (r, noise, size, drop) in enumerate(rows)
    ]
)


@given(crowd)
def test_without_noise_the_front_is_the_textbooks(candidates: list[Candidate]):
    exact = [
        c.measured(c.measurements["ratio"].model_copy(update={"interval": None}))
        for c in candidates
    ]

    def textbook(a: Candidate, b: Candidate) -> bool:
        pairs = [(a.value(q), b.value(q)) for q in RANKED]
        return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)

    expected = [c.id for c in exact if not any(textbook(o, c) for o in exact)]
    assert [c.id for c in pareto(exact)] == expected


@given(crowd)
def test_noise_only_ever_keeps_more_files(candidates: list[Candidate]):
    exact = [
        c.measured(c.measurements["ratio"].model_copy(update={"interval": None}))
        for c in candidates
    ]
    assert {c.id for c in pareto(exact)} <= {c.id for c in pareto(candidates)}
    assert bool(pareto(candidates)) == bool(candidates)


@given(crowd)
def test_off_the_front_are_those_that_a_file_nowhere_worse_clearly_beats(
    candidates: list[Candidate],
):
    front = pareto(candidates)
    for out in (c for c in candidates if c not in front):
        assert any(
            all(c.value(q) <= out.value(q) for q in RANKED)
            and any(beats(c.measurements[q], out.measurements[q]) for q in RANKED)
            for c in candidates
        )
    for one, other in itertools.permutations(front, 2):
        assert not (
            all(one.value(q) <= other.value(q) for q in RANKED)
            and any(beats(one.measurements[q], other.measurements[q]) for q in RANKED)
        )


def test_overlapping_intervals_rank_nobody():
    # users-ask 8
    a, b = candidate("a", ratio=0.50, noise=0.02), candidate("b", ratio=0.53, noise=0.02)
    assert [c.id for c in pareto([a, b])] == ["a", "b"]
    clear = candidate("b", ratio=0.55, noise=0.02)
    assert [c.id for c in pareto([a, clear])] == ["a"]


def test_unmeasured_files_and_those_without_gain_stay_off_the_front():
    a, b = candidate("a", ratio=0.9), candidate("b")
    useless = candidate("c", ratio=0.1).labelled(NO_GAIN)
    assert [c.id for c in pareto([a, b, useless])] == ["a"]
    assert pareto([]) == ()


def test_the_fastest_within_the_budget_is_recommended():
    files = [
        candidate("slow", ratio=0.9, drop=0.0),
        candidate("good", ratio=0.5, drop=0.5),
        candidate("lossy", ratio=0.2, drop=3.0),
    ]
    best, missed = recommend(files, Budget(max_drop=1.0))
    assert best is not None
    assert (best.id, missed) == ("good", ())
    assert recommend(files, Budget())[0].id == "lossy"  # type: ignore[union-attr]


def test_among_equally_fast_files_the_one_that_loses_least():
    files = [
        candidate("a", ratio=0.50, noise=0.02, drop=0.4, size=900),
        candidate("b", ratio=0.51, noise=0.02, drop=0.2, size=1000),
        candidate("c", ratio=0.51, noise=0.02, drop=0.2, size=990),
        candidate("d", ratio=0.60, noise=0.02, drop=0.0),
    ]
    assert recommend(files, Budget(max_drop=1.0))[0].id == "c"  # type: ignore[union-attr]


def test_a_missed_budget_gives_the_closest_file_and_what_would_reach_it():
    # users-ask 14: files exist, the closest is named, and by how much it misses
    files = [
        candidate("a", ratio=0.5, latency=4.04, drop=0.5, size=190_000),
        candidate("b", ratio=0.3, latency=2.5, drop=1.301, size=190_000),
        candidate("c", ratio=0.2, latency=2.0, drop=9.0, size=290_000),
    ]
    budget = Budget(max_latency_ms=3, max_drop=1.0, max_bytes=200_000)
    best, missed = recommend(files, budget)
    assert best is not None
    assert best.id == "b"
    assert [str(m) for m in missed] == [
        "drop 1.301 points misses the limit of 1 points by 0.301 points"
    ]
    said = what_would_reach(files, budget)
    assert said == "the files at hand would keep --max-latency 4.04ms, or --max-drop 1.31"
    assert what_would_reach(files, Budget(max_drop=1.0)) == ""
    assert what_would_reach([], budget) == ""
    both = what_would_reach([files[2]], budget)
    assert both == "the files at hand would keep --max-size 290kB --max-drop 9"


def test_limits_on_macs_and_files_without_the_figure():
    plain = candidate("a", ratio=0.5)
    counted = plain.measured(Measurement(quantity="macs", value=20_412_345, unit="MACs"))
    assert recommend([plain], Budget(max_macs=1e6)) == (None, ())
    best, missed = recommend([plain, counted], Budget(max_macs=1e6))
    assert best is counted
    assert len(missed) == 1
    assert what_would_reach([counted], Budget(max_macs=1e6)).endswith("--max-macs 20.5M")


def test_what_was_said_to_reach_the_budget_does():
    files = [candidate("a", ratio=0.5, latency=3.14159, drop=0.123456, size=123_456)]
    for budget in (Budget(max_latency_ms=1), Budget(max_bytes=10), Budget(max_drop=0.01)):
        said = what_would_reach(files, budget).rpartition("--")[2].split()
        from lilliput.units import parse_bytes, parse_duration_ms

        loosened = {
            "max-latency": lambda text: Budget(max_latency_ms=parse_duration_ms(text)),
            "max-size": lambda text: Budget(max_bytes=parse_bytes(text)),
            "max-drop": lambda text: Budget(max_drop=float(text)),
        }[said[0]](said[1])
        assert not loosened.misses(files[0].measurements)


def labels(candidates: list[Candidate]) -> dict[str, tuple[str, ...]]:
    return {c.id: c.labels for c in label_gains(candidates)}


def test_files_that_gain_nothing_over_their_parent_say_so():
    # users-ask 1
    original = candidate("original", ratio=1.0, stage="original")
    told = labels(
        [
            original,
            network("original-prune", "original"),
            candidate("pruned", ratio=0.99, noise=0.02, parent="original-prune"),
            candidate("fast", ratio=0.5, parent="pruned", stage="quantize"),
            candidate("small", ratio=1.2, size=300, parent="pruned", stage="quantize"),
            candidate("packed", ratio=1.2, size=300, parent="pruned", stage="pack"),
            candidate("worse", ratio=1.2, size=1200, drop=1.0, parent="pruned", stage="quantize"),
            candidate("untimed", parent="pruned", stage="quantize"),
        ]
    )
    assert told == {
        "original": (),
        "original-prune": (),
        "pruned": (NO_GAIN,),
        "fast": (),
        "small": (NOT_FASTER,),
        "packed": (),
        "worse": (NO_GAIN,),
        "untimed": (),
    }


def test_the_parent_of_a_file_is_the_file_of_the_network_it_was_cut_from():
    told = labels(
        [
            network("n1", "original"),
            candidate("n1-export", ratio=0.5, parent="n1"),
            network("n2", "n1"),
            candidate("n2-export", ratio=0.6, size=1001, parent="n2"),
        ]
    )
    assert told["n2-export"] == (NO_GAIN,)
    assert told["n1-export"] == ()


def test_a_figure_that_is_missing_beats_nobody():
    figure = Measurement(quantity="x", value=1, unit="")
    assert not beats(None, figure)
    assert not beats(figure, None)
    assert beats(figure, figure.model_copy(update={"value": 2.0}))


@pytest.mark.parametrize("quantities", [("bytes",), ("drop", "bytes")])
def test_other_quantities_can_span_a_front(quantities: tuple[str, ...]):
    files = [candidate("a", size=1, drop=2.0), candidate("b", size=2, drop=1.0)]
    assert len(pareto(files, quantities)) == len(quantities)
