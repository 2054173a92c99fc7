"""Pieces of a graph give what the whole gives, and leave nothing behind."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from lilliput.encode.execute import Execution
from lilliput.encode.frontier import Frontier
from lilliput.encode.layers import layers_of
from lilliput.encode.prepare import prepare
from lilliput.graph import Graph


@pytest.fixture
def deep_net(builder):
    """Three residual blocks whose shortcuts reach over several layers."""
    b = builder()
    y = b.node("Relu", [b.conv("x", "stem", (3, 6))], "stem_act")
    for n in range(3):
        inner = b.node("Relu", [b.conv(y, f"b{n}.a", (6, 6))], f"inner{n}")
        y = b.node("Add", [b.conv(inner, f"b{n}.b", (6, 6)), y], f"sum{n}")
    pooled = b.node("Flatten", [b.node("GlobalAveragePool", [y], "pool")], "flat")
    return b.model(b.linear(pooled, "head", (6, 4)))


def test_pieces_equal_the_whole(deep_net, feeds) -> None:
    graph = Graph.of(prepare(deep_net).model)
    layers = layers_of(graph)
    frontier = Frontier(graph, layers, feeds(), threads=1)
    whole = Execution(graph.model(), [layer.input for layer in layers])
    expected = [whole.run(batch) for batch in feeds()()]
    for index, layer in enumerate(layers):
        frontier.advance(graph.model(), layer.input)
        for ours, theirs in zip(frontier.values(layer.input), expected, strict=True):
            np.testing.assert_allclose(ours, theirs[layer.input], rtol=1e-4, atol=1e-5)
        frontier.passed(index)
    frontier.close()


def test_a_piece_starts_from_the_layers_before_it(deep_net, feeds, monkeypatch) -> None:
    graph = Graph.of(prepare(deep_net).model)
    layers = layers_of(graph)
    sizes: list[int] = []
    real = Execution.__init__

    def counted(self, model, show=(), **settings):
        sizes.append(sum(node.op_type in ("Conv", "Gemm") for node in model.graph.node))
        real(self, model, show, **settings)

    monkeypatch.setattr(Execution, "__init__", counted)
    frontier = Frontier(graph, layers, feeds(count=1), threads=1)
    for index, layer in enumerate(layers):
        frontier.advance(graph.model(), layer.input)
        frontier.passed(index)
    frontier.close()
    assert max(sizes) == 1
    assert len(sizes) == len(layers) - 1


def test_files_go_when_nothing_needs_them(deep_net, feeds) -> None:
    graph = Graph.of(prepare(deep_net).model)
    layers = layers_of(graph)
    frontier = Frontier(graph, layers, feeds(count=2), threads=1)
    folder = Path(frontier._folder.name)
    most = 0
    for index, layer in enumerate(layers):
        frontier.advance(graph.model(), layer.input)
        most = max(most, len(list(folder.iterdir())))
        frontier.passed(index)
    assert not list(folder.iterdir())
    assert most <= 3 * 2
    frontier.close()
    assert not folder.exists()


def test_a_forgotten_tensor_is_computed_anew(deep_net, feeds) -> None:
    graph = Graph.of(prepare(deep_net).model)
    frontier = Frontier(graph, layers_of(graph), feeds(count=1), threads=1)
    frontier.advance(graph.model(), "inner0")
    before = next(frontier.values("inner0"))
    frontier.forget("inner0")
    changed = graph.copy()
    changed.constants["b0.a.weight"] = 2 * graph.weights("b0.a.weight")
    frontier.advance(changed.model(), "inner0")
    assert not np.allclose(next(frontier.values("inner0")), before)
    frontier.close()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pictures(deep_net, feeds) -> None:
    # users-ask 29
    graph = Graph.of(prepare(deep_net).model)
    layers = layers_of(graph)

    def peak(count: int) -> int:
        frontier = Frontier(graph, layers, feeds(count=count, size=200), threads=1)
        gc.collect()
        tracemalloc.start()
        for index, layer in enumerate(layers):
            frontier.advance(graph.model(), layer.input)
            for _ in frontier.values(layer.input):
                pass
            frontier.passed(index)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        frontier.close()
        return most

    peak(2)
    # Once more if it does not hold: a megabyte of the interpreter's own is as large as a batch.
    assert any(peak(100) < 1.3 * peak(10) for _ in range(3))
