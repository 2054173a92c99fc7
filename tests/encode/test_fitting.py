"""Patches, biases and weights fitted layer by layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lilliput.encode.execute import Execution, head, relative_error
from lilliput.encode.fitting import correct_biases, fit_weights, least_error, nearest_weights
from lilliput.encode.integers import to_rows
from lilliput.encode.layers import layers_of
from lilliput.encode.moments import PATCHES_PER_EXAMPLE, patches
from lilliput.encode.placement import place
from lilliput.encode.prepare import prepare
from lilliput.encode.qdq import Encoding, bias_of, write_qdq
from lilliput.encode.ranges import affine_of, observe
from lilliput.encode.rounding import Grid
from lilliput.encode.sensitivity import layer_sensitivities
from lilliput.errors import LilliputError, Refused
from lilliput.graph import Graph

COARSE = Grid(limit=7)
"""Four bits, so that every error is large enough to be told apart."""


def start(model, batches, grid: Grid = COARSE):
    graph = Graph.of(prepare(model).model)
    placement = place(graph)
    histograms = observe(graph, placement.representatives, batches)
    activations = {n: affine_of(histograms[n], "minmax") for n in placement.representatives}
    weights = nearest_weights(graph, placement, lambda _: grid)
    return graph, placement, Encoding(activations, weights)


def error(graph, placement, encoding, batches) -> float:
    ours = Execution(write_qdq(graph, placement, encoding))
    return relative_error(ours, Execution(graph.model()), batches)


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"strides": [2, 2]},
        {"dilations": [2, 2], "pads": [2, 2, 2, 2]},
        {"pads": [0, 1, 2, 0]},
        {"pads": None, "auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"pads": None, "auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"pads": None, "auto_pad": "VALID"},
    ],
)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_patches_times_rows_is_the_convolution(builder, run, facts, groups: int) -> None:
    b = builder(("n", 4, 8, 8))
    y = b.conv("x", "c", (4, 8), groups=groups, **facts)
    for node in b.nodes:
        kept = [a for a in node.attribute if a.name != "pads" or facts.get("pads", 1) is not None]
        del node.attribute[:]
        node.attribute.extend(kept)
    graph = Graph.of(b.model(y, 4))
    x = np.random.default_rng(0).normal(size=(2, 4, 8, 8)).astype(np.float32)
    layer = layers_of(graph)[0]
    seen, places = patches(graph, layer, x)
    rows = to_rows(graph.weights("c.weight"), 0).reshape(groups, -1, seen.shape[-1])
    made = np.matmul(seen, rows.transpose(0, 2, 1)).transpose(1, 0, 2).reshape(2, len(places), 8)
    expected = run(graph.model(), x).transpose(0, 2, 3, 1).reshape(2, -1, 8)[:, places]
    np.testing.assert_allclose(made + bias_of(graph, layer), expected, rtol=1e-4, atol=1e-5)


def test_few_patches_of_a_large_picture_reach_its_borders(builder) -> None:
    b = builder(("n", 3, 64, 64))
    graph = Graph.of(b.model(b.conv("x", "c", (3, 4)), 4))
    seen, places = patches(graph, layers_of(graph)[0], np.zeros((2, 3, 64, 64), np.float32))
    assert len(places) == PATCHES_PER_EXAMPLE
    assert seen.shape == (1, 2 * PATCHES_PER_EXAMPLE, 27)
    assert (places[0], places[-1]) == (0, 64 * 64 - 1)


def test_corrected_biases_take_the_mean_error_away(residual_net, feeds) -> None:
    batches = feeds(count=6)
    graph, placement, encoding = start(residual_net, batches)
    corrected = correct_biases(graph, placement, encoding, batches)
    inner = "block.conv2_out"

    def mean_error(candidate: Encoding) -> float:
        exact = Execution(graph.model(), [inner])
        ours = Execution(write_qdq(graph, placement, candidate), [inner])
        gaps = [ours.run(b)[inner] - exact.run(b)[inner] for b in batches()]
        return float(np.abs(np.concatenate(gaps).mean(axis=(0, 2, 3))).max())

    assert mean_error(corrected) < 0.3 * mean_error(encoding)
    assert error(graph, placement, corrected, batches) < error(graph, placement, encoding, batches)


def test_fitted_weights_beat_nearest_on_pictures_never_seen(residual_net, feeds) -> None:
    batches, others = feeds(count=8, size=16), feeds(seed=7)
    graph, placement, encoding = start(residual_net, batches)
    fitted = fit_weights(graph, placement, encoding, least_error(lambda _: COARSE), batches)
    assert error(graph, placement, fitted, others) < 0.7 * error(graph, placement, encoding, others)
    for integers in fitted.weights.values():
        assert np.abs(integers.values.astype(int)).max() <= 7


def test_depthwise_and_grouped_layers_are_fitted_too(depthwise_net, feeds) -> None:
    batches = feeds(count=6, size=16, shape=(8, 8, 8))
    graph, placement, encoding = start(depthwise_net, batches)
    fitted = fit_weights(graph, placement, encoding, least_error(lambda _: COARSE), batches)
    assert error(graph, placement, fitted, batches) < error(graph, placement, encoding, batches)


def test_a_shared_weight_is_fitted_once_and_biased_per_user(builder, feeds) -> None:
    b = builder(("n", 4, 8, 8))
    first = b.node("Relu", [b.conv("x", "a", (4, 4))], "act")
    y = b.node("Conv", [first, "a.weight", "a.bias"], "y", name="/again/Conv", pads=[1, 1, 1, 1])
    batches = feeds(count=4, shape=(4, 8, 8))
    graph, placement, encoding = start(b.model(y, 4), batches)
    fitted = fit_weights(graph, placement, encoding, least_error(lambda _: COARSE), batches)
    assert set(fitted.weights) == {"a.weight"}
    assert set(fitted.biases) == {"/a/Conv", "/again/Conv"}
    assert not np.allclose(fitted.biases["/a/Conv"], fitted.biases["/again/Conv"])
    assert error(graph, placement, fitted, batches) < error(graph, placement, encoding, batches)


def test_a_matmul_keeps_having_no_bias(builder, feeds) -> None:
    b = builder(("n", 5, 6))
    weight = b.const("w", b.rng.normal(size=(6, 4)).astype(np.float32))
    net = b.model(b.node("MatMul", ["x", weight], "y", name="mm"), 3)
    batches = feeds(shape=(5, 6))
    graph, placement, encoding = start(net, batches)
    fitted = fit_weights(graph, placement, encoding, least_error(lambda _: COARSE), batches)
    assert not fitted.biases
    assert not correct_biases(graph, placement, encoding, batches).biases
    wrong = replace(fitted, biases={"mm": np.ones(4)})
    with pytest.raises(Refused, match="is a MatMul, which takes no bias"):
        write_qdq(graph, placement, wrong)


def test_the_most_damaged_layer_is_the_most_sensitive(residual_net, feeds) -> None:
    batches = feeds()
    graph, _, encoding = start(residual_net, batches, Grid())
    worst = encoding.weights["block.conv2.weight"]
    broken = replace(worst, values=(worst.values // 32 * 32).astype(np.int8))
    encoding = replace(encoding, weights={**encoding.weights, "block.conv2.weight": broken})
    order = layer_sensitivities(graph, encoding, head(batches, 1))
    assert order[0].path == "block.conv2"
    assert {s.path for s in order} == {"stem", "block.conv1", "block.conv2", "head"}
    assert order[0].error > 2 * order[1].error


def test_only_the_first_batches(feeds) -> None:
    assert len(list(head(feeds(count=5), 2)())) == 2
    assert len(list(head(feeds(count=1), 2)())) == 1


def test_inputs_can_be_shown_and_miscounted_ones_are_refused(residual_net, feeds) -> None:
    batch = next(feeds()())
    shown = Execution(residual_net, ["x"]).run(batch)
    np.testing.assert_array_equal(shown["x"], batch[0])
    with pytest.raises(LilliputError, match=r"takes 1 inputs \(x\) and the data gives 2"):
        Execution(residual_net).run((*batch, *batch))


def test_a_graph_that_cannot_be_loaded_is_refused(builder) -> None:
    b = builder()
    net = b.model(b.node("Unheard", ["x"], "y"), 4)
    with pytest.raises(Refused, match="ONNX Runtime cannot load the graph"):
        Execution(net)


def test_an_all_zero_output_has_an_absolute_error(builder, feeds) -> None:
    b = builder(("n", 3, 8, 8))
    zero = b.model(b.conv("x", "c", (3, 2), weight=np.zeros((2, 3, 3, 3)), bias=np.zeros(2)), 4)
    one = b.__class__(("n", 3, 8, 8))
    ones = one.model(one.conv("x", "c", (3, 2), weight=np.zeros((2, 3, 3, 3)), bias=np.ones(2)), 4)
    batches = feeds(count=1, size=1)
    found = relative_error(Execution(ones), Execution(zero), batches)
    assert found == pytest.approx(np.sqrt(128))
