"""Choosing what to train in full."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lilliput.search.finalists import (
    MOST_RECOVERY,
    Screened,
    correction,
    left_after,
    next_finalist,
    next_to_screen,
    undominated,
)

figures = st.floats(0.01, 10, allow_nan=False)
architectures = st.lists(st.tuples(figures, figures, figures), min_size=1, max_size=12).map(
    lambda rows: [Screened(str(n), *row) for n, row in enumerate(rows)]
)


@given(architectures)
def test_nothing_kept_is_beaten_and_everything_dropped_is(found: list[Screened]) -> None:
    kept = undominated(found)
    assert kept == sorted(kept, key=lambda a: a.cost)
    for one in kept:
        assert not any(other.cost <= one.cost and other.capacity > one.capacity for other in found)
    for gone in set(found) - set(kept):
        assert any(k.cost <= gone.cost and k.capacity >= gone.capacity for k in kept)


def test_the_fastest_that_should_keep_the_limit_is_trained_first() -> None:
    found = [Screened("a", 1, 1, 9.0), Screened("b", 2, 2, 2.5), Screened("c", 3, 3, 1.0)]
    chosen = next_finalist(found, {}, allowed_drop=1.0)
    assert chosen is not None
    assert chosen.key == "b"  # 9.0 would leave 1.35 points at the prior, 2.5 leaves 0.4


def test_a_failure_sends_the_search_to_gentler_cuts() -> None:
    found = [Screened("a", 1, 1, 4.0), Screened("b", 2, 2, 2.5), Screened("c", 3, 3, 1.0)]
    chosen = next_finalist(found, {"b": 1.4}, allowed_drop=1.0)
    assert chosen is not None
    assert chosen.key == "c"


def test_a_success_sends_it_to_faster_ones_and_never_to_slower() -> None:
    found = [Screened("a", 1, 1, 4.0), Screened("b", 2, 2, 2.5), Screened("c", 3, 3, 1.0)]
    chosen = next_finalist(found, {"b": 0.2}, allowed_drop=1.0)
    assert chosen is not None
    assert chosen.key == "a"
    assert next_finalist(found, {"b": 0.2, "a": 1.2}, allowed_drop=1.0) is None


def test_with_nothing_hopeful_the_closest_is_tried() -> None:
    found = [Screened("a", 1, 1, 80.0), Screened("b", 2, 2, 60.0)]
    chosen = next_finalist(found, {}, allowed_drop=0.1)
    assert chosen is not None
    assert chosen.key == "b"


def test_without_a_limit_the_widest_gap_is_filled() -> None:
    found = [Screened(str(n), float(n), float(n), 1.0) for n in range(5)]
    first = next_finalist(found, {}, None)
    assert first is not None
    assert first.key == "2"
    second = next_finalist(found, {"2": 0.0}, None)
    assert second is not None
    assert second.cost in (0.0, 4.0)


def test_what_finished_is_weighed_against_the_prior_and_lossless_screens_are_ignored() -> None:
    found = [Screened("a", 1, 1, 4.0, left=0.25), Screened("b", 1, 1, 0.0)]
    assert correction(found, {}) == 1.0
    assert math.isclose(correction(found, {"a": 3.0, "b": 0.4}), 2.0)


def test_a_longer_training_is_expected_to_leave_less() -> None:
    assert left_after(0.5) == left_after(1.0) == 1.0
    assert math.isclose(left_after(60), 0.28, abs_tol=0.01)
    assert left_after(1e9) == MOST_RECOVERY


def test_in_little_time_a_gentler_cut_is_chosen() -> None:
    found = [Screened("a", 1, 1, 4.0), Screened("b", 2, 2, 2.5), Screened("c", 3, 3, 1.0)]
    for times, key in ((1000, "a"), (40, "b"), (3, "c")):
        hurried = [replace(one, left=left_after(times)) for one in found]
        chosen = next_finalist(hurried, {}, allowed_drop=0.9)
        assert chosen is not None
        assert chosen.key == key


def test_one_lucky_training_does_not_make_hopeless_cuts_hopeful() -> None:
    found = [Screened("a", 1, 1, 51.0), Screened("b", 2, 2, 3.5), Screened("c", 3, 3, 1.0)]
    chosen = next_finalist(found, {"c": 0.0}, allowed_drop=0.9)
    assert chosen is not None
    assert chosen.key == "b"


@given(architectures, st.floats(0, 5))
def test_the_choice_is_always_untrained_and_the_search_ends(
    found: list[Screened], limit: float
) -> None:
    final: dict[str, float] = {}
    for _ in range(len(found) + 1):
        chosen = next_finalist(found, final, limit)
        if chosen is None:
            break
        assert chosen.key not in final
        final[chosen.key] = chosen.drop * 0.3
    assert next_finalist(found, final, limit) is None or len(final) <= len(found)


def screened_in_turn(keys: list[str], hopeful: Callable[[str], bool]) -> list[str]:
    verdicts: dict[str, bool] = {}
    while (key := next_to_screen(keys, verdicts)) is not None:
        assert key not in verdicts
        verdicts[key] = hopeful(key)
    return list(verdicts)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_fastest_hopeful_cut_and_its_neighbours_are_found_by_halving(
    count: int, edge: int
) -> None:
    keys = [str(n) for n in range(count)]
    tried = screened_in_turn(keys, lambda key: int(key) >= edge)
    soon = tried[: math.ceil(math.log2(count + 1)) + 4]
    assert set(keys[max(edge - 2, 0) : edge + 3]) <= set(soon)


@given(st.lists(st.booleans(), max_size=30))
def test_each_is_screened_once_whatever_chance_says(hopes: list[bool]) -> None:
    keys = [str(n) for n in range(len(hopes))]
    assert sorted(screened_in_turn(keys, lambda key: hopes[int(key)])) == sorted(keys)


def test_a_deep_network_is_screened_where_its_limit_is() -> None:
    """ResNet-56 has 33 architectures worth a look: eight from the gentlest on were b1 to b8."""
    keys = [f"b{n}" for n in range(33, 0, -1)]
    tried = screened_in_turn(keys, lambda key: int(key[1:]) <= 13)
    assert tried[:6] == ["b17", "b8", "b12", "b14", "b13", "b15"]
