"""The scripted runtime: its clock moves by what its runs take."""

from pathlib import Path

import numpy as np
import pytest

from lilliput.errors import LilliputError
from lilliput.runtimes.base import NodeTime, Runtime, Session
from lilliput.runtimes.null import NullRuntime, NullSession, constant, open_here
from lilliput.target import Target


def test_times_and_outputs_are_as_scripted(small_net: Path) -> None:
    nodes = [NodeTime(name="a", op="Conv", seconds=1.0), NodeTime(name="b", op="Add", seconds=2.0)]
    runtime = NullRuntime(
        {"small": constant(500)}, outputs=lambda feeds: [feeds[0] + 1], nodes=nodes
    )
    assert isinstance(runtime, Runtime)
    assert runtime.unavailable() is None
    session = runtime.load(small_net, Target(threads=2))
    assert isinstance(session, Session)
    feeds = [np.zeros((1, 3, 8, 8), np.float32)]
    session.bind(feeds)
    np.testing.assert_array_equal(session.burst(4), [500] * 4)
    assert runtime.clock() == pytest.approx(2e-6)
    assert session.conditions["threads"] == 2
    assert (session.run(feeds)[0] == 1).all()
    assert [node.name for node in runtime.profile(small_net, Target(), feeds)] == ["b", "a"]


def test_without_a_script_a_run_takes_a_millisecond(small_net: Path) -> None:
    session = open_here(small_net, Target())
    session.bind([np.zeros((2, 3, 8, 8), np.float32)])
    assert session.burst(1)[0] == 1_000_000
    assert session.run([np.zeros((2, 3, 8, 8), np.float32)])[0].shape == (2, 1)


def test_inputs_are_checked_as_in_any_runtime() -> None:
    with pytest.raises(LilliputError, match="burst before bind"):
        NullSession().burst(1)
    with pytest.raises(LilliputError, match="input 'input' takes any×1"):
        NullSession().run([np.zeros((1, 2))])
