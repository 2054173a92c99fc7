"""The stopwatch's claim: its sums, and that an interrupted run goes on."""

from pathlib import Path

import pytest
from benchmarks.claims import stopwatch
from benchmarks.harness import Options


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(name="stopwatch", smoke=True, home=tmp_path, log=lambda _: None)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Replaces the trials by scripted ones and lists which were asked for."""
    calls: list[tuple[str, int, int]] = []

    def trial(_files: object, kind: str, threads: int, number: int, *, smoke: bool) -> dict:
        calls.append((kind, threads, number))
        return {
            "kind": kind,
            "threads": threads,
            "number": number,
            "verdict": "tie",
            "right": kind == "same",
            "ratio": 1.0 if kind == "same" else 1.03,
            "unstable": False,
            "seconds": 2.0 + threads,
        }

    monkeypatch.setattr(stopwatch, "trial", trial)
    return calls


def test_rates_are_counted(options: Options, asked: list[tuple[str, int, int]]) -> None:
    claim = stopwatch.run(options)
    assert len(asked) == len(set(asked)) == 2 * sum(stopwatch.SMOKE_TRIALS.values())
    assert {number for _, _, number in asked[: len(asked) // 2]} == {0}, "kinds alternate"
    rows = {row.name: row for row in claim.rows}
    assert rows["same file called different"].note == "0 of 4"
    assert rows["same file called different, 1 thread"].figure == 0.0
    assert rows["same file called different, 1 thread"].holds is True
    assert rows["3 % more work found, 2 threads"].figure == 0.0
    assert rows["3 % more work found, 2 threads"].holds is False
    assert rows["3 % more work found, 2 threads"].note == "0 of 2"
    assert rows["longest comparison, 2 threads"].figure == 4.0
    assert rows["ratio found, median, 1 thread"].figure == 1.03


def test_an_interrupted_run_goes_on(options: Options, asked: list[tuple[str, int, int]]) -> None:
    stopwatch.run(options)
    (kept,) = options.work.glob("trials-*.jsonl")
    lines = kept.read_text().splitlines()
    kept.write_text("\n".join(lines[:5]) + "\n" + lines[5][:20])
    asked.clear()
    stopwatch.run(options)
    assert len(asked) == len(lines) - 5
    asked.clear()
    stopwatch.run(options)
    assert asked == [], "the torn line did not spoil the next one"


def test_wilsons_interval() -> None:
    low, high = stopwatch.wilson(10, 200)
    assert (round(low, 4), round(high, 4)) == (0.0274, 0.0896)
    assert stopwatch.wilson(0, 3)[0] == 0.0
    assert stopwatch.wilson(3, 3)[1] == 1.0


@pytest.mark.slow
def test_the_smoke_version_runs(options: Options) -> None:
    claim = stopwatch.run(options)
    ratios = {row.name: row.figure for row in claim.rows if row.name.startswith("ratio found")}
    assert len(ratios) == len(stopwatch.THREADS)
    # Half a second a comparison, beside other tests, which take the second thread's core: it is
    # enough that nothing is far off on one.
    assert 0.5 < ratios["ratio found, median, 1 thread"] < 2.0
