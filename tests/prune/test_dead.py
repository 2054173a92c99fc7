"""Units without a connection on one side go, and the network computes what it did."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lilliput.artifact import TensorSpec
from lilliput.network import Network, flat_outputs
from lilliput.prune.dead import without_dead
from lilliput.prune.edits import replay
from lilliput.testing.tiny import TinyResidual, tiny_network


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.Sigmoid(), nn.Linear(7, 3))


def convolutions(padding: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 3, padding=padding),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(5 * (16 if padding else 1), 4),
    )


def network(module: nn.Module, *shape: int) -> Network:
    return Network(module.eval(), (TensorSpec(name="x", shape=(None, *shape)),))


def same(one: Network, other: Network) -> None:
    x = one.example(16, seed=9)
    with torch.no_grad():
        ours, theirs = (flat_outputs(n.module(*x))[0] for n in (one, other))
    assert torch.allclose(ours, theirs, atol=1e-5 * float(theirs.abs().max()))


def changed(module: nn.Module, change: Callable[[nn.Module], None]) -> nn.Module:
    with torch.no_grad():
        change(module)
    return module


def test_an_unfed_unit_becomes_part_of_the_next_bias() -> None:
    def unfeed(m: nn.Module) -> None:
        m[0].weight[3] = 0
        m[0].bias[3] = 0.7
        m[2].weight[1] = 0

    before = network(changed(plain(), unfeed), 6)
    after = without_dead(before)
    assert after.module[0].weight.shape == (7, 6)
    assert after.module[2].weight.shape == (6, 7)
    assert not torch.equal(after.module[4].bias, before.module[4].bias)
    same(after, before)


def test_an_unread_unit_is_removed_and_those_that_only_it_read() -> None:
    def unread(m: nn.Module) -> None:
        m[4].weight[:, 2] = 0
        m[2].weight[:, 5] = 0
        m[2].weight[2, 5] = 1.0

    before = network(changed(plain(), unread), 6)
    after = without_dead(before)
    assert after.module[2].weight.shape == (6, 7)
    same(after, before)


@pytest.mark.parametrize(("padding", "left"), [(0, 5), (1, 6)])
def test_a_constant_before_a_padded_convolution_stays(padding: int, left: int) -> None:
    """The border reads zeros there: no bias can stand for it."""

    def unfeed(m: nn.Module) -> None:
        m[0].weight[2] = 0
        m[0].bias[2] = 0.4

    before = network(changed(convolutions(padding), unfeed), 1, 8, 8)
    after = without_dead(before)
    assert after.module[0].out_channels == left
    same(after, before)


def test_a_silent_channel_goes_whatever_the_padding() -> None:
    def silence(m: nn.Module) -> None:
        m[0].weight[2] = 0
        m[0].bias[2] = -0.4

    before = network(changed(convolutions(1), silence), 1, 8, 8)
    after = without_dead(before)
    assert after.module[0].out_channels == 5
    same(after, before)


def test_a_channel_that_is_flattened_folds_all_its_places() -> None:
    def unfeed(m: nn.Module) -> None:
        m[3].weight[4] = 0
        m[3].bias[4] = 0.3

    before = network(changed(convolutions(1), unfeed), 1, 8, 8)
    after = without_dead(before)
    assert after.module[6].in_features == 4 * 16
    same(after, before)


def test_the_change_can_be_replayed() -> None:
    def unread(m: nn.Module) -> None:
        m[4].weight[:, 2] = 0

    after = without_dead(network(changed(plain(), unread), 6))
    again = replay(plain(), after.edits)
    again.load_state_dict(after.module.state_dict())
    x = torch.randn(3, 6)
    assert torch.equal(again.eval()(x), after.module(x))


def test_nothing_dead_nothing_changed() -> None:
    before = tiny_network()
    assert without_dead(before) is before


def test_a_layer_that_died_altogether_keeps_a_channel_and_the_outputs() -> None:
    def kill(m: nn.Module) -> None:
        m[2].weight.zero_()

    before = network(changed(plain(), kill), 6)
    after = without_dead(before)
    assert after.module[2].weight.shape == (1, 1)
    same(after, before)


class Unbiased(nn.Module):
    """The reader has no bias that could take the constant."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(torch.sigmoid(self.first(x)))
        return y


def test_without_a_bias_to_take_it_the_unit_stays() -> None:
    torch.manual_seed(0)
    module = Unbiased()
    with torch.no_grad():
        module.first.weight[1] = 0
    before = network(module, 4)
    assert without_dead(before) is before


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(0.3, 0.97))
def test_random_zeros_anywhere(seed: int, sparsity: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    module = plain() if seed % 2 else convolutions(seed // 2 % 2)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(torch.rand(parameter.shape, generator=generator) > sparsity)
    before = network(module, 6) if seed % 2 else network(module, 1, 8, 8)
    same(without_dead(before), before)


def test_residual_networks_with_batch_norm() -> None:
    torch.manual_seed(1)
    module = TinyResidual()
    with torch.no_grad():
        module.block1.conv2.weight[:, 3] = 0
        module.block2.conv1.weight[5] = 0
        module.block2.bn1.bias[5] = -1.0
    before = network(module, 3, 8, 8)
    after = without_dead(before)
    assert after.module.block1.conv1.out_channels == 7
    assert after.module.block2.conv1.out_channels == 7
    same(after, before)
