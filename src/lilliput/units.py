"""Quantities as people write them, "3ms", "200kB", "20M", and as they like to read them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from lilliput.errors import LilliputError

_NUMBER = r"[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?|\.[0-9]+(?:e[+-]?[0-9]+)?"
_QUANTITY = re.compile(rf"({_NUMBER})\s*([a-zµμ]*)", re.IGNORECASE)

_LATENCY = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1000.0}
_MINUTES = {
    **dict.fromkeys(("s", "sec"), 1 / 60),
    **dict.fromkeys(("m", "min"), 1.0),
    **dict.fromkeys(("h", "hours"), 60.0),
    "d": 1440.0,
}
_KILO = {
    "": 1.0,
    "b": 1.0,
    "k": 1e3,
    "kb": 1e3,
    "m": 1e6,
    "mb": 1e6,
    "g": 1e9,
    "gb": 1e9,
    "tb": 1e12,
}
_BYTES = _KILO | {"kib": 1024.0, "mib": 1024.0**2, "gib": 1024.0**3}
_COUNT = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}


def parse_duration_ms(text: str) -> float:
    """`"3ms"`, `"800us"`, `"0.5s"` → milliseconds. A number without a unit is refused.

    Raises:
        LilliputError: The text is not a positive duration; the hint shows some that are.
    """
    return _single(text, _LATENCY, what="a latency", examples="3ms, 800us, 0.5s")


def parse_minutes(text: str) -> float:
    """`"90s"`, `"30m"`, `"1h30m"` → minutes. A number without a unit is refused.

    Raises:
        LilliputError: The text is not a positive duration; the hint shows some that are.
    """
    parts = _QUANTITY.findall(text.replace(" ", ""))
    if "".join(number + unit for number, unit in parts) != text.replace(" ", ""):
        parts = []
    if not parts or any(unit.lower() not in _MINUTES for _, unit in parts):
        raise _not(text, "a time budget", "90s, 30m, 2h, 1h30m")
    total = sum(float(number) * _MINUTES[unit.lower()] for number, unit in parts)
    if not 0 < total < math.inf:
        raise _not(text, "a time budget", "90s, 30m, 2h, 1h30m")
    return total


def parse_bytes(text: str) -> int:
    """`"200kB"` (1000 each), `"1.5MB"`, `"64KiB"` (1024 each), `"40000"` → bytes.

    Raises:
        LilliputError: The text is not a positive size; the hint shows some that are.
    """
    size = round(_single(text, _BYTES, what="a size", examples="200kB, 1.5MB, 64KiB, 40000"))
    if size < 1:
        raise _not(text, "a size of at least one byte", "200kB, 1.5MB, 64KiB, 40000")
    return size


def parse_count(text: str) -> float:
    """`"20M"`, `"1.5G"`, `"300k"`, `"2e7"` → that many.

    Raises:
        LilliputError: The text is not a positive number; the hint shows some that are.
    """
    return _single(text, _COUNT, what="a number", examples="20M, 1.5G, 300k, 2e7")


def parse_shape(text: str) -> tuple[int, ...]:
    """`"3x224x224"` or `"1,3,224,224"` → sizes, all positive.

    Raises:
        LilliputError: The text is not a list of positive whole numbers.
    """
    parts = [part.strip() for part in re.split(r"[x×,]", text.strip("()[] "))]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise _not(text, "a shape", "1x3x224x224 or 1,3,32,32")
    return tuple(int(part) for part in parts)


def parse_height_width(text: str) -> tuple[int, int]:
    """`"96x128"` → (height, width) in pixels; `"96"` is a square.

    Raises:
        LilliputError: The text is not one or two positive whole numbers.
    """
    try:
        sizes = parse_shape(text)
    except LilliputError:
        sizes = ()
    if len(sizes) not in (1, 2):
        raise _not(text, "a height and width", "96x96, 480x640, 96")
    return sizes[0], sizes[-1]


def parse_numbers(text: str) -> tuple[float, ...]:
    """`"0.485,0.456,0.406"` or `"0.5"` → numbers; one for all channels, or one a channel.

    Raises:
        LilliputError: A part is not a finite number.
    """
    try:
        values = tuple(float(part) for part in text.strip("()[] ").split(","))
    except ValueError:
        values = (math.nan,)
    if not all(math.isfinite(value) for value in values):
        raise _not(text, "a list of numbers", "0.5 or 0.485,0.456,0.406")
    return values


def parse_factor(text: str) -> float:
    """`"1/255"` or `"0.0039"` → the number.

    Raises:
        LilliputError: The text is neither a positive number nor one over another.
    """
    above, _, below = text.partition("/")
    try:
        value = float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not 0 < value < math.inf:
        raise _not(text, "a factor", "1/255, 1, 0.5")
    return value


def format_ms(ms: float) -> str:
    """Milliseconds with three figures: `"0.0871 ms"`, `"2.31 ms"`, `"1840 ms"`."""
    return f"{_three_figures(ms)} ms"


def format_bytes(size: float) -> str:
    """A size with three figures in steps of 1000: `"812 B"`, `"196 kB"`, `"1.5 MB"`."""
    return _scaled(size, ("B", "kB", "MB", "GB", "TB"))


def format_count(count: float) -> str:
    """A number with three figures in steps of 1000: `"950"`, `"40.8 M"`."""
    return _scaled(count, ("", "k", "M", "G", "T")).strip()


def rounded_up(value: float) -> float:
    """To three figures: a limit so large, written in its usual form, lets `value` through."""
    if value <= 0 or not math.isfinite(value):
        return value
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.ceil(value / step - 1e-9) * step


def format_quantity(quantity: str, value: float, unit: str = "") -> str:
    """A measured quantity in its usual form: sizes and counts scaled, others with their unit."""
    if quantity == "bytes":
        return format_bytes(value)
    if quantity in ("macs", "params"):
        return format_count(value)
    return f"{value:.4g} {unit}".strip()


def format_seconds(seconds: float) -> str:
    """A stretch of time for people: `"8 s"`, `"1 min 20 s"`, `"2 h 5 min"`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def _single(text: str, units: Mapping[str, float], *, what: str, examples: str) -> float:
    match = _QUANTITY.fullmatch(text.strip())
    unit = match[2].lower() if match else ""
    if match is None or unit not in units:
        raise _not(text, what, examples)
    value = float(match[1]) * units[unit]
    if not 0 < value < math.inf:
        raise _not(text, what, examples)
    return value


def _not(text: str, what: str, examples: str) -> LilliputError:
    return LilliputError(f"{text!r} is not {what}", hint=f"write it like {examples}")


def _scaled(value: float, units: tuple[str, ...]) -> str:
    if not math.isfinite(value):
        return f"{value} {units[0]}"
    step = 0
    # 999.5 would be shown as "1000" in its own unit, so it goes to the next one.
    while abs(value) >= 999.5 and step < len(units) - 1:
        value /= 1000.0
        step += 1
    return f"{_three_figures(value)} {units[step]}"


def _three_figures(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = 2 - math.floor(math.log10(abs(value)))
    shown = round(value, digits)
    text = f"{shown:.{max(digits, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
