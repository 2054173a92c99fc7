"""Quantities: as people write them, and back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput import units
from lilliput.errors import LilliputError


@pytest.mark.parametrize(
    ("text", "ms"),
    [("3ms", 3), ("0.5s", 500), ("250us", 0.25), ("250 µs", 0.25), ("1.5 MS", 1.5), (".5ms", 0.5)],
)
def test_latencies(text: str, ms: float):
    assert units.parse_duration_ms(text) == pytest.approx(ms)


@pytest.mark.parametrize("text", ["3", "3m", "ms", "-3ms", "0ms", "", "3 ms 2", "infs", "1e999s"])
def test_no_latencies(text: str):
    # users-ask 39: seconds or milliseconds is never guessed
    with pytest.raises(LilliputError, match=r"is not a latency\n  → write it like 3ms, 800us"):
        units.parse_duration_ms(text)


@pytest.mark.parametrize(
    ("text", "minutes"), [("90s", 1.5), ("30m", 30), ("1h30m", 90), ("2 h", 120), ("1d", 1440)]
)
def test_time_budgets(text: str, minutes: float):
    assert units.parse_minutes(text) == pytest.approx(minutes)


@pytest.mark.parametrize("text", ["30", "0m", "h", "3ms", "1h and 3m", "", "-1h"])
def test_no_time_budgets(text: str):
    with pytest.raises(LilliputError, match="is not a time budget\n  → write it like 90s, 30m"):
        units.parse_minutes(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("200kB", 200_000),
        ("1.5MB", 1_500_000),
        ("64KiB", 65_536),
        ("40000", 40_000),
        ("1e3", 1000),
        ("2 GB", 2_000_000_000),
        ("7b", 7),
    ],
)
def test_sizes(text: str, size: int):
    assert units.parse_bytes(text) == size


@pytest.mark.parametrize("text", ["200kb/s", "0", "0.2B", "-1kB", "big", "1ms"])
def test_no_sizes(text: str):
    with pytest.raises(LilliputError, match=r"is not a size.*\n  → write it like 200kB, 1.5MB"):
        units.parse_bytes(text)


def test_counts():
    assert units.parse_count("20.4M") == pytest.approx(20.4e6)
    assert units.parse_count("2e7") == 2e7
    with pytest.raises(LilliputError, match="is not a number\n  → write it like 20M"):
        units.parse_count("20Q")


def test_shapes_numbers_and_factors():
    assert units.parse_shape("1x3x32x32") == units.parse_shape("1, 3, 32, 32") == (1, 3, 32, 32)
    assert units.parse_shape("(8)") == (8,)
    assert units.parse_numbers("0.485,0.456, 0.406") == (0.485, 0.456, 0.406)
    assert units.parse_factor("1/255") == 1 / 255
    assert units.parse_factor("1") == 1
    for parse, text, what in (
        (units.parse_shape, "3x0", "a shape"),
        (units.parse_shape, "3xtwo", "a shape"),
        (units.parse_shape, "²", "a shape"),
        (units.parse_numbers, "1,,2", "a list of numbers"),
        (units.parse_numbers, "nan", "a list of numbers"),
        (units.parse_factor, "1/0", "a factor"),
        (units.parse_factor, "-1", "a factor"),
        (units.parse_factor, "x", "a factor"),
    ):
        with pytest.raises(LilliputError, match=f"is not {what}\n  → write it like "):
            parse(text)


@given(st.floats(min_value=1e-4, max_value=1e6))
def test_latencies_come_back_to_three_figures(ms: float):
    assert units.parse_duration_ms(units.format_ms(ms)) == pytest.approx(ms, rel=0.0051)


@given(st.integers(1, 10**15 - 1))
def test_sizes_come_back_to_three_figures(size: int):
    assert units.parse_bytes(units.format_bytes(size)) == pytest.approx(size, rel=0.0051)
    assert len(units.format_bytes(size).split()[0]) <= 4


@given(st.floats(min_value=1, max_value=1e14))
def test_counts_come_back_to_three_figures(count: float):
    assert units.parse_count(units.format_count(count)) == pytest.approx(count, rel=0.0051)


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (units.format_ms(2.314), "2.31 ms"),
        (units.format_ms(0.0871), "0.0871 ms"),
        (units.format_ms(1840), "1840 ms"),
        (units.format_bytes(0), "0 B"),
        (units.format_bytes(812), "812 B"),
        (units.format_bytes(999_600), "1 MB"),
        (units.format_bytes(196_400), "196 kB"),
        (units.format_count(40_812_544), "40.8 M"),
        (units.format_count(950), "950"),
        (units.format_count(math.nan), "nan"),
        (units.format_seconds(8.2), "8 s"),
        (units.format_seconds(80), "1 min 20 s"),
        (units.format_seconds(120), "2 min"),
        (units.format_seconds(7500), "2 h 5 min"),
        (units.format_seconds(7200), "2 h"),
        (units.format_seconds(-3), "0 s"),
    ],
)
def test_shown(made: str, shown: str):
    assert made == shown
