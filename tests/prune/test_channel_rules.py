"""Operators and modules of the user's own: frozen, unless a rule of one function says more [24]."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lilliput
from lilliput.artifact import TensorSpec
from lilliput.network import Network
from lilliput.prune import Analysis, analyse, cut
from lilliput.prune.call import RULES, Call
from lilliput.prune.labels import Labels


class Sine(torch.autograd.Function):
    """Computed outside of torch, as a kernel of the user's own would be."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.from_numpy(np.sin(x.detach().numpy()))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] * x.cos()


class Wave(nn.Module):
    """A gain for each channel of a sine; python branches on what it sees."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.linspace(0.5, 1.5, channels))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = Sine.apply(x) if x.abs().max() > 0 else x
        return y * self.gain[:, None, None]


@torch.library.custom_op("lilliput_test::flip", mutates_args=())
def flip(x: Tensor) -> Tensor:
    """Upside down."""
    return torch.from_numpy(x.numpy()[:, :, ::-1].copy())


class Flip(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        turned: Tensor = flip(x)
        return turned


def network_around(own: nn.Module) -> Network:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        own,
        nn.Conv2d(8, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    spec = TensorSpec(name="x", shape=(None, 3, 8, 8))
    return Network(module.eval(), (spec,), "own")


def cuttable(analysis: Analysis) -> dict[str, int]:
    """{layer: channels of its output that may go}."""
    return {group.name: len(group.classes) for group in analysis.prunable}


@pytest.fixture
def rules() -> Iterator[None]:
    """The table as it was, afterwards."""
    before = dict(RULES)
    yield
    RULES.clear()
    RULES.update(before)


def wave(call: Call) -> list[Labels]:
    """Each channel by itself, with its gain."""
    x = call.first
    call.ledger.tie(x[1], call.labels(call.func.gain)[0])
    return [x]


@pytest.mark.parametrize("own", [Wave(8), Flip()], ids=["module", "operator"])
def test_without_a_rule_all_but_the_unknown_is_cut(own: nn.Module) -> None:
    network = network_around(own)
    analysis = analyse(network)
    assert list(cuttable(analysis).values()) == [6]
    gone = [number for group in analysis.prunable for number in group.classes[1:]]
    smaller = cut(network, analysis, gone).module
    assert isinstance(smaller, nn.Sequential)
    assert [len(smaller[n].weight) for n in (0, 2, 4)] == [8, 1, 4]


@pytest.mark.usefixtures("rules")
def test_with_a_rule_for_the_module_its_channels_go_too() -> None:
    lilliput.channel_rule(Wave)(wave)
    network = network_around(Wave(8))
    analysis = analyse(network)
    assert sorted(cuttable(analysis).values()) == [6, 8]
    wide = next(group for group in analysis.prunable if len(group.classes) == 8)
    assert {member.tensor for member in wide.members} == {
        *("0.weight", "0.bias", "1.gain", "2.weight"),
    }
    smaller = cut(network, analysis, wide.classes[:3])
    assert isinstance(smaller.module, nn.Sequential)
    assert smaller.module[1].gain.shape == (5,)
    x = network.example(2)[0]
    assert smaller.module(x).shape == network.module(x).shape


@pytest.mark.usefixtures("rules")
def test_with_a_rule_for_the_operator_its_channels_go_too() -> None:
    lilliput.channel_rule("lilliput_test::flip")(lambda call: [call.first])
    analysis = analyse(network_around(Flip()))
    assert sorted(cuttable(analysis).values()) == [6, 8]


@pytest.mark.usefixtures("rules")
def test_a_rule_that_is_wrong_cuts_nothing_wrongly() -> None:
    lilliput.channel_rule(Wave)(lambda call: [call.first])  # the gain is forgotten
    analysis = analyse(network_around(Wave(8)))
    assert list(cuttable(analysis).values()) == [6]
