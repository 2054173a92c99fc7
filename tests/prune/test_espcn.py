"""A super-resolution network by default: its picture comes in and goes out whole [40].

ESPCN: Shi et al., CVPR 2016, arXiv 1609.05158, figure 1: convolutions at low resolution, the last
of which gives r² values a colour for the pixel shuffle.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lilliput.artifact import TensorSpec
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.meter.trials import Trials
from lilliput.network import Network
from lilliput.onnx_io import read_model
from lilliput.preprocessing import Preprocessing
from lilliput.prune import analyse
from lilliput.search.rungs import drop_in_torch
from lilliput.steps.export import Export
from lilliput.steps.prune_channels import PruneChannels
from lilliput.steps.quantize import Quantize
from lilliput.testing import tiny_context

SCALE, COLOURS = 2, 3


class Espcn(nn.Module):
    """Repeats each pixel, by three of its channels; the others are noise that nobody reads much."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(COLOURS, 16, 5, padding=2)
        self.second = nn.Conv2d(16, 8, 3, padding=1)
        self.last = nn.Conv2d(8, COLOURS * SCALE**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(SCALE)
        for conv in (self.first, self.second, self.last):
            nn.init.normal_(conv.weight, std=1e-3)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            for colour in range(COLOURS):
                self.first.weight[colour, colour, 2, 2] = 0.2
                self.second.weight[colour, colour, 1, 1] = 1.0
                rows = slice(colour * SCALE**2, (colour + 1) * SCALE**2)
                self.last.weight[rows, colour, 1, 1] = 5.0

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))
        pictures: Tensor = self.shuffle(y)
        return pictures


class Late(Espcn):
    """The same, with a convolution after the pixel shuffle: what is shuffled may be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.smooth = nn.Conv2d(COLOURS, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        pictures: Tensor = self.smooth(super().forward(x))
        return pictures


def network_of(module: nn.Module) -> Network:
    spec = TensorSpec(name="x", shape=(None, COLOURS, None, None), sample=(1, COLOURS, 12, 12))
    return Network(module.eval(), (spec,), "espcn", Preprocessing())


@pytest.fixture
def context(tmp_path: Path) -> Context:
    original = Candidate("original", network=network_of(Espcn()))
    return tiny_context(tmp_path, "super_resolution", original=original)


def test_by_default_only_what_lies_between_may_go() -> None:
    analysis = analyse(network_of(Espcn()))
    whole = {(m.tensor, m.dim) for group in analysis.prunable for m in group.members}
    assert {("first.weight", 0), ("second.weight", 0)} <= whole
    assert ("first.weight", 1) not in whole
    assert not any(name.startswith("last") and dim == 0 for name, dim in whole)
    (output,) = (g for g in analysis.groups if any(m.tensor == "last.bias" for m in g.members))
    assert "it is the network's output" in " ".join(output.reasons)


def test_a_pixel_shuffle_inside_loses_all_values_of_a_colour_or_none() -> None:
    analysis = analyse(network_of(Late()))
    shuffled = next(g for g in analysis.prunable if any(m.tensor == "last.bias" for m in g.members))
    counts = {m.tensor: m.count for m in shuffled.members}
    assert counts == {"last.weight": SCALE**2, "last.bias": SCALE**2, "smooth.weight": 1}


def test_a_default_cut_keeps_the_picture_and_the_decibels(context: Context) -> None:
    cut = PruneChannels(ratio=0.5, multiple_of=1, bn_images=0).apply(context.original, context)
    network = cut.the_network()
    widths = {n: tuple(p.shape[:2]) for n, p in network.module.named_parameters() if p.dim() > 1}
    assert widths["first.weight"][1] == COLOURS
    assert widths["last.weight"][0] == COLOURS * SCALE**2
    assert widths["first.weight"][0] < 16
    x = network.example(2)[0]
    assert network.module(x).shape[2:] == tuple(SCALE * side for side in x.shape[2:])
    assert drop_in_torch(network, context.data.validation, context) < 0.2


@pytest.mark.parametrize("limit", [0.02, 1.0])
def test_an_int8_file_keeps_its_limit_in_decibels(
    context: Context, tmp_path: Path, limit: float
) -> None:
    """The layers that cost most go back to float first, without being named."""
    context = replace(context, budget=context.budget.model_copy(update={"max_drop": limit}))
    plain = Export().apply(context.original, context)
    made = Quantize(calibration_images=2).apply(plain, context)
    trials = Trials(plain.the_artifact(), context.data.validation, context, tmp_path)
    lost = trials.drop(read_model(made.the_artifact().path))
    assert (lost <= limit) != ("int8 loses more than allowed" in made.labels)
    assert lost <= limit
