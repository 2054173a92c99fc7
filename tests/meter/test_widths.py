"""Width grids: from a written table, and measured on this machine."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput.errors import CannotWrite, LilliputError
from lilliput.meter import widths
from lilliput.meter.layer_nets import KINDS, layer_chain
from lilliput.meter.layer_times import kept, users_cache
from lilliput.meter.widths import WidthProfile, width_profile
from lilliput.runtimes.base import RUNTIMES
from lilliput.runtimes.null import NullRuntime, Times, constant
from lilliput.runtimes.opening import open_session, random_feeds
from lilliput.target import Target

# Microseconds of a 3x3 layer of onnxruntime on an AVX-512 machine, where blocks are of 16.
AVX512 = {
    4: 5.6, 8: 8.8, 12: 12.2, 15: 14.6, 16: 12.6, 17: 28.5, 20: 30.6, 24: 30.7, 31: 60.9, 32: 30.4,
    33: 65.5, 36: 57.8, 48: 58.4, 49: 117.0, 56: 97.5, 63: 165.0, 64: 97.0, 65: 176.0, 80: 171.0,
    96: 233.0, 128: 400.0,
}  # fmt: skip
PROFILE = WidthProfile(
    target=Target(), table={"conv3x3/fp32": {w: us * 1e-6 for w, us in AVX512.items()}}
)


def test_the_grid_leaves_out_what_a_wider_layer_costs() -> None:
    assert PROFILE.grid() == [4, 8, 12, 16, 32, 48, 64, 80, 96, 128]


@pytest.mark.parametrize(
    ("asked", "given_"),
    [(17, 16), (20, 32), (31, 32), (15, 16), (12, 12), (32, 32), (33, 48), (7, 8), (63, 64)],
)
def test_widths_are_rounded_to_the_grid(asked: int, given_: int) -> None:
    # users-ask 2
    assert PROFILE.round(asked) == given_


def test_rounding_never_exceeds_the_layers_width() -> None:
    assert PROFILE.round(31, limit=31) == 31
    assert PROFILE.round(20, limit=24) == 24
    assert PROFILE.round(17, limit=20) == 16
    assert PROFILE.round(2, limit=2) == 2


def test_widths_past_the_table_grow_with_the_work() -> None:
    assert PROFILE.seconds(256) == pytest.approx(4 * 400e-6)
    assert PROFILE.round(256) == 256
    assert PROFILE.round(250) == 256
    assert PROFILE.seconds(255) > PROFILE.seconds(256), "unaligned stays dearer"


@given(st.integers(1, 400), st.integers(1, 400))
def test_a_rounded_width_never_costs_more(width: int, limit: int) -> None:
    chosen = PROFILE.round(width, limit=limit)
    assert 1 <= chosen <= max(limit, 1)
    reachable = min(width, limit)
    assert PROFILE.seconds(chosen) <= 1.031 * PROFILE.seconds(reachable) or chosen < width


def test_unknown_kinds_and_widths_are_refused() -> None:
    with pytest.raises(LilliputError, match="no widths of 'conv3x3/int8' were measured"):
        PROFILE.grid(precision="int8")
    with pytest.raises(LilliputError, match="a layer cannot have 0 channels"):
        PROFILE.round(0)


class CountingRuntime(NullRuntime):
    """Takes a time in proportion to the width in steps of eight, and counts its loads."""

    loads = 0

    def load(self, path: Path, target: Target):  # type: ignore[no-untyped-def]
        type(self).loads += 1
        width = int(path.stem)
        times: Times = constant(1000 * 8 * -(-width // 8) * (1 + (width % 4 != 0)))
        self.script[path.stem] = times
        return super().load(path, target)


def test_a_profile_is_measured_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RUNTIMES._things, "null", CountingRuntime())
    target = Target(runtime="null")
    profile = width_profile(target, cache_dir=tmp_path, rounds=3)
    loads = CountingRuntime.loads
    asked = {*widths.ALIGNED, *widths.UNALIGNED}
    assert loads == 6 * len(asked) + 2 * sum(width <= widths.WIDEST["grouped"] for width in asked)
    assert profile.seconds(16) == pytest.approx(16e-6 / 4)
    assert profile.round(20, "depthwise", "int8") == 24
    assert profile.round(17) == 24
    again = width_profile(target, cache_dir=tmp_path, rounds=3)
    assert (again, CountingRuntime.loads) == (profile, loads)
    width_profile(
        Target(runtime="null", threads=2), cache_dir=tmp_path, rounds=3, kinds=["conv1x1"]
    )
    assert CountingRuntime.loads > loads, "another number of threads is another target"


def test_damaged_figures_are_found_out_again(tmp_path: Path) -> None:
    count: list[int] = []

    def work() -> WidthProfile:
        count.append(1)
        return PROFILE

    for content in (None, "", "{}", PROFILE.model_dump_json()):
        if content is not None:
            next(tmp_path.glob("*.json")).write_text(content)
        assert kept(WidthProfile, {"asked": 1}, tmp_path, work) == PROFILE
    assert len(count) == 3, "whole ones are read"


def test_figures_that_cannot_be_kept_are_given_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise CannotWrite("no space left")

    monkeypatch.setattr("lilliput.meter.layer_times.write_atomically", full)
    assert kept(WidthProfile, {"asked": 1}, tmp_path, lambda: PROFILE) == PROFILE


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert users_cache("widths").name == "widths"
    assert "lilliput" in users_cache("widths").parts


def test_this_machine_measures_itself(tmp_path: Path) -> None:
    profile = width_profile(
        Target(), cache_dir=tmp_path, kinds=["conv3x3"], widths=(8, 15, 16, 64), rounds=5
    )
    for precision in ("fp32", "int8"):
        assert profile.seconds(64, precision=precision) > profile.seconds(8, precision=precision)
        assert 64 in profile.grid(precision=precision)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [7, 8])
def test_int8_chains_compute_what_float_ones_do(tmp_path: Path, kind: str, bits: int) -> None:
    outputs = []
    for precision in ("fp32", "int8"):
        path = tmp_path / f"{precision}.onnx"
        model = layer_chain(8, kind, precision, weight_bits=bits, layers=2, side=8)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(path))
        session = open_session(path, Target(runtime="reference"))
        outputs.append(session.run([np.abs(feed) for feed in random_feeds(session.inputs)])[0])
    scale = np.abs(outputs[0]).mean()
    assert np.abs(outputs[0] - outputs[1]).mean() < 0.1 * scale


def test_seven_bit_weights_stay_below_64(chain: Callable[..., Path]) -> None:
    model = onnx.load(str(chain(8, "conv3x3", "int8", weight_bits=7)))
    weights = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if len(t.dims) == 4]
    assert max(np.abs(w).max() for w in weights) == 63
