"""Turns, bursts, and blocks that other processes disturbed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput.meter.rounds import Rounds, burst_size, warm_up
from lilliput.runtimes.null import NullSession, VirtualClock

FEED = [np.zeros((1, 1), np.float32)]


def scripted(*milliseconds: float) -> NullSession:
    """A session whose runs take these times, the last one for ever."""
    script = list(milliseconds)

    def times(count: int) -> np.ndarray:
        taken = [script.pop(0) if len(script) > 1 else script[0] for _ in range(count)]
        return (np.array(taken) * 1e6).astype(np.int64)

    session = NullSession(times=times)
    session.bind(FEED)
    return session


def test_a_slow_first_call_is_warmed_away() -> None:
    # users-ask 7: 2975 ms, then 2.5 ms
    assert warm_up(scripted(2975.0, 40.0, 9.0, 5.0, 2.5)) == 2.5e6


def test_warming_up_gives_up_on_a_file_that_is_never_steady() -> None:
    session = scripted(*(1.0 + (n % 2) for n in range(4000)))
    warm_up(session)
    assert session.clock() < 2.5


@pytest.mark.parametrize(
    ("run_ms", "turns", "seconds", "size"),
    [
        (0.05, 60, 20.0, (1, 30)),
        (0.25, 60, 20.0, (1, 6)),
        (0.5, 60, 20.0, (1, 3)),
        (10.0, 60, 20.0, (1, 3)),
        (100.0, 60, 20.0, (1, 2)),
        (200.0, 60, 20.0, (0, 1)),
        (5000.0, 60, 20.0, (0, 1)),
    ],
)
def test_bursts_suit_the_time_of_a_run(
    run_ms: float, turns: int, seconds: float, size: tuple[int, int]
) -> None:
    assert burst_size(run_ms * 1e6, turns=turns, max_seconds=seconds) == size


@given(st.floats(1e3, 1e10), st.integers(1, 1000), st.floats(0.1, 100.0))
def test_bursts_fit_into_the_time_or_are_single_runs(
    run_ns: float, turns: int, seconds: float
) -> None:
    unmeasured, timed = burst_size(run_ns, turns=turns, max_seconds=seconds)
    fits = (unmeasured + timed) * turns * run_ns <= seconds * 1e9 * 1.0001
    assert fits or (unmeasured, timed) == (0, 1)


def taker(loads: list[float], *, patience: float, names: str = "ab") -> Rounds:
    clock = VirtualClock()
    sessions = {}
    for name in names:
        sessions[name] = NullSession(clock=clock)
        sessions[name].bind(FEED)
    return Rounds(
        sessions,
        dict.fromkeys(names, (2, 5)),
        rng=np.random.default_rng(0),
        clock=clock,
        other_load=iter([0.0, *loads]).__next__,
        allowed=1.0,
        patience_seconds=patience,
    )


def test_a_block_ends_by_time_or_by_number() -> None:
    rounds = taker([0.0, 0.0], patience=1.0)
    rounds.take_block(1000)
    assert rounds.rounds == 29  # a round takes 14 ms, a block 0.4 s
    rounds.take_block(3)
    assert rounds.rounds == 32
    assert {name: runs.shape for name, runs in rounds.runs().items()} == {
        "a": (32, 5),
        "b": (32, 5),
    }


def test_disturbed_blocks_are_taken_again_while_patience_lasts() -> None:
    # users-ask 8
    rounds = taker([1.5, 0.2, 1.5, 1.5], patience=0.5)
    rounds.take_block(10)
    assert (rounds.rounds, rounds.retaken) == (0, 10)
    rounds.take_block(10)
    assert (rounds.rounds, rounds.disturbed_share) == (10, 0.0)
    rounds.take_block(10)
    assert (rounds.rounds, rounds.retaken) == (10, 20)
    rounds.take_block(30)
    assert rounds.retaken == 20, "patience is used up"
    assert rounds.disturbed_share == pytest.approx(29 / 39)
    assert rounds.mean_load == pytest.approx((10 * 0.2 + 29 * 1.5) / 39)


def test_the_order_of_turns_is_shuffled() -> None:
    order: list[str] = []
    sessions = {}
    for name in "abc":

        def times(count: int, name: str = name) -> np.ndarray:
            if count == 5:
                order.append(name)
            return np.full(count, 10)

        sessions[name] = NullSession(times=times)
        sessions[name].bind(FEED)
    rounds = Rounds(
        sessions,
        dict.fromkeys("abc", (2, 5)),
        rng=np.random.default_rng(1),
        clock=lambda: 0.0,
        other_load=lambda: 0.0,
        allowed=1.0,
        patience_seconds=0.0,
    )
    rounds.take_block(60)
    by_round = ["".join(order[i : i + 3]) for i in range(0, 180, 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in by_round)
    assert len(set(by_round)) == 6, "every order occurs"
