"""The machine a figure belongs to."""

import json
import time
from pathlib import Path

import psutil
import pytest

from lilliput.meter import host
from lilliput.meter.load import OtherLoad, tolerable_load

CLASSES = ("amx", "vnni", "avx512", "avx2", "sse", "dotprod", "neon")
"""What a file may record in place of flags."""


@pytest.mark.parametrize(
    ("flags", "isa", "clips"),
    [
        ("avx2 fma sse4_1", "avx2", True),
        ("avx2 avx512f avx512bw", "avx512", True),
        ("avx2 avx512f avx512_vnni", "vnni", False),
        ("avx2 avx_vnni", "vnni", False),
        ("avx2 avx512_vnni amx_int8 amx_tile", "amx", False),
        ("asimd neon", "neon", False),
        ("asimd asimddp neon", "dotprod", False),
        ("sse4_1 sse4_2", "sse", True),
        ("", "unknown", True),
        *((name, name, name in ("sse", "avx2", "avx512")) for name in CLASSES),
    ],
)
def test_classes_and_saturation_follow_from_flags(flags: str, isa: str, clips: bool) -> None:
    # users-ask 12: unknown counts as saturating
    assert host.isa_class(flags.split()) == isa
    assert host.saturates(flags.split()) is clips


def test_the_fingerprint_is_json_and_stays_the_same() -> None:
    # users-ask 8, 11
    first = host.fingerprint()
    assert json.loads(json.dumps(first)) == first == host.fingerprint()
    assert first["cores"] >= 1
    assert first["memory_bytes"] > 1e8
    assert {"numpy", "onnx", "onnxruntime"} <= set(first["versions"])
    assert first["isa"] == host.isa_class(host.cpu_flags())
    assert set(first["flags"]) <= host.cpu_flags()


def test_the_state_is_json() -> None:
    assert set(json.loads(json.dumps(host.state()))) == {
        "clock_mhz",
        "temperature_celsius",
        "load_average",
    }


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("flags\t\t: fpu avx2 fma", {"fpu", "avx2", "fma"}),
        ("Features\t: fp asimd asimddp", {"fp", "asimd", "asimddp", "neon"}),
        ("nothing here", set()),
    ],
)
def test_flags_are_read_from_the_kernel(
    monkeypatch: pytest.MonkeyPatch, line: str, flags: set[str]
) -> None:
    monkeypatch.setattr(host, "_lines", lambda _: ["processor\t: 0", line])
    monkeypatch.setattr(host.platform, "system", lambda: "Linux")
    assert host.cpu_flags.__wrapped__() == flags


def test_a_mac_is_told_in_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "hw.optional.arm.FEAT_DotProd": "1",
        "hw.optional.arm.FEAT_I8MM": "0",
        "machdep.cpu.features": "SSE4.1 AVX1.0",
        "machdep.cpu.leaf7_features": "AVX2",
        "machdep.cpu.brand_string": "Chip",
    }
    monkeypatch.setattr(host, "_sysctl", lambda key: answers.get(key, ""))
    monkeypatch.setattr(host, "_lines", lambda _: [])
    monkeypatch.setattr(host.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(host.platform, "machine", lambda: "arm64")
    assert host.cpu_flags.__wrapped__() == {"neon", "asimd", "asimddp"}
    assert host._cpu_model() == "Chip"
    monkeypatch.setattr(host.platform, "machine", lambda: "x86_64")
    assert {"sse4_1", "avx2"} <= host.cpu_flags.__wrapped__()


def test_what_cannot_be_read_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(*_: object) -> None:
        raise OSError("no such thing")

    monkeypatch.setattr(host.psutil, "cpu_freq", missing)
    monkeypatch.setattr(host.psutil, "sensors_temperatures", missing, raising=False)
    monkeypatch.setattr(host.os, "getloadavg", missing)
    monkeypatch.setattr(host, "_lines", lambda _: [])
    assert host.clock_mhz() is None
    assert host.temperature_celsius() is None
    assert host.load_average() is None
    assert host.governor() is None
    assert host._sysctl("no.such.key") == ""


def test_the_hottest_sensor_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        def __init__(self, current: float) -> None:
            self.current = current

    sensors = {"cpu": [Entry(51.0), Entry(63.5)], "disk": [Entry(40.0)]}
    monkeypatch.setattr(host.psutil, "sensors_temperatures", lambda: sensors, raising=False)
    assert host.temperature_celsius() == 63.5


def test_our_own_work_is_not_other_load() -> None:
    load = OtherLoad()
    end = time.perf_counter() + 0.3
    while time.perf_counter() < end:
        pass
    # Others are counted on every core of the machine, also on those that are not given to us.
    assert 0.0 <= load() <= psutil.cpu_count()


def test_load_is_counted_from_the_last_call(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([(0.0, 10.0, 1.0), (2.0, 13.0, 2.0), (2.0, 13.0, 2.0), (3.0, 13.5, 3.0)])
    monkeypatch.setattr(OtherLoad, "_read", lambda self: next(readings))
    load = OtherLoad()
    assert load() == pytest.approx(1.0)  # three core-seconds in two, one of them ours
    assert load() == 0.0
    assert load() == 0.0, "never negative"


@pytest.mark.parametrize(
    ("cores", "threads", "allowed"), [(2, 1, 1.15), (2, 2, 0.25), (8, 4, 4.15), (1, 4, 0.25)]
)
def test_free_cores_may_be_used(cores: int, threads: int, allowed: float) -> None:
    assert tolerable_load(cores, threads) == pytest.approx(allowed)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [({"avx512_bf16", "avx2"}, True), ({"amx_bf16"}, True), ({"avx512f", "avx2"}, False)],
)
def test_bfloat16_is_used_only_where_the_cpu_multiplies_in_it(
    flags: set[str], expected: bool
) -> None:
    assert host.multiplies_bfloat16(flags) is expected
