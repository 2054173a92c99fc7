"""Trainings in the format that is fast, where the network bears it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lilliput.artifact import TensorSpec
from lilliput.distill.loop import Schedule, train
from lilliput.distill.losses import Imitation, Observed, Truth
from lilliput.distill.memory_format import memory_format_of
from lilliput.distill.sources import Examples
from lilliput.network import Network
from lilliput.testing import tiny_context, tiny_network
from lilliput.testing.zoo import zoo

ONCE = Schedule(epochs=1, learning_rate=0.01)


class Viewing(nn.Module):
    """LeNet's way from pictures to features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(512, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        return self.head(x.view(x.size(0), -1))  # type: ignore[no-any-return]


class Projected(nn.Module):
    """A narrow ResNet's shortcut: torch 2.13 corrupts the heap in channels-last."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 12, 3, 2, 1)
        self.short, self.head = nn.Conv2d(width, 12, 1, 2), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return self.head(torch.relu(self.conv(x) + self.short(x)).mean((2, 3)))  # type: ignore[no-any-return]


def network(module: nn.Module) -> Network:
    return Network(module.eval(), (TensorSpec(name="x", shape=(None, 3, 8, 8)),), "net")


@pytest.mark.parametrize("student", [Viewing(), tiny_network().module], ids=["view", "residual"])
def test_views_of_convolutions_train_and_teach(student: nn.Module, tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    source = Examples(context.data, context.task, tiny_network().preprocessing, 16)
    terms = [Truth(context.task), Imitation(context.task)]
    teacher = network(Viewing())
    trained = train(network(student), terms, source, ONCE, context, key="a", teacher=teacher)
    assert all(p.is_contiguous() for p in trained.module.parameters())


def test_what_bears_it_is_fast() -> None:
    def found(given: Network) -> torch.memory_format:
        return memory_format_of(given, given.copy().module.train())

    assert found(tiny_network()) is torch.channels_last
    assert found(network(Projected(16))) is torch.channels_last
    assert found(network(Projected(6))) is torch.contiguous_format
    assert found(network(Viewing())) is torch.contiguous_format


def test_to_try_changes_nothing() -> None:
    given = tiny_network()
    before = {k: v.clone() for k, v in given.module.state_dict().items()}
    state = torch.random.get_rng_state()
    memory_format_of(given, given.module)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in given.module.state_dict().items())
    assert not given.module.training
    assert all(p.grad is None for p in given.module.parameters())


class Given:
    """Two batches of a network's own random inputs."""

    labelled = False

    def __init__(self, network: Network) -> None:
        self.network = network

    def epoch(self, rng: np.random.Generator) -> Iterator[tuple[tuple[Tensor, ...], None]]:
        for _ in range(self.steps()):
            yield self.network.example(4, seed=int(rng.integers(100))), None

    def steps(self) -> int:
        return 2


class Small:
    """Outputs near zero."""

    weight, taps = 1.0, ()

    def __call__(self, seen: Observed) -> Tensor:
        return seen.output.float().square().mean()


@pytest.mark.parametrize("name", zoo())
def test_every_network_of_the_zoo_trains(name: str, tmp_path: Path) -> None:
    given = zoo()[name]()
    train(given, [Small()], Given(given), ONCE, tiny_context(tmp_path), key="a")
