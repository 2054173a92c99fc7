"""One price of a bit for a whole network: the rate that was asked for, or the least allowed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from lilliput.codec.container import encode
from lilliput.encode.coarse import least_packed_bytes
from lilliput.encode.economy import NEAR, output_gains
from lilliput.encode.execute import Execution, relative_error
from lilliput.encode.ladder import Ladder
from lilliput.encode.outcome import Outcome, Settings
from lilliput.encode.placement import place
from lilliput.errors import LilliputError
from lilliput.graph import Graph
from lilliput.onnx_io import write_model

PLAIN = Settings(saturating=False, ranges="minmax", equalize=False, rounding="nearest")


@pytest.fixture
def wide_net(builder) -> onnx.ModelProto:
    """Two convolutions and a head with weights enough that a rate means something."""
    b = builder(("n", 8, 8, 8))
    first = b.node("Relu", [b.conv("x", "first", (8, 32))], "act1")
    second = b.node("Relu", [b.conv(first, "second", (32, 24))], "act2")
    pooled = b.node("Flatten", [b.node("GlobalAveragePool", [second], "pool")], "flat")
    return b.model(b.linear(pooled, "head", (24, 5)))


def climb(net: onnx.ModelProto, feeds, rate, **more) -> Outcome:
    settings = Settings(**{**vars(PLAIN), "rate": rate})
    shape = (8, 8, 8)
    ladder = Ladder(
        settings, fit=feeds(count=3, shape=shape), judge=feeds(count=1, seed=3, shape=shape), **more
    )
    return ladder.climb(net)


@pytest.mark.parametrize("rate", [5.0, 3.0])
def test_the_rate_asked_for_is_met(wide_net, feeds, rate) -> None:
    outcome = climb(wide_net, feeds, rate)
    assert outcome.bits == pytest.approx(rate, abs=NEAR)
    kept = [rung for rung in outcome.rungs if rung.kept]
    assert kept[-1].name == f"{outcome.bits:.2f} bits a weight"


def test_fewer_bits_pack_smaller_and_lose_more(wide_net, feeds) -> None:
    found = [climb(wide_net, feeds, rate) for rate in (None, 5.0, 3.0)]
    packed = [len(encode(one.model.SerializeToString())[0]) for one in found]
    assert packed == sorted(packed, reverse=True)
    assert packed[2] < 0.6 * packed[0]
    assert found[1].error < found[2].error
    plain, coarse = (len(one.model.SerializeToString()) for one in (found[0], found[2]))
    assert plain == coarse, "it stays an int8 file"


def test_auto_takes_bits_away_until_the_drop_is_reached(wide_net, feeds) -> None:
    exact = Execution(wide_net)
    batches = feeds(count=2, seed=5, shape=(8, 8, 8))

    def drop(model: onnx.ModelProto) -> float:
        return 100 * relative_error(Execution(model), exact, batches)

    strict = climb(wide_net, feeds, "auto", drop=drop, max_drop=6.0)
    loose = climb(wide_net, feeds, "auto", drop=drop, max_drop=12.0)
    for outcome, limit in ((strict, 6.0), (loose, 12.0)):
        assert outcome.drop == pytest.approx(drop(outcome.model))
        assert outcome.drop <= limit
        over = [r for r in outcome.rungs if r.name.endswith("bits a weight") and not r.kept]
        assert any(r.drop > limit for r in over), "the next coarser one was tried"
    assert loose.bits < strict.bits < 8


def test_size_takes_no_more_bits_away_than_the_size_asks_for(wide_net, feeds) -> None:
    def packed(model: onnx.ModelProto) -> int:
        return len(encode(model.SerializeToString())[0])

    plain = climb(wide_net, feeds, None)
    whole = packed(plain.model)
    found = {
        share: climb(wide_net, feeds, "size", fits=lambda m, s=share: packed(m) <= s * whole)
        for share in (1.0, 0.8, 0.6, 0.01)
    }
    assert found[1.0].bits is None, "it fits as it is"
    for share in (0.8, 0.6):
        assert packed(found[share].model) <= share * whole
    assert found[0.8].bits > found[0.6].bits + 0.5
    assert found[0.8].error < found[0.6].error
    assert found[0.01].model == plain.model, "no rate reaches that: nothing is given away for it"


def test_a_size_below_a_bit_a_weight_is_reached_where_most_are_zero(wide_net, feeds) -> None:
    weights = {t.name: t for t in wide_net.graph.initializer if len(t.dims) > 1}
    for tensor in weights.values():
        values = onnx.numpy_helper.to_array(tensor)
        kept = np.abs(values) >= np.quantile(np.abs(values), 0.9)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values * kept, tensor.name))

    def packed(model: onnx.ModelProto) -> int:
        return len(encode(model.SerializeToString())[0])

    whole = packed(climb(wide_net, feeds, None).model)
    found = climb(wide_net, feeds, "size", fits=lambda model: packed(model) <= 0.75 * whole)
    assert packed(found.model) <= 0.75 * whole
    assert found.bits < 1


def test_where_no_rate_is_allowed_the_file_is_the_ordinary_one(wide_net, feeds) -> None:
    outcome = climb(wide_net, feeds, "auto", drop=lambda _: 1.0, max_drop=0.5)
    assert outcome.bits is None
    assert not outcome.met
    assert outcome.drop == 1.0


def test_auto_without_a_limit_is_an_error(wide_net, feeds) -> None:
    with pytest.raises(LilliputError, match="takes bits away until the allowed drop"):
        climb(wide_net, feeds, "auto")


def test_the_gain_of_the_last_layer_is_that_of_its_own_output(builder, feeds) -> None:
    b = builder(("n", 5))
    net = b.model(b.linear("x", "head", (5, 4)), 2)
    graph = Graph.of(net)
    batches = feeds(shape=(5,))
    gains = output_gains(graph, place(graph).layers, batches)
    outputs = np.concatenate([one for b in batches() for one in Execution(net).run(b).values()])
    (gain,) = gains.values()
    assert gain == pytest.approx(1 / np.square(outputs, dtype=np.float64).sum(1).mean(), rel=1e-3)


def test_no_file_of_a_fixed_graph_packs_below_the_bound_and_the_last_comes_near(
    wide_net, feeds, tmp_path: Path
) -> None:
    # users-ask 35: the reachable range is known before anything is tried
    sizes = []

    def fits(model: onnx.ModelProto) -> bool:
        sizes.append(len(encode(model.SerializeToString())[0]))
        return False

    climb(wide_net, feeds, "size", fits=fits)
    bound = least_packed_bytes(write_model(wide_net, tmp_path / "net.onnx"))
    assert 0.5 * min(sizes) < bound < min(sizes)


def test_a_file_that_is_quantized_already_is_packed_as_it_is(
    wide_net, feeds, tmp_path: Path
) -> None:
    file = write_model(climb(wide_net, feeds, None).model, tmp_path / "int8.onnx")
    assert least_packed_bytes(file) == len(encode(file.read_bytes())[0])
