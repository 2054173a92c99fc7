"""Weights keep the form that a step gave them through any training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn

from lilliput.distill.companions import Companion, Shared, summed_over
from lilliput.distill.loop import Schedule, train
from lilliput.distill.losses import Observed, Truth
from lilliput.distill.sources import Examples
from lilliput.errors import LilliputError
from lilliput.models.store import load_saved, save_network
from lilliput.network import Network
from lilliput.testing.tiny import tiny_context, tiny_network


def trained(
    network: Network,
    folder: Path,
    companions: tuple[Companion, ...] = (),
    optimizer: Literal["sgd", "adam"] = "sgd",
) -> Network:
    context = tiny_context(folder)
    source = Examples(context.data, context.task, network.preprocessing, 16)
    schedule = Schedule(epochs=2, learning_rate=0.05, optimizer=optimizer, weight_decay=0.1)
    return train(
        network, [Truth(context.task)], source, schedule, context, key="k", companions=companions
    )


def first_weight(network: Network) -> tuple[str, nn.Parameter]:
    return next((n, p) for n, p in network.module.named_parameters() if p.ndim == 4)


def held(form: str, change: Any) -> Network:
    """The tiny network, one weight changed and held."""
    network = tiny_network().copy()
    name, parameter = first_weight(network)
    with torch.no_grad():
        parameter.copy_(change(parameter))
    return replace(network, held={name: form})


def test_zeros_stay_zero_and_the_others_move(tmp_path: Path) -> None:
    before = held("zeros", lambda w: torch.where(w.abs() > w.abs().median(), w, 0.0))
    after = first_weight(trained(before, tmp_path))[1]
    zero = first_weight(before)[1] == 0
    assert zero.any()
    assert torch.equal(after == 0, zero)
    assert not torch.equal(after, first_weight(before)[1])


def test_shared_values_stay_shared(tmp_path: Path) -> None:
    before = held("shared", lambda w: (w / 0.2).round().clamp(-2, 2) * 0.2)
    (_, old), (_, new) = first_weight(before), first_weight(trained(before, tmp_path))
    values, members = torch.unique(old.detach(), return_inverse=True)
    for k, value in enumerate(values):
        found = torch.unique(new.detach()[members == k])
        assert len(found) == 1
        assert (found == 0) == (value == 0)
    assert not torch.equal(old, new)


def test_fixed_weights_do_not_move(tmp_path: Path) -> None:
    before = held("fixed", lambda w: (w / 0.2).round() * 0.2)
    after = trained(before, tmp_path)
    assert torch.equal(first_weight(before)[1], first_weight(after)[1])
    moved = [
        not torch.equal(p, after.module.get_parameter(n))
        for n, p in before.module.named_parameters()
    ]
    assert sum(moved) == len(moved) - 1


def test_the_gradient_of_a_centroid_is_the_sum_over_its_members() -> None:
    torch.manual_seed(0)
    centroids = torch.randn(4, requires_grad=True)
    members = torch.randint(0, 4, (3, 5))
    loss = (centroids[members].pow(3) * torch.randn(3, 5)).sum()
    per_weight = torch.autograd.grad(loss, centroids, retain_graph=True)[0]
    weights = centroids.detach()[members].requires_grad_()
    torch.manual_seed(0)
    torch.randn(4), torch.randint(0, 4, (3, 5))
    (weights.pow(3) * torch.randn(3, 5)).sum().backward()
    assert weights.grad is not None
    assert torch.allclose(per_weight, summed_over(weights.grad, members, 4), atol=1e-6)


def test_a_centroid_moves_by_the_mean_of_its_members_gradients() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(6, 5, bias=False), torch.randn(7, 6)
    members = torch.randint(0, 4, (5, 6))
    centroids = torch.tensor([-0.5, 0.0, 0.25, 1.0], requires_grad=True)
    with torch.no_grad():
        layer.weight.copy_(centroids[members])
    (x @ centroids[members].t()).square().sum().backward()
    assert centroids.grad is not None
    mean = centroids.grad / torch.bincount(members.flatten())
    shared = Shared(["weight"])
    shared.begin(layer)
    layer(x).square().sum().backward()
    shared.graded(0.0)
    moving = centroids.detach() != 0
    torch.testing.assert_close(layer.weight.grad, (mean * moving)[members])


class Watching(Companion):
    """Keeps what a weight is after each step, once those that hold it have had their turn."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[torch.Tensor] = []

    def begin(self, student: nn.Module) -> None:
        self.weight = student.get_parameter(self.name)

    def stepped(self, share: float) -> None:
        self.seen.append(self.weight.detach().clone())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("form", ["zeros", "shared", "fixed"])
