"""Which machine this is: what a figure must carry to be compared with another one's."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from lilliput.runtimes.opening import installed_version

if TYPE_CHECKING:
    from lilliput.artifact import ArtifactMetadata
    from lilliput.context import Precision

PACKAGES = ("lilliput", "numpy", "onnx", "onnxruntime", "openvino", "torch")
_NOTABLE = (
    *("sse4", "avx", "fma", "f16c", "amx"),
    *("neon", "asimd", "dotprod", "i8mm", "bf16", "sve"),
)
_VNNI = {"amx", "vnni", "avx512_vnni", "avx_vnni", "avx_vnni_int8", "avx10_1", "amx_int8"}
_ARM = {"neon", "asimd", "asimddp", "dotprod", "i8mm", "sve", "sve2"}


@functools.cache
def cpu_flags() -> frozenset[str]:
    """The CPU's instruction-set flags in Linux's spelling; empty where they cannot be read."""
    if platform.system() == "Darwin":
        return _darwin_flags()
    for line in _lines(Path("/proc/cpuinfo")):
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            found = set(value.split())
            return frozenset(found | ({"neon"} if "asimd" in found else set()))
    return frozenset()


def isa_class(flags: Iterable[str]) -> str:
    """The class whose results are comparable: amx, vnni, avx512, avx2, sse, dotprod or neon.

    "unknown" when there are no flags, or none of these. The name of a class is a flag of it: files
    record either.
    """
    have = set(flags)
    ladder = (
        ("amx", {"amx", "amx_int8"}),
        ("vnni", _VNNI),
        ("avx512", {"avx512", "avx512f", "avx512bw"}),
        ("avx2", {"avx2"}),
        ("sse", {"sse", "sse4_1", "sse4_2"}),
        ("dotprod", {"asimddp", "dotprod", "i8mm"}),
        ("neon", {"neon", "asimd"}),
    )
    return next((name for name, any_of in ladder if have & any_of), "unknown")


def saturates(flags: Iterable[str]) -> bool:
    """Whether products of unsigned and signed 8-bit numbers are added in 16 bits, and clip.

    So on x86 without VNNI; never on ARM. True when nothing is known: a file that is safe on a CPU
    that saturates is right on every other one.
    """
    have = set(flags)
    return not (have & _VNNI or have & _ARM)


def clips_here(metadata: ArtifactMetadata) -> str | None:
    """Why an int8 file that was made for exact sums is not to be trusted on this CPU, in a line."""
    here = cpu_flags()
    if metadata.precision != "int8" or saturates(metadata.isa) or not saturates(here):
        return None
    return (
        f"quantized for {isa_class(metadata.isa)}, and this CPU ({isa_class(here)}) adds 8-bit "
        "products in 16 bits, which may clip; quantize it again for this one"
    )


def timed_elsewhere(metadata: ArtifactMetadata) -> str | None:
    """That a file was chosen by times of another class of CPU than this one, in a line."""
    made, here = isa_class(metadata.isa), isa_class(cpu_flags())
    if not metadata.isa or made == here:
        return None
    return f"made for {made}; times taken here are of {here} and say nothing about that class"


def multiplies_bfloat16(flags: Iterable[str]) -> bool:
    """Whether products of bfloat16 are instructions of this CPU; emulated ones are slow."""
    return bool(set(flags) & {"avx512_bf16", "amx_bf16", "bf16"})


def native_precision() -> Precision:
    """The coarsest that trainings may be computed in on this CPU, with a gain."""
    return "bfloat16" if multiplies_bfloat16(cpu_flags()) else "float32"


def load_average() -> tuple[float, float, float] | None:
    """Runnable processes over 1, 5 and 15 minutes; None where the system does not count them."""
    try:
        return os.getloadavg()
    except (AttributeError, OSError):
        return None


def temperature_celsius() -> float | None:
    """The hottest sensor, in °C; None where there is none to read."""
    read = getattr(psutil, "sensors_temperatures", None)
    try:
        sensors = read() if read is not None else {}
    except (OSError, NotImplementedError):
        return None
    values = [entry.current for entries in sensors.values() for entry in entries]
    return max(values) if values else None


def clock_mhz() -> float | None:
    """The CPU's present clock in MHz; None where it cannot be read."""
    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError, AttributeError, FileNotFoundError):
        return None
    return float(frequency.current) if frequency and frequency.current else None


def governor() -> str | None:
    """The frequency governor of the first core ("performance", "powersave", ...), or None."""
    lines = _lines(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"))
    return lines[0].strip() if lines else None


def fingerprint() -> dict[str, Any]:
    """The machine and its software, as JSON: what does not change while the machine runs."""
    flags = cpu_flags()
    return {
        "cpu": _cpu_model(),
        "isa": isa_class(flags),
        "flags": sorted(flag for flag in flags if flag.startswith(_NOTABLE)),
        "saturates": saturates(flags),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count() or 1,
        "logical_cores": psutil.cpu_count() or 1,
        "usable_cores": usable_cores(),
        "governor": governor(),
        "memory_bytes": psutil.virtual_memory().total,
        "os": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := installed_version(name))},
    }


def state() -> dict[str, Any]:
    """What does change: clock, temperature and load at this moment."""
    return {
        "clock_mhz": clock_mhz(),
        "temperature_celsius": temperature_celsius(),
        "load_average": load_average(),
    }


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return psutil.cpu_count() or 1


def _cpu_model() -> str:
    for line in _lines(Path("/proc/cpuinfo")):
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware"):
            return value.strip()
    if platform.system() == "Darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.processor()
    return platform.processor() or platform.machine()


def _darwin_flags() -> frozenset[str]:
    """macOS's names in Linux's spelling."""
    if platform.machine() == "arm64":
        known = {"hw.optional.arm.FEAT_DotProd": "asimddp", "hw.optional.arm.FEAT_I8MM": "i8mm"}
        found = {flag for key, flag in known.items() if _sysctl(key) == "1"}
        return frozenset({"neon", "asimd"} | found)
    text = f"{_sysctl('machdep.cpu.features')} {_sysctl('machdep.cpu.leaf7_features')}"
    return frozenset(text.lower().replace(".", "_").split())


def _sysctl(key: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603  # a fixed system command
            ["/usr/sbin/sysctl", "-n", key], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
