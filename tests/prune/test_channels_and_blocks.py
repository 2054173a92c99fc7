"""Narrowing in rounds, statistics taken anew, blocks that can be left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lilliput.artifact import TensorSpec
from lilliput.errors import LilliputError, Refused
from lilliput.network import Network
from lilliput.prune import analyse, network_macs, removable_blocks, remove, replay
from lilliput.prune import channels as channels_module
from lilliput.prune.allocation import Policy, multiples_of
from lilliput.prune.batchnorm import reestimate
from lilliput.prune.blocks import ranked
from lilliput.prune.channels import Goal, Narrower, narrow
from lilliput.prune.importance import class_scores
from lilliput.testing.zoo import zoo


def by_norm(network, analysis):
    return class_scores(network, analysis, "l2")


def how(**changes):
    return Narrower(score=by_norm, policy=changes.pop("policy", Policy()), **changes)


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("name", ["plain", "residual", "zero_padded_shortcut", "rotated_channels"])
def test_several_small_cuts_end_at_the_widths_of_one(name, rounds):
    network = zoo()[name]()
    goal = Goal(max_macs=0.7 * network_macs(network))
    notes = []
    smaller = narrow(network, goal, how(rounds=rounds, note=lambda e, **f: notes.append((e, f))))
    once = narrow(network, goal, how())
    shapes = [tuple(p.shape) for p in smaller.module.parameters()]
    assert shapes == [tuple(p.shape) for p in once.module.parameters()]
    assert network_macs(smaller) <= 0.7 * network_macs(network)
    assert len(notes) == rounds
    assert 1 <= len(smaller.edits) <= rounds  # a small round may cut nothing
    assert notes[-1][1]["macs"] == network_macs(smaller)
    fresh = replay(zoo()[name]().module, smaller.edits)
    fresh.load_state_dict(smaller.module.state_dict())


def test_statistics_are_taken_anew_after_every_cut():
    repaired = []

    def repair(network):
        repaired.append(network.params)
        return network

    network = zoo()["plain"]()
    narrow(network, Goal(ratio=0.5), how(rounds=4, repair=repair))
    assert len(repaired) == 4
    assert repaired == sorted(repaired, reverse=True)


def test_scores_are_taken_anew_in_every_round():
    seen = []

    def score(network, analysis):
        seen.append(analysis.class_count)
        return class_scores(network, analysis, "l1")

    narrow(zoo()["plain"](), Goal(ratio=0.5), Narrower(score, Policy(), rounds=3))
    assert len(seen) == 3
    assert seen[0] > seen[1] > seen[2]


def test_a_latency_goal_is_found_by_measuring():
    # users-ask 9: no table of layers foretells a time; whole networks are timed
    network = zoo()["residual"]()
    tried = []

    def milliseconds(candidate):
        tried.append(candidate)
        return network_macs(candidate) / 1e4

    limit = 0.6 * network_macs(network) / 1e4
    smaller = narrow(network, Goal(max_latency_ms=limit), how(measure_ms=milliseconds))
    assert 0.4 * limit < milliseconds(smaller) <= limit
    assert len(tried) < 10
    with pytest.raises(Refused, match=r"0\.001 ms cannot be reached.*narrowest network takes"):
        narrow(network, Goal(max_latency_ms=0.001), how(measure_ms=milliseconds))
    with pytest.raises(Refused, match="needs a target that can be measured"):
        narrow(network, Goal(max_latency_ms=1.0), how())


def test_a_goal_is_exactly_one():
    with pytest.raises(ValueError, match="exactly one"):
        Goal(ratio=0.5, max_macs=1)
    with pytest.raises(ValueError, match="exactly one"):
        Goal()


def test_protected_layers_stay_through_all_rounds():
    network = zoo()["residual"]()
    smaller = narrow(network, Goal(ratio=0.4), how(rounds=2, protect=["2.1"]))
    for name, tensor in network.module[2][1].state_dict().items():
        assert torch.equal(smaller.module[2][1].state_dict()[name], tensor)
    assert smaller.params < network.params


def test_a_network_without_a_channel_to_cut_says_why():
    network = Network(nn.Linear(3, 2).eval(), (TensorSpec(name="x", shape=(None, 3)),), name="lin")
    with pytest.raises(Refused, match=r"no channel of 'lin' can be cut: .* the network's input"):
        narrow(network, Goal(ratio=0.5), how())


def test_a_group_whose_cut_proves_wrong_is_left_alone(monkeypatch):
    network = zoo()["hard_view"]()
    monkeypatch.setattr(channels_module, "analyse", lambda n: analyse(n, prove=False))
    notes = []
    everywhere = how(policy=Policy(scope="local"), note=lambda e, **f: notes.append((e, f)))
    smaller = narrow(network, Goal(ratio=0.3), everywhere)
    assert notes[0][0] == "cut refused"
    assert notes[0][1]["groups"] == ["last.0"]
    assert "does not run" in notes[0][1]["why"]
    assert smaller.module.linear.weight.shape == (4, 80)
    assert smaller.params < network.params


def test_the_grid_holds_after_rounds():
    smaller = narrow(
        zoo()["plain"](), Goal(ratio=0.4), how(policy=Policy(round_width=multiples_of(4)), rounds=3)
    )
    assert {len(p) % 4 for p in smaller.module.parameters()} == {0}


# batch-norm statistics


def test_statistics_are_the_average_over_batches():
    network = Network(
        nn.Sequential(nn.BatchNorm2d(2)).eval(), (TensorSpec(name="x", shape=(None, 2, 4, 4)),)
    )
    rng = np.random.default_rng(0)
    batches = [rng.normal(3, 2, (16, 2, 4, 4)).astype(np.float32) for _ in range(5)]
    fresh = reestimate(network, [(batch,) for batch in batches])
    norm = fresh.module[0]
    mean = np.mean([batch.mean((0, 2, 3)) for batch in batches], 0)
    var = np.mean(
        [batch.transpose(1, 0, 2, 3).reshape(2, -1).var(1, ddof=1) for batch in batches], 0
    )
    assert norm.running_mean.numpy() == pytest.approx(mean, rel=1e-5)
    assert norm.running_var.numpy() == pytest.approx(var, rel=1e-5)
    assert not norm.training
    assert norm.momentum == 0.1
    assert network.module[0].running_mean.tolist() == [0.0, 0.0]


def test_statistics_without_batches_or_norms():
    network = zoo()["plain"]()
    with pytest.raises(LilliputError, match="no batch to take batch-norm statistics from"):
        reestimate(network, [])
    without = zoo()["bias_without_norm"]()
    assert reestimate(without, []) is without


# blocks


def test_blocks_of_a_residual_network_outermost_first():
    network = zoo()["residual"]()
    blocks = removable_blocks(network)
    assert list(blocks) == ["2.0", "2.1", "2.2"]
    macs = network_macs(network)
    for path, block in blocks.items():
        smaller = remove(network, path)
        assert network_macs(smaller) == macs - block.macs
        assert smaller.params == network.params - block.params
    assert network_macs(network) == macs


def test_a_stage_that_is_a_row_of_blocks_is_its_blocks():
    class Stage(nn.Module):
        def __init__(self, blocks):
            super().__init__()
            self.stage = nn.Sequential(*blocks)

        def forward(self, x):
            return self.stage(x)

    inner = zoo()["residual"]().module[2]
    network = Network(
        nn.Sequential(nn.Conv2d(3, 8, 1), Stage(list(inner))).eval(),
        (TensorSpec(name="x", shape=(None, 3, 8, 8)),),
    )
    assert list(removable_blocks(network)) == ["1.stage.0", "1.stage.1", "1.stage.2"]


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("plain", []),
        ("zero_padded_shortcut", ["2", "3.two", "4", "5.two"]),
        ("projection_shortcut", ["2.two", "3"]),
        ("used_twice", ["again"]),
        ("transformer", ["blocks.0", "blocks.1"]),
        ("prelu", []),
        ("python_branches", ["1"]),
        ("two_heads", []),
        ("recurrent", []),
    ],
)
def test_blocks_of_the_zoo(name, blocks):
    assert list(removable_blocks(zoo()[name]())) == blocks


def test_a_block_that_keeps_shapes_but_breaks_the_run_is_no_block():
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x):
            return self.two(self.one(x)) * self.one.weight.sum()

    network = Network(Picky().eval(), (TensorSpec(name="x", shape=(None, 3, 4, 4)),))
    assert list(removable_blocks(network)) == []


def test_all_removals_together_still_run():
    network = zoo()["zero_padded_shortcut"]()
    for path in removable_blocks(network):
        network = remove(network, path)
    assert network.module(*network.example(2)).shape == (2, 4)
    assert len(network.edits) == 4


def test_ranking_is_time_saved_per_loss():
    saved = {"a": 1.0, "b": 2.0, "c": 0.5, "d": -0.1, "e": 1.0}
    losses = {"a": 1.1, "b": 1.4, "c": 1.01, "d": 0.5, "e": 0.9}
    # e lowers the loss; a saves 10 a unit, b 5, c 50; d makes it slower
    assert ranked(saved, losses, 1.0) == ["e", "c", "a", "b", "d"]
