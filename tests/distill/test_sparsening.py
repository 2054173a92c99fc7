"""Sparsity rises by the rule; what went stays at zero through momentum and decay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lilliput.distill.companions import Companion
from lilliput.distill.loop import EpochFacts, Schedule, train
from lilliput.distill.losses import Truth
from lilliput.distill.sources import Examples
from lilliput.distill.sparsening import Sparsening, cubic
from lilliput.network import Network
from lilliput.testing.tiny import tiny_context, tiny_network

NAMES = ("stem.weight", "block1.conv1.weight", "block2.conv2.weight")
FINAL = 0.1


def choose(weights: Mapping[str, Tensor], level: float) -> Mapping[str, Tensor]:
    density = 1 - (1 - FINAL) * level
    masks = {}
    for name, weight in weights.items():
        flat = weight.abs().flatten()
        mask = torch.zeros(len(flat), dtype=torch.bool)
        mask[flat.topk(round(density * len(flat))).indices] = True
        masks[name] = mask.reshape(weight.shape)
    return masks


class Watching(Companion):
    """Keeps what it sees after each step; goes after the one that is watched."""

    def __init__(self, watched: Sparsening) -> None:
        self.watched = watched
        self.masks: list[tuple[float, dict[str, Tensor]]] = []
        self.stray = 0.0

    def stepped(self, share: float) -> None:
        self.masks.append((share, {n: m.clone() for n, m in self.watched.masks.items()}))
        for name, weight in self.watched.weights.items():
            gone = ~self.watched.masks[name]
            self.stray = max(self.stray, float(weight.detach()[gone].abs().sum()))
            assert self.watched.optimizer is not None
            if not self.watched.regrow or share >= self.watched.settled:
                for kept in self.watched.optimizer.state[weight].values():
                    if isinstance(kept, Tensor) and kept.shape == weight.shape:
                        self.stray = max(self.stray, float(kept[gone].abs().sum()))


def run(
    folder: Path,
    companions: tuple[Companion, ...],
    optimizer: str = "sgd",
    epochs: int = 4,
    given: Network | None = None,
) -> Network:
    context = tiny_context(folder)
    network = given or tiny_network()
    source = Examples(context.data, context.task, network.preprocessing, 16)
    schedule = Schedule(epochs, 0.05, optimizer, weight_decay=0.1)
    return train(
        network, [Truth(context.task)], source, schedule, context, key="k", companions=companions
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("regrow", [False, True])
def test_what_went_is_exactly_zero_after_every_step(
    tmp_path: Path, optimizer: str, regrow: bool
) -> None:
    companion = Sparsening(NAMES, choose, regrow=regrow)
    watching = Watching(companion)
    made = run(tmp_path, (companion, watching), optimizer)
    assert watching.stray == 0.0
    settled = [masks for share, masks in watching.masks if share >= companion.settled]
    assert len(settled) > 2
    assert all(torch.equal(m[n], settled[0][n]) for m in settled for n in NAMES)
    for name in NAMES:
        weight = made.module.get_parameter(name)
        assert torch.equal(weight != 0, settled[0][name])
        assert int(settled[0][name].sum()) == round(FINAL * weight.numel())


@pytest.mark.parametrize("regrow", [False, True])
def test_a_survivor_that_happens_to_be_zero_still_learns(tmp_path: Path, regrow: bool) -> None:
    def first_half(weights: Mapping[str, Tensor], _: float) -> Mapping[str, Tensor]:
        return {
            n: torch.arange(w.numel()).view(w.shape) * 2 < w.numel() for n, w in weights.items()
        }

    network = tiny_network()
    weight = network.module.get_parameter("stem.weight")
    with torch.no_grad():
        weight[:, 0, 0, 0] = 0.0
    companion = Sparsening(("stem.weight",), first_half, regrow=regrow)
    made = run(tmp_path, (companion,), epochs=1, given=network).module.get_parameter("stem.weight")
    assert torch.equal(made != 0, companion.masks["stem.weight"])


def test_without_regrowth_survivors_only_become_fewer(tmp_path: Path) -> None:
    companion = Sparsening(NAMES, choose)
    watching = Watching(companion)
    run(tmp_path, (companion, watching))
    steps = [masks for _, masks in watching.masks]
    for before, after in pairwise(steps):
        assert not any((after[n] & ~before[n]).any() for n in NAMES)


def test_with_regrowth_some_come_back(tmp_path: Path) -> None:
    companion = Sparsening(NAMES, choose, regrow=True)
    watching = Watching(companion)
    run(tmp_path, (companion, watching))
    steps = [masks for _, masks in watching.masks]
    back = sum(
        int((after[n] & ~before[n]).sum()) for before, after in pairwise(steps) for n in NAMES
    )
    assert back > 0


def test_the_schedule_is_cubic(tmp_path: Path) -> None:
    assert cubic(0) == 0
    assert cubic(1) == cubic(2) == 1
    assert cubic(0.5) == pytest.approx(0.875)
    companion = Sparsening(NAMES, choose)
    watching = Watching(companion)
    run(tmp_path, (companion, watching))
    for share, masks in watching.masks:
        kept = sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())
        assert kept == pytest.approx(1 - (1 - FINAL) * cubic(share / companion.settled), abs=0.01)


@pytest.mark.parametrize("regrow", [False, True])
def test_a_training_of_one_step_ends_with_the_final_masks(tmp_path: Path, regrow: bool) -> None:
    network = tiny_network()
    context = tiny_context(tmp_path)
    source = Examples(context.data, context.task, network.preprocessing, 96)
    companion = Sparsening(NAMES, choose, regrow=regrow)
    made = train(
        network,
        [Truth(context.task)],
        source,
        Schedule(1, 0.01),
        context,
        key="k",
        companions=[companion],
    )
    for name in NAMES:
        weight = made.module.get_parameter(name)
        assert int(torch.count_nonzero(weight)) == round(FINAL * weight.numel())


@pytest.mark.parametrize("regrow", [False, True])
def test_a_broken_training_ends_as_an_undisturbed_one(tmp_path: Path, regrow: bool) -> None:
    network = tiny_network()
    context = replace(tiny_context(tmp_path), checkpoints=tmp_path)
    source = Examples(context.data, context.task, network.preprocessing, 16)

    class Stop(Exception):
        pass

    def stop(facts: EpochFacts) -> None:
        if facts.epoch == 2:
            raise Stop

    def go(checkpoints: Path | None, on_epoch: object = None) -> nn.Module:
        return train(
            network,
            [Truth(context.task)],
            source,
            Schedule(4, 0.05),
            replace(context, checkpoints=checkpoints),
            key="k",
            companions=[Sparsening(NAMES, choose, regrow=regrow)],
            on_epoch=on_epoch,  # type: ignore[arg-type]
        ).module

    whole = go(None)
    with pytest.raises(Stop):
        go(tmp_path, stop)
    resumed = go(tmp_path)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_density_is_told(tmp_path: Path) -> None:
    companion = Sparsening(NAMES, choose)
    run(tmp_path, (companion,))
    assert companion.facts()["density"] == pytest.approx(FINAL, abs=0.01)
