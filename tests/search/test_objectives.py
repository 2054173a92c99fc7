"""Costs by hand."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from lilliput.artifact import TensorSpec
from lilliput.export.onnx_file import export_network
from lilliput.network import Network
from lilliput.prune import analyse, cut
from lilliput.search.genomes import Variant
from lilliput.search.grids import with_weight_bits
from lilliput.search.objectives import Counter, coded_bytes, entropy_bits, widths_key


def lenet5() -> Network:
    module = nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )
    return Network(module.eval(), (TensorSpec(name="x", shape=(None, 1, 28, 28)),), "lenet5")


def narrowed(analysis, *widths):
    kept = dict(zip((20, 50, 500), widths, strict=True))
    groups = {group.width: group for group in analysis.prunable}
    return tuple(sorted(n for w, k in kept.items() for n in groups[w].classes[k:]))


def test_lenet5_and_the_widths_that_fit_103_kb(tmp_path):
    network = lenet5()
    analysis = analyse(network)
    counter = Counter(analysis)
    whole = counter.of(Variant(), network)
    assert (whole["params"], whole["macs"], whole["bytes"]) == (431_080, 2_293_000, 1_724_320)
    for widths, params in (((6, 16, 80), 23_942), ((8, 20, 60), 24_098), ((10, 20, 62), 25_812)):
        gone = narrowed(analysis, *widths)
        assert analysis.params(gone) == params
        smaller = cut(network, analysis, gone, verify=False)
        assert smaller.params == params
        file = export_network(smaller, tmp_path / f"{params}.onnx").path
        assert 0 < file.stat().st_size - counter.file_bytes(Variant(gone)) < 3000


def test_bit_operations_by_hand():
    network = lenet5()
    analysis = analyse(network)
    counter = Counter(analysis)
    paths = [layer.path for layer in analysis.layers]

    def bops(weights, inputs):
        return counter.bops(
            Variant((), dict.fromkeys(paths, weights), dict.fromkeys(paths, inputs))
        )

    assert bops(8, 8) == 2_293_000 * 64
    assert bops(4, 8) == 2_293_000 * 32
    assert bops(32, 32) == counter.bops(Variant()) == 2_293_000 * 1024
    first = Variant((), {"0": 2}, {"0": 8})
    assert counter.bops(first) == 288_000 * 16 + (2_293_000 - 288_000) * 1024


def test_entropy_by_hand():
    assert entropy_bits(np.array([0, 1, 2, 3])) == 8
    assert entropy_bits(np.array([7, 7, 7])) == 0
    assert entropy_bits(np.array([-1.0, -1.0, 1.0, 1.0])) == 4
    assert entropy_bits(np.array([0, 0, 0, 1])) == pytest.approx(4 * 0.811278, abs=1e-5)


def test_fewer_bits_are_fewer_coded_bytes():
    network = lenet5()
    sizes = []
    for bits in (32, 8, 6, 4, 3, 2):
        chosen = dict.fromkeys(("0", "3", "7", "9"), bits)
        sizes.append(coded_bytes(with_weight_bits(network, chosen), chosen))
    assert sizes == sorted(sizes, reverse=True)
    scales = 2 * (20 + 50 + 500 + 10)
    assert sizes[-1] <= 431_080 * 2 / 8 + scales + 4 * 580


def test_equal_widths_have_equal_keys():
    analysis = analyse(lenet5())
    group = analysis.prunable[0]
    first, last = group.classes[:1], group.classes[-1:]
    assert widths_key(analysis, first) == widths_key(analysis, last) != widths_key(analysis, ())
