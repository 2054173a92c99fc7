"""The pixel grid: the same function, no error at the input."""

from __future__ import annotations

import numpy as np
import pytest

from lilliput.encode.pixels import expose_pixels, pixel_grid
from lilliput.encode.prepare import prepare
from lilliput.graph import Graph
from lilliput.preprocessing import Preprocessing

COLOURS = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def test_the_function_is_the_same_and_the_pixels_are_whole(residual_net, run) -> None:
    graph = Graph.of(prepare(residual_net).model)
    found = expose_pixels(graph, COLOURS)
    assert found is not None
    changed, name = found
    pictures = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    x = COLOURS(pictures)
    np.testing.assert_allclose(run(changed.model(), x), run(graph.model(), x), rtol=1e-4, atol=1e-5)
    from lilliput.encode.execute import Execution

    seen = Execution(changed.model(), [name]).run((x,))[name]
    np.testing.assert_allclose(seen[:, :3], pictures.transpose(0, 3, 1, 2), atol=1e-3)
    np.testing.assert_array_equal(seen[:, 3], 255)
    grid = pixel_grid()
    np.testing.assert_array_equal(grid.quantize(seen[:, :3]), pictures.transpose(0, 3, 1, 2))
    assert changed.weights("stem.weight_pixels").shape[1] == 4


@pytest.mark.parametrize(
    "preprocessing",
    [None, Preprocessing(), Preprocessing(scale=1.0), Preprocessing(mean=(0.5,), std=(0.2,))],
)
def test_where_one_grid_fits_nothing_is_done(residual_net, preprocessing) -> None:
    assert expose_pixels(Graph.of(prepare(residual_net).model), preprocessing) is None


def test_several_readers_of_the_input_keep_it(builder) -> None:
    b = builder()
    y = b.node("Add", [b.conv("x", "a", (3, 3)), "x"], "y")
    assert expose_pixels(Graph.of(b.model(y, 4)), COLOURS) is None


def test_another_first_layer_keeps_it(builder) -> None:
    b = builder()
    assert expose_pixels(Graph.of(b.model(b.node("Relu", ["x"], "y"), 4)), COLOURS) is None
    b = builder()
    grouped = b.model(b.conv("x", "a", (3, 3), groups=3), 4)
    assert expose_pixels(Graph.of(grouped), COLOURS) is None
    b = builder(("n", 6, 8, 8))
    assert expose_pixels(Graph.of(b.model(b.conv("x", "a", (6, 3)), 4)), COLOURS) is None