def test_the_form_holds_after_every_step(
    tmp_path: Path, form: str, optimizer: Literal["sgd", "adam"]
) -> None:
    before = held(form, lambda w: (w / 0.06).round() * 0.06 + 0.0)
    name, old = first_weight(before)
    watching = Watching(name)
    trained(before, tmp_path, (watching,), optimizer)
    zero = old.detach() == 0
    values, members = torch.unique(old.detach(), return_inverse=True)
    assert len(values) > 4
    assert len(watching.seen) == 2 * 96 // 16
    for seen in watching.seen:
        assert torch.equal(seen == 0, zero)
        assert not torch.signbit(seen[zero]).any()
        assert torch.equal(seen, old) == (form == "fixed")
        if form != "zeros":
            assert all(len(seen[members == k].unique()) == 1 for k in range(len(values)))


def test_forms_are_stored_with_the_network(tmp_path: Path) -> None:
    before = held("zeros", lambda w: w)
    path = save_network(before, tmp_path / "n.safetensors")
    assert load_saved(path, tiny_network().module).held == dict(before.held)


def test_an_unknown_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LilliputError, match="no form 'zeroes' of weights") as refused:
        trained(held("zeroes", lambda w: w), tmp_path)
    assert "zeros" in str(refused.value)


class Counting(Companion):
    """Counts what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begin(self, student: nn.Module) -> None:
        self.told.append("begin")

    def observed(self, seen: Observed, share: float) -> None:
        assert seen.output.requires_grad
        assert 0 <= share < 1
        self.told.append("observed")

    def graded(self, share: float) -> None:
        self.told.append("graded")

    def stepped(self, share: float) -> None:
        self.told.append("stepped")

    def epoch_over(self) -> None:
        self.told.append("over")

    def end(self) -> None:
        self.told.append("end")

    def facts(self) -> dict[str, float]:
        return {"told": float(len(self.told))}

    def state(self) -> dict[str, Any]:
        return {"told": self.told}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.told = [*state["told"], *self.told]


def test_a_companion_is_told_every_step_in_order(tmp_path: Path) -> None:
    companion = Counting()
    trained(tiny_network(), tmp_path, (companion,))
    epoch = ["observed", "graded", "stepped"] * (96 // 16) + ["over"]
    assert companion.told == ["begin", *epoch, *epoch, "end"]


def test_a_companion_goes_on_after_a_break(tmp_path: Path) -> None:
    network = tiny_network()
    context = replace(tiny_context(tmp_path), checkpoints=tmp_path)
    source = Examples(context.data, context.task, network.preprocessing, 16)
    terms, schedule = [Truth(context.task)], Schedule(epochs=2, learning_rate=0.05)

    class Stop(Exception):
        pass

    def stop(_facts: object) -> None:
        raise Stop

    first, second, whole = Counting(), Counting(), Counting()
    with pytest.raises(Stop):
        train(
            network,
            terms,
            source,
            schedule,
            context,
            key="k",
            companions=[first],
            on_epoch=stop,
        )
    train(network, terms, source, schedule, context, key="k", companions=[second])
    plain = replace(context, checkpoints=None)
    train(network, terms, source, schedule, plain, key="k", companions=[whole])
    assert second.told.count("stepped") == whole.told.count("stepped")
