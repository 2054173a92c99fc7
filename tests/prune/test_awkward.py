"""What the wild has in store: gains that begin at zero, masks on weights, heads in the batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from lilliput.artifact import TensorSpec
from lilliput.errors import Refused
from lilliput.models.source import network_of
from lilliput.network import Network
from lilliput.prune import analyse, cut
from lilliput.prune.cost import network_macs
from lilliput.steps.prune_channels import PruneChannels
from lilliput.testing import tiny_context


def network(module: nn.Module, *shape: int) -> Network:
    torch.manual_seed(0)
    return network_of(module, inputs=[TensorSpec(name="x", shape=(None, *shape))])


def head(channels: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3))


class Rotated(nn.Module):
    """A residual branch whose constants hold the number of channels, behind a gain."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.gain = nn.Parameter(torch.full((1,), gain))
        self.head = head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        turned = torch.cat([x[:, 5:], x[:, :5]], 1)
        return self.head(x + self.gain * self.conv(turned))  # type: ignore[no-any-return]


def free(module: nn.Module) -> int:
    return sum(len(group.classes) for group in analyse(network(module, 3, 8, 8)).prunable)


def test_a_gain_that_begins_at_zero_proves_nothing() -> None:
    assert free(Rotated(0.0)) == free(Rotated(1e-6)) == free(Rotated(0.5))


def test_the_gain_itself_is_left_alone() -> None:
    given = network(Rotated(0.0), 3, 8, 8)
    analysis = analyse(given)
    assert given.module.get_parameter("gain").item() == 0
    smaller = cut(given, analysis, [analysis.prunable[0].classes[0]])
    assert smaller.module.get_parameter("gain").item() == 0


class Added(nn.Module):
    """A weight plus what was learnt later, as of an adapter."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.change = nn.Parameter(torch.zeros(shape))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.change


def test_a_parametrized_weight_is_cut_or_frozen_and_crashes_nothing() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), head(8))
    parametrize.register_parametrization(module[0], "weight", Added(module[0].weight.shape))
    analysis = analyse(network(module, 3, 8, 8))
    assert any(not group.classes for group in analysis.groups)
    assert any(group.classes for group in analysis.groups)


class GroupedQueries(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(12, n) for n in (64, 32, 32))
        self.out = nn.Linear(64, 12)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            each(x).view(batch, length, -1, 4).transpose(1, 2) for each in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def test_heads_that_share_keys_are_frozen_with_the_reason() -> None:
    analysis = analyse(network(GroupedQueries(), 5, 12))
    assert any("another size" in reason for reason in analysis.reasons)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), head(4)
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.runs.add_(1)
        return self.head(self.conv(x))  # type: ignore[no-any-return]


def test_looking_at_a_network_changes_no_buffer() -> None:
    given = network(Counting(), 3, 8, 8)
    before = float(given.module.get_buffer("runs"))
    analyse(given)
    assert float(given.module.get_buffer("runs")) == before


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])  # type: ignore[no-any-return]


def test_the_products_of_a_recurrent_layer_count() -> None:
    assert network_macs(network(Recurrent(), 5, 6)) == 5 * 4 * 4 * (6 + 4) + 4 * 3


def test_channels_last_freezes_nothing() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(), head(12))
    plain = free(module)
    assert free(module.to(memory_format=torch.channels_last)) == plain == 20


class Unpooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.middle = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = head(8)

    def forward(self, x: Tensor) -> Tensor:
        x, places = F.max_pool2d(self.stem(x), 2, return_indices=True)
        return self.head(F.max_unpool2d(self.middle(x), places, 2))  # type: ignore[no-any-return]


def test_what_is_unpooled_goes_with_its_places() -> None:
    given = network(Unpooled(), 3, 8, 8)
    analysis = analyse(given)
    (group,) = analysis.prunable
    for number in group.classes:
        assert cut(given, analysis, [number])


class Decided(nn.Module):
    """Gives whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), head(8)
        self.seen = nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x)).argmax(1)  # type: ignore[no-any-return]


def test_a_criterion_by_gradients_says_where_there_are_none(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    original = context.original
    given = network(Decided(), *original.the_network().inputs[0].shape[1:])
    step = PruneChannels(keep_macs=0.9, criterion="taylor")
    with pytest.raises(Refused, match=r"no gradients[^\n]*\n.*criterion: l2"):
        step.apply(replace(original, network=given), context)


@pytest.mark.parametrize("where", ["whole", "part"])
def test_torchscript_is_refused_with_a_way_out(where: str) -> None:
    part = torch.jit.script(nn.Conv2d(3, 4, 3))
    module = part if where == "whole" else nn.Sequential(part, head(4))
    with pytest.raises(Refused, match=r"is TorchScript[^\n]*\n.*without `torch.jit`"):
        network(module, 3, 8, 8)


class Blurred(nn.Module):
    """Channels as examples of one blur."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), head(8)
        self.register_buffer("blur", torch.full((1, 1, 3, 3), 1 / 9))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        batch, channels, height, width = x.shape
        apart = x.reshape(batch * channels, 1, height, width)
        blurred = F.conv2d(apart, self.get_buffer("blur"), padding=1)
        return self.head(blurred.reshape(batch, channels, height, width))  # type: ignore[no-any-return]


class Scaled(nn.Module):
    """Channels divided by scales of their own, which no mask may set to zero."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), head(8)
        self.register_buffer("scales", torch.linspace(0.5, 2, 8)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x) / self.get_buffer("scales"))  # type: ignore[no-any-return]


class Heads(nn.Module):
    """Heads among the examples of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.ModuleList(nn.Linear(12, 32) for _ in "qkv"), nn.Linear(32, 12)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (each(x).view(batch, length, -1, 4).transpose(1, 2) for each in self.qkv)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("module", "shape"),
    [(Blurred, (3, 8, 8)), (Heads, (5, 12)), (Scaled, (3, 8, 8))],
    ids=["blur", "heads", "divided"],
)
def test_what_works_on_channels_goes_with_them(module, shape) -> None:
    given = network(module(), *shape)
    analysis = analyse(given)
    classes = [group.classes[0] for group in analysis.prunable]
    smaller = cut(given, analysis, classes)
    assert analysis.macs() == network_macs(given)
    assert analysis.macs(classes) == network_macs(smaller) < network_macs(given)
