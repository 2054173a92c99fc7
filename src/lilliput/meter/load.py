"""How busy the rest of the machine is while something is being timed."""

from __future__ import annotations

import time

import psutil


class OtherLoad:
    """Cores that other processes kept busy since the last call (our children count as ours).

    The kernel counts in steps of 10 ms, so windows under a tenth of a second tell little.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._last = self._read()

    def __call__(self) -> float:
        """Mean number of cores in use by others since the last call."""
        now, busy, ours = self._read()
        then, busy_then, ours_then = self._last
        self._last = (now, busy, ours)
        elapsed = now - then
        if elapsed <= 0:
            return 0.0
        return max(0.0, ((busy - busy_then) - (ours - ours_then)) / elapsed)

    def _read(self) -> tuple[float, float, float]:
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        return time.perf_counter(), sum(times) - idle - guests, self._ours()

    def _ours(self) -> float:
        total = 0.0
        for process in (self._process, *self._process.children(recursive=True)):
            try:
                used = process.cpu_times()
            except psutil.Error:
                continue
            total += used.user + used.system
        return total


def tolerable_load(cores: int, threads: int) -> float:
    """Cores that others may use without taking any from `threads` of ours.

    Where we need every core, a quarter of one is left for the system itself: something always
    runs.
    """
    return max(0.25, cores - threads + 0.15)
