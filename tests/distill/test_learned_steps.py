"""The step's gradient is the paper's; what comes out lies on the grid that was learnt."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lilliput.distill.companions import Companion
from lilliput.distill.learned_steps import Grid, LearnedSteps
from lilliput.distill.loop import EpochFacts, Schedule, train
from lilliput.distill.losses import Truth
from lilliput.distill.sources import Examples
from lilliput.network import Network
from lilliput.testing.tiny import tiny_context, tiny_network

NAME = "block1.conv1.weight"


def companion(per_channel: bool = False, limit: int = 3) -> LearnedSteps:
    steps = torch.full((8 if per_channel else 1,), 0.05)
    return LearnedSteps({NAME: Grid(steps, limit)})


class Rounded(torch.autograd.Function):
    """The paper's equations 1 to 3 and 5, written out for autograd."""

    @staticmethod
    def forward(ctx, weight, step, limit):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(weight, step)
        ctx.limit = limit
        return (weight / step).round().clamp(-limit, limit) * step

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        weight, step = ctx.saved_tensors
        scaled, limit = weight / step, ctx.limit
        by_step = torch.where(scaled <= -limit, -float(limit), scaled.round() - scaled)
        by_step = torch.where(scaled >= limit, float(limit), by_step)
        inside = scaled.abs() <= limit
        per_step = (gradient * by_step).sum_to_size(step.shape) / math.sqrt(
            weight.numel() / step.numel() * limit
        )
        return gradient * inside, per_step, None


@pytest.mark.parametrize("per_channel", [False, True])
def test_gradients_are_the_papers(per_channel: bool) -> None:
    torch.manual_seed(0)
    module = tiny_network().copy().module
    weight = module.get_parameter(NAME)
    hidden = weight.detach().clone().requires_grad_()
    ours = companion(per_channel)
    ours.begin(module)
    step = torch.full((8, 1, 1, 1) if per_channel else (1,), 0.05, requires_grad=True)
    reference = Rounded.apply(hidden, step, 3)
    assert torch.equal(weight, reference)
    factors = torch.randn_like(hidden)
    (weight * factors).sum().backward()
    (reference * factors).sum().backward()
    ours.graded(0.0)
    assert hidden.grad is not None
    assert step.grad is not None
    assert weight.grad is not None
    assert torch.allclose(weight.grad, hidden.grad)
    share = ours.shares[NAME]
    assert share.grad is not None
    assert torch.allclose(share.grad * 0.05, step.grad.flatten(), rtol=1e-4, atol=1e-7)
    assert torch.equal(weight, hidden)


def run(
    folder: Path, network: Network, along: Companion, optimizer: str = "sgd", **facts: object
) -> Network:
    context = replace(tiny_context(folder), **facts)  # type: ignore[arg-type]
    source = Examples(context.data, context.task, network.preprocessing, 16)
    schedule = Schedule(3, 0.02, optimizer)
    return train(
        network, [Truth(context.task)], source, schedule, context, key="k", companions=[along]
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_what_comes_out_lies_on_the_learnt_grid(
    tmp_path: Path, optimizer: str, per_channel: bool
) -> None:
    before, along = tiny_network(), companion(per_channel)
    after = run(tmp_path, before, along, optimizer)
    steps = along.grids[NAME].steps
    assert steps.shape == ((8,) if per_channel else (1,))
    assert not torch.equal(steps, torch.full_like(steps, 0.05))
    weight = after.module.get_parameter(NAME).detach()
    shaped = along.grids[NAME].shaped(weight)
    whole = (weight / shaped).round()
    assert torch.equal(whole * shaped, weight)
    assert whole.abs().max() <= 3
    assert after.module.state_dict().keys() == before.module.state_dict().keys()


def test_zeros_that_are_held_stay(tmp_path: Path) -> None:
    network = tiny_network().copy()
    weight = network.module.get_parameter(NAME)
    with torch.no_grad():
        weight.mul_(weight.abs() > weight.abs().median())
    gone = weight.detach() == 0
    after = run(tmp_path, replace(network, held={NAME: "zeros"}), companion())
    assert not after.module.get_parameter(NAME)[gone].any()


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_network().module
            self.inner.block2.conv1.weight = self.inner.block1.conv1.weight

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.inner(x)
            return y

    network = replace(tiny_network(), module=Tied().eval())
    along = LearnedSteps({f"inner.{NAME}": Grid(torch.tensor([0.05]), 3)})
    module = run(tmp_path, network, along).module
    assert module.inner.block2.conv1.weight is module.inner.block1.conv1.weight


def test_a_broken_training_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(_facts: EpochFacts) -> None:
        raise Stop

    whole = run(tmp_path, tiny_network(), companion())
    context = replace(tiny_context(tmp_path), checkpoints=tmp_path)
    source = Examples(context.data, context.task, tiny_network().preprocessing, 16)
    with pytest.raises(Stop):
        train(
            tiny_network(),
            [Truth(context.task)],
            source,
            Schedule(3, 0.02),
            context,
            key="k",
            companions=[companion()],
            on_epoch=stop,
        )
    resumed = run(tmp_path, tiny_network(), companion(), checkpoints=tmp_path)
    for one, other in zip(whole.module.parameters(), resumed.module.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_moves_of_the_steps_are_told() -> None:
    along = companion()
    along.begin(tiny_network().copy().module)
    with torch.no_grad():
        along.shares[NAME].fill_(2.0)
    assert along.facts() == {"largest step change (octaves)": 1.0}
