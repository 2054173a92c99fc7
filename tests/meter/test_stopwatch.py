"""The stopwatch on scripted machines: it finds what is there and says ties where nothing is."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from lilliput.errors import LilliputError
from lilliput.meter.loads import LEAST_LOADS, rounds_a_load
from lilliput.meter.readings import FLOOR, FLOOR_BETWEEN_PROCESSES, Readings, Timing
from lilliput.meter.stopwatch import USUAL, Pace, collect, compare_files, most_threads
from lilliput.runtimes.null import NullRuntime, NullSession, VirtualClock, constant
from lilliput.target import Target

FEED = [np.zeros((1, 1), np.float32)]


def still(clock: VirtualClock, milliseconds: float, **conditions: object) -> NullSession:
    session = NullSession(times=constant(int(milliseconds * 1e6)), clock=clock)
    session.conditions = {**session.conditions, **conditions}
    session.bind(FEED)
    return session


def timed(
    sessions: dict[str, NullSession], pace: Pace = USUAL, **settings: object
) -> dict[str, Timing]:
    clock = next(iter(sessions.values())).clock
    settings = {"other_load": lambda: 0.0, **settings}
    reference = next(iter(sessions))
    return collect(sessions, reference, pace, clock=clock, **settings).timings(reference)


def test_figures_of_a_still_machine_are_exact() -> None:
    clock = VirtualClock()
    found = timed({"a": still(clock, 2.0), "b": still(clock, 1.0)})
    assert list(found) == ["a", "b"]
    b = found["b"]
    assert (b.median_ms, b.p90_ms, b.min_ms) == (1.0, 1.0, 1.0)
    assert (b.ratio, b.ratio_interval, b.verdict) == (0.5, (0.5, 0.5), "faster")
    assert b.rounds == 30
    assert b.runs == 90
    assert not b.unstable
    a = found["a"]
    assert (a.ratio, a.ratio_interval, a.verdict) == (1.0, (1.0, 1.0), "tie")
    assert b.conditions["noise_floor"] == FLOOR
    assert b.conditions["reference"] == "a"


def test_a_timing_gives_its_measurements() -> None:
    clock = VirtualClock()
    found = timed({"a": still(clock, 2.0), "b": still(clock, 1.0)})["b"].measurements()
    figures = {m.quantity: (m.value, m.unit, m.interval) for m in found}
    assert figures == {
        "latency": (1.0, "ms", (1.0, 1.0)),
        "latency_p90": (1.0, "ms", None),
        "ratio": (0.5, "", (0.5, 0.5)),
    }
    assert found[0].conditions["verdict"] == "faster"
    assert found[0].conditions["runs"] == 90


def test_a_slow_first_call_does_not_count() -> None:
    # users-ask 7
    clock = VirtualClock()
    first = [3_000_000_000]

    def times(count: int) -> np.ndarray:
        return np.array([first.pop() if first else 2_500_000 for _ in range(count)])

    slow_start = NullSession(times=times, clock=clock)
    slow_start.bind(FEED)
    found = timed({"a": still(clock, 2.5), "b": slow_start})
    assert (found["b"].median_ms, found["b"].verdict) == (2.5, "tie")


@pytest.mark.parametrize("noise", [{}, {"jitter": 0.15, "regime": 0.1}])
def test_nothing_is_found_where_nothing_is(
    noisy_machine: Callable[..., object], noise: dict[str, float]
) -> None:
    # users-ask 8: injected noise → rows tie
    verdicts = []
    for seed in range(12):
        machine = noisy_machine(seed, **noise)
        sessions = {"a": machine.session(1.0), "b": machine.session(1.0)}
        verdicts.append(timed(sessions, Pace(3.0), seed=seed)["b"].verdict)
    assert verdicts.count("tie") >= 11


@pytest.mark.parametrize(("factor", "says"), [(1.03, "slower"), (1 / 1.03, "faster")])
def test_three_percent_are_found(
    noisy_machine: Callable[..., object], factor: float, says: str
) -> None:
    verdicts = []
    for seed in range(6):
        machine = noisy_machine(100 + seed, jitter=0.03, regime=0.02)
        sessions = {"a": machine.session(1.0), "b": machine.session(factor)}
        verdicts.append(timed(sessions, Pace(20.0), seed=seed)["b"].verdict)
    assert verdicts.count(says) == 6


@pytest.mark.slow
def test_error_rates_over_many_trials(noisy_machine: Callable[..., object]) -> None:
    """Called different without reason in at most 5 % of trials, 3 % found in at least 90 %."""
    wrong = found = 0
    for seed in range(40):
        machine = noisy_machine(1000 + seed)
        layout = 1.0 + machine.rng.normal(0.0, 0.003)  # two loads of one file differ a little
        sessions = {name: machine.session(1.0) for name in "ab"}
        wrong += timed({**sessions, "b": machine.session(layout)})["b"].verdict != "tie"
        other = machine.session(1.03 * layout)
        found += timed({"a": machine.session(1.0), "b": other})["b"].verdict == "slower"
    assert wrong <= 2
    assert found >= 36


def test_intervals_cover_the_truth(noisy_machine: Callable[..., object]) -> None:
    covered = 0
    for seed in range(25):
        machine = noisy_machine(seed, regime=0.1)
        sessions = {"a": machine.session(1.0), "b": machine.session(1.2)}
        low, high = timed(sessions, Pace(resolution=0.05), seed=seed)["b"].ratio_interval
        covered += low <= 1.2 <= high
    assert covered >= 21


def test_the_same_seed_gives_the_same_figures(noisy_machine: Callable[..., object]) -> None:
    def once() -> Timing:
        machine = noisy_machine(3)
        sessions = {"a": machine.session(1.0), "b": machine.session(1.1)}
        return timed(sessions, Pace(2.0), seed=5)["b"]

    assert once().model_dump(exclude={"conditions"}) == once().model_dump(exclude={"conditions"})


def test_measuring_stops_by_width_and_never_by_significance(
    noisy_machine: Callable[..., object],
) -> None:
    """Two pairs with the same noise and another true ratio take the same number of rounds."""
    rounds = []
    for factor in (1.0, 1.5):
        machine = noisy_machine(8)
        sessions = {"a": machine.session(1.0), "b": machine.session(factor)}
        found = timed(sessions, Pace(resolution=0.02))["b"]
        low, high = found.ratio_interval
        assert (high - low) / found.ratio <= 0.025
        rounds.append(found.rounds)
    assert max(rounds) <= 1.5 * min(rounds)
    wide = timed({"a": machine.session(1.0), "b": machine.session(1.0)}, Pace(resolution=0.2))["b"]
    assert wide.rounds < min(rounds)


def test_the_time_is_kept_and_so_are_the_fewest_rounds() -> None:
    clock = VirtualClock()
    rng = np.random.default_rng(0)

    def times(count: int) -> np.ndarray:
        return (1e8 * np.exp(0.5 * rng.standard_normal(count))).astype(np.int64)

    sessions = {name: NullSession(times=times, clock=clock) for name in "ab"}
    for session in sessions.values():
        session.bind(FEED)
    found = timed(sessions, Pace(5.0, min_rounds=30))["b"]
    assert found.rounds == 30
    assert found.runs == 30, "bursts shrink to one run where five would not fit"
    assert clock() < 30


def test_a_burst_can_be_asked_for() -> None:
    clock = VirtualClock()
    found = timed({"a": still(clock, 1.0), "b": still(clock, 1.0)}, Pace(burst=3))
    assert found["b"].runs == 90


def test_a_second_copy_of_the_reference_widens_the_intervals() -> None:
    clock = VirtualClock()
    sessions = {"a": still(clock, 1.0), "b": still(clock, 1.03), "copy": still(clock, 0.95)}
    assert timed(sessions)["b"].verdict == "slower"
    judged = timed(sessions, control="copy")
    assert judged["b"].verdict == "tie"
    assert judged["b"].ratio_interval == pytest.approx((1.03 * 0.95, 1.03 / 0.95))
    assert judged["copy"].ratio_interval == pytest.approx((0.95, 0.95))


def test_files_in_different_processes_need_a_larger_difference() -> None:
    clock = VirtualClock()
    sessions = {
        "a": still(clock, 1.0),
        "same": still(clock, 1.04),
        "other": still(clock, 1.04, process="child 7"),
    }
    found = timed(sessions)
    assert (found["same"].verdict, found["other"].verdict) == ("slower", "tie")
    assert found["other"].conditions["noise_floor"] == FLOOR_BETWEEN_PROCESSES


def test_a_busy_machine_makes_rows_unstable() -> None:
    # users-ask 8
    clock = VirtualClock()
    sessions = {"a": still(clock, 1.0, threads=10**6), "b": still(clock, 1.0)}
    found = timed(sessions, other_load=lambda: 1.0)["b"]
    assert found.unstable
    assert found.conditions["unstable_because"] == [
        "other processes used the cores in 100% of the time"
    ]
    assert found.conditions["rounds_retaken"] > 0
    assert found.conditions["other_load_cores"] == 1.0


def test_throttling_is_named() -> None:
    # users-ask 8
    clock = VirtualClock()
    heating = NullSession(times=lambda count: np.full(count, int(1e6 * (1 + clock()))), clock=clock)
    heating.bind(FEED)
    found = timed({"a": heating, "b": still(clock, 1.0)}, Pace(1.0))
    reasons = " and ".join(found["a"].conditions["unstable_because"])
    assert re.search(r"it got \d+% slower while being timed", reasons)
    # The still one's own times are sure; its ratio to one that heats is not.
    assert all("ratio" in r for r in found["b"].conditions.get("unstable_because", ()))


def test_what_intervals_leave_open_is_named(noisy_machine: Callable[..., object]) -> None:
    # users-ask 8
    machine = noisy_machine(0, jitter=0.5)
    a, b = timed({"a": machine.session(1.0), "b": machine.session(1.0)}, Pace(1.0)).values()
    (of_time,) = (r for r in a.conditions["unstable_because"] if "time is known" in r)
    low, high = a.interval_ms
    assert of_time == f"its time is known to ±{(high - low) / 2 / a.median_ms:.0%} only"
    (of_ratio,) = (r for r in b.conditions["unstable_because"] if "ratio is known" in r)
    low, high = b.ratio_interval
    assert of_ratio == f"its ratio is known to ±{(high - low) / 2 / b.ratio:.0%} only"


def test_times_that_vary_with_sure_figures_are_stable(
    noisy_machine: Callable[..., object],
) -> None:
    machine = noisy_machine(0, jitter=0.3)
    for found in timed({"a": machine.session(1.0), "b": machine.session(1.0)}).values():
        low, high = found.interval_ms
        assert high - low < 0.1 * found.median_ms
        assert found.p90_ms > 1.2 * found.median_ms
        assert not found.unstable


def test_any_pair_can_be_judged_afterwards() -> None:
    clock = VirtualClock()
    sessions = {"a": still(clock, 1.0), "b": still(clock, 0.8), "c": still(clock, 0.81)}
    readings = collect(sessions, "a", clock=clock, other_load=lambda: 0.0)
    assert isinstance(readings, Readings)
    assert readings.verdict("b", "a") == "faster"
    assert readings.verdict("c", "b") == "slower"
    assert readings.verdict("b", "b") == "tie"
    assert readings.timings("b")["c"].ratio == pytest.approx(0.81 / 0.8)


def test_unknown_names_are_refused() -> None:
    sessions = {"original": still(VirtualClock(), 1.0)}
    with pytest.raises(LilliputError, match="no session 'orginal' to compare with") as caught:
        collect(sessions, "orginal")
    assert caught.value.hint == "did you mean 'original'?"
    with pytest.raises(LilliputError, match="no session 'copy'"):
        collect(sessions, "original", control="copy")


class Elsewhere(NullRuntime):
    """Every load of a file is faster or slower than the one before; loading takes its time."""

    def __init__(self, milliseconds: dict[str, float], *, apart: float, loading: float) -> None:
        super().__init__()
        self.milliseconds, self.apart, self.loading = milliseconds, apart, loading
        self.rng = np.random.default_rng(0)
        self.opened: list[str] = []
        self.closed = 0

    def load(self, path: Path, target: Target) -> NullSession:
        session = super().load(path, target)
        assert isinstance(session, NullSession)
        factor = np.exp(self.apart * self.rng.standard_normal())
        session.times = constant(int(1e6 * factor * self.milliseconds[path.stem]))
        session.close = self.close  # type: ignore[method-assign]
        self.opened.append(path.stem)
        self.clock.nanoseconds += int(1e9 * self.loading)
        return session

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def elsewhere(
    chain: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Elsewhere, dict[str, tuple[Path, Target]]]]:
    """A runtime without computation, and the files "small" and "large" for it."""
    from lilliput.runtimes.base import RUNTIMES

    def made(
        ratio: float, *, apart: float = 0.0, loading: float = 0.0
    ) -> tuple[Elsewhere, dict[str, tuple[Path, Target]]]:
        paths = {"small": chain(4, "conv1x1"), "large": chain(8, "conv1x1")}
        times = {paths["small"].stem: 1.0, paths["large"].stem: ratio}
        runtime = Elsewhere(times, apart=apart, loading=loading)
        monkeypatch.setitem(RUNTIMES._things, "null", runtime)
        target = Target(runtime="null")
        return runtime, {name: (path, target) for name, path in paths.items()}

    return made


def test_files_are_loaded_again_and_again_and_closed(elsewhere: Callable[..., tuple]) -> None:
    runtime, files = elsewhere(3.0)
    found = compare_files(files, "small", clock=runtime.clock, other_load=lambda: 0.0)
    assert list(found) == ["small", "large"]
    assert found["large"].ratio == pytest.approx(3.0)
    assert found["large"].verdict == "slower"
    loads = found["large"].conditions["loads"]
    assert loads >= LEAST_LOADS
    assert len(runtime.opened) == runtime.closed == 2 * loads
    orders = [tuple(runtime.opened[n : n + 2]) for n in range(0, 2 * loads, 2)]
    assert orders[1::2] == [order[::-1] for order in orders[::2]], "there and back"
    assert len(set(orders[::2])) == 2
    with pytest.raises(LilliputError, match="no file 'smal' to compare with"):
        compare_files(files, "smal")


@pytest.mark.parametrize(("ratio", "says"), [(1.0, "tie"), (1.03, "slower"), (0.97, "faster")])
def test_where_a_load_lies_decides_nothing(
    elsewhere: Callable[..., tuple], ratio: float, says: str
) -> None:
    """Two loads of one file 2 % apart, and no noise else: one load would be surely wrong."""
    verdicts = []
    for seed in range(6):
        runtime, files = elsewhere(ratio, apart=0.02)
        found = compare_files(
            files, "small", clock=runtime.clock, other_load=lambda: 0.0, seed=seed
        )
        verdicts.append(found["large"].verdict)
    assert verdicts.count(says) >= 5


def test_what_takes_long_to_load_is_loaded_once_beside_a_second_copy(
    elsewhere: Callable[..., tuple],
) -> None:
    runtime, files = elsewhere(1.01, apart=0.03, loading=3.0)
    found = compare_files(files, "small", Pace(10.0), clock=runtime.clock, other_load=lambda: 0.0)
    assert found["large"].conditions["loads"] == 1
    assert len(runtime.opened) == runtime.closed == 3
    low, high = found["large"].ratio_interval
    assert low < 1.01 < high, "no noise, but another place in memory"
    assert found["large"].verdict == "tie"


def test_a_file_that_cannot_be_loaded_leaves_nothing_open(
    elsewhere: Callable[..., tuple], tmp_path: Path
) -> None:
    runtime, files = elsewhere(1.0)
    files = {**files, "gone": (tmp_path / "gone.onnx", files["small"][1])}
    with pytest.raises(LilliputError, match="no file at"):
        compare_files(files, "small", clock=runtime.clock)
    assert len(runtime.opened) == runtime.closed


def test_different_numbers_of_examples_are_not_compared(
    chain: Callable[..., Path], tmp_path: Path
) -> None:
    fixed, free = chain(4, "conv1x1"), tmp_path / "free.onnx"
    model = onnx.load(fixed)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.save(model, free)
    files = {"free": (free, Target()), "fixed": (fixed, Target())}
    with pytest.raises(LilliputError, match=r"'free' 8, 'fixed' 1\n.*--batch 1"):
        compare_files(files, "free", Pace(0.1), batch=8)
    assert compare_files(files, "free", Pace(0.1))["fixed"].conditions["batch"] == 1


def test_real_files_are_compared(chain: Callable[..., Path]) -> None:
    files = {
        "narrow": (chain(4, "conv1x1"), Target()),
        "wide": (chain(64, "conv3x3"), Target()),
    }
    found = compare_files(files, "narrow", Pace(1.0, resolution=0.5))
    assert found["wide"].verdict == "slower"
    assert found["wide"].ratio > 5
    assert found["wide"].conditions["runtime"] == "onnxruntime"
    assert "temperature_celsius" in found["wide"].conditions["state"]


@pytest.mark.parametrize(
    ("loading", "a_round", "seconds", "rounds"),
    [
        (0.02, 0.01, 20.0, 20),  # other load is seen in a fifth of a second
        (0.25, 0.0625, 20.0, 8),  # two thirds of the time are for rounds
        (0.25, 0.25, 20.0, 3),  # thirty rounds in all, at least
        (1.00, 0.125, 20.0, 5),  # as many as fit
        (3.00, 0.125, 20.0, None),
        (0.125, 1.00, 20.0, None),
        (0.00, 0.00, 20.0, 200_000_000),
    ],
)
def test_a_load_is_worth_its_rounds(
    loading: float, a_round: float, seconds: float, rounds: int | None
) -> None:
    assert rounds_a_load(loading, a_round, Pace(seconds, min_rounds=30)) == rounds


def test_the_most_threads_count() -> None:
    clock = VirtualClock()
    assert most_threads([still(clock, 1.0, threads=3), still(clock, 1.0)]) == 3
    assert most_threads([]) == 1


def test_a_machine_that_changes_its_pace_leaves_ratios_narrow(
    noisy_machine: Callable[..., object],
) -> None:
    """Both files slow down together, for a while: that is no doubt about their ratio."""
    machine = noisy_machine(4, jitter=0.02, regime=0.3)
    sessions = {"a": machine.session(1.0), "b": machine.session(1.1)}
    found = timed(sessions, Pace(5.0, resolution=0.0))["b"]
    wanders = (found.interval_ms[1] - found.interval_ms[0]) / found.median_ms
    assert found.ratio_interval[1] - found.ratio_interval[0] < wanders / 3
    assert found.ratio_interval[0] <= 1.1 <= found.ratio_interval[1]
