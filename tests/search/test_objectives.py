"""Costs by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from torch import nn

from lilliput.artifact import TensorSpec
from lilliput.export.onnx_file import export_network
from lilliput.network import Network
from lilliput.prune import analyse, cut
from lilliput.search.encodings.masks import Masks
from lilliput.search.genomes import Ground, Variant
from lilliput.search.grids import with_weight_bits
from lilliput.search.ladder import packed_bytes
from lilliput.search.objectives import (
    Counter,
    coded_bytes,
    counter_of,
    entropy_bits,
    weights_in,
    widths_key,
)
from lilliput.testing.zoo import shake, zoo


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


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """LeNet-5, its analysis and the counter of its variants."""
    network = lenet5()
    analysis = analyse(network)
    file = export_network(network, tmp_path_factory.mktemp("lenet5") / "whole.onnx").path
    return network, analysis, Counter(analysis, weights_in(onnx.load(file), analysis))


def biased_before_its_norm() -> Network:
    module = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(1152, 4)
    )
    shake(module)
    return Network(module.eval(), (TensorSpec(name="x", shape=(None, 3, 8, 8)),), "biased")


def narrowed(analysis, *widths):
    kept = dict(zip((20, 50, 500), widths, strict=True))
    groups = {group.width: group for group in analysis.prunable}
    return tuple(sorted(n for w, k in kept.items() for n in groups[w].classes[k:]))


def test_lenet5_and_the_widths_that_fit_103_kb(counted, tmp_path):
    network, analysis, counter = counted
    whole = counter.of(Variant(), network)
    assert (whole["params"], whole["macs"], whole["bytes"]) == (431_080, 2_293_000, 1_724_320)
    for widths, params in (((6, 16, 80), 23_942), ((8, 20, 60), 24_098), ((10, 20, 62), 25_812)):
        gone = narrowed(analysis, *widths)
        assert analysis.params(gone) == params
        smaller = cut(network, analysis, gone, verify=False)
        assert smaller.params == params
        file = export_network(smaller, tmp_path / f"{params}.onnx").path
        assert 0 < file.stat().st_size - counter.file_bytes(Variant(gone)) < 3000


def test_the_string_of_lenet5_has_570_bits(counted):
    network, analysis, _ = counted
    ground = Ground(network, analysis, np.ones(analysis.class_count))
    assert Masks(ground).levels.tolist() == [2] * 570


def test_beside_the_weights_a_file_has_the_same_bytes_whatever_the_widths(counted, tmp_path):
    network, analysis, counter = counted
    rng = np.random.default_rng(0)
    rest = []
    for number in range(5):
        widths = [int(rng.integers(1, group)) for group in (20, 50, 500)]
        gone = narrowed(analysis, *widths)
        smaller = cut(network, analysis, gone, verify=False)
        one, two, three = widths
        by_hand = 26 * one + (25 * one + 1) * two + (16 * two + 1) * three + 10 * three + 10
        assert smaller.params == analysis.params(gone) == by_hand
        macs = 576 * 25 * one + 64 * 25 * one * two + 16 * two * three + 10 * three
        assert analysis.macs(gone) == macs
        file = export_network(smaller, tmp_path / f"{number}.onnx").path
        rest.append(file.stat().st_size - counter.file_bytes(Variant(gone)))
    # Lengths of lengths: a wider tensor takes a byte or two more to say how wide it is.
    assert max(rest) - min(rest) <= 40


@pytest.mark.parametrize(
    "built",
    [zoo()["plain"], biased_before_its_norm, zoo()["preactivation"]],
    ids=["no bias", "a bias before the norm", "a norm that stays"],
)
def test_norms_weigh_what_the_file_holds_of_them(built, tmp_path):
    network = built()
    analysis = analyse(network)
    counter, rng = counter_of(network, analysis), np.random.default_rng(0)
    for number in range(4):
        kept = [rng.permutation(group.classes)[1:] for group in analysis.prunable]
        gone = sorted(int(n) for some in kept for n in some[: rng.integers(len(some) + 1)])
        smaller = cut(network, analysis, gone, verify=False)
        size = export_network(smaller, tmp_path / f"{number}.onnx").path.stat().st_size
        assert abs(size - counter.file_bytes(Variant(tuple(gone)))) <= 40


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_packed_file_is_about_as_long_as_the_estimate(bits):
    network = lenet5()
    paths = [path for path, part in network.module.named_modules() if hasattr(part, "weight")]
    fewer = dict.fromkeys(paths, bits)
    made = with_weight_bits(network, fewer)
    assert packed_bytes(made) == pytest.approx(coded_bytes(made, fewer), rel=0.08)


def test_bit_operations_by_hand(counted):
    _, analysis, counter = counted
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


def test_equal_widths_have_equal_keys(counted):
    _, analysis, _ = counted
    group = analysis.prunable[0]
    first, last = group.classes[:1], group.classes[-1:]
    assert widths_key(analysis, first) == widths_key(analysis, last) != widths_key(analysis, ())
