"""Scores counted by hand on networks small enough for that."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lilliput.artifact import TensorSpec
from lilliput.errors import LilliputError, Refused
from lilliput.network import Network
from lilliput.prune import analyse
from lilliput.prune.importance import class_scores
from lilliput.testing.zoo import zoo


class Two(nn.Module):
    """Three hidden channels: 1×1 convolution, batch norm, linear map to two outputs."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 3, 1, bias=False), nn.BatchNorm2d(3)
        self.last = nn.Linear(3, 2, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1.0, -2.0, 3.0]).view(3, 1, 1, 1))
            self.norm.weight.copy_(torch.tensor([0.5, -4.0, 1.0]))
            self.norm.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
            self.last.weight.copy_(torch.tensor([[1.0, 0.0, -1.0], [2.0, 1.0, -1.0]]))

    def forward(self, x):
        return self.last(self.norm(self.conv(x)).mean((2, 3)))


@pytest.fixture
def two():
    network = Network(Two().eval(), (TensorSpec(name="x", shape=(None, 1, 2, 2)),), name="two")
    analysis = analyse(network)
    return network, analysis, list(analysis.prunable[0].classes)


def test_norms_take_in_what_makes_a_channel_and_what_reads_it(two):
    network, analysis, hidden = two
    assert class_scores(network, analysis, "l1")[hidden].tolist() == [4.0, 3.0, 5.0]
    squares = np.array([1 + 1 + 4, 4 + 1, 9 + 1 + 1])
    assert class_scores(network, analysis, "l2")[hidden] == pytest.approx(np.sqrt(squares))


def test_the_scale_of_the_batch_norm(two):
    network, analysis, hidden = two
    assert class_scores(network, analysis, "bn_scale")[hidden].tolist() == [0.5, 4.0, 1.0]


def test_no_batch_norm_no_scale():
    network = zoo()["bias_without_norm"]()
    with pytest.raises(Refused, match=r"channels of '0' pass through no batch norm(.|\n)*`l2`"):
        class_scores(network, analyse(network), "bn_scale")


def batches(count=4, size=8):
    generator = torch.Generator().manual_seed(3)
    return [
        (
            (torch.randn(size, 1, 2, 2, generator=generator).numpy(),),
            torch.randint(0, 2, (size,), generator=generator).numpy(),
        )
        for _ in range(count)
    ]


def cross_entropy(output, target):
    return F.cross_entropy(output, target)


@pytest.mark.parametrize(("criterion", "power"), [("taylor", 1), ("fisher", 2)])
def test_gradients_by_hand(two, criterion, power):
    """Where the channel is read: the columns of the last layer."""
    network, analysis, hidden = two
    scores = class_scores(network, analysis, criterion, batches=batches(), loss=cross_entropy)
    expected = np.zeros(3)
    for inputs, targets in batches():
        module = Two().eval()
        cross_entropy(module(torch.from_numpy(inputs[0])), torch.from_numpy(targets)).backward()
        change = (module.last.weight * module.last.weight.grad).detach().sum(0)
        expected += change.abs().pow(power).numpy()
    assert scores[hidden] == pytest.approx(expected / 4, rel=1e-4)
    assert all(p.grad is None for p in network.module.parameters())


def test_output_is_the_squared_change_of_all_outputs(two):
    """The last layer is linear, so that first order is exact: compare with zeroing."""
    network, analysis, hidden = two
    many = [batches(1, 64)[0]] * 300
    scores = class_scores(network, analysis, "output", batches=many)
    x = torch.from_numpy(many[0][0][0])
    expected = []
    with torch.no_grad():
        for k in range(3):
            module = Two().eval()
            module.last.weight[:, k] = 0
            expected.append(float((module(x) - network.module(x)).square().sum()))
    assert scores[hidden] == pytest.approx(expected, rel=0.3)
    unlabelled = [(inputs, None) for inputs, _ in batches()]
    assert class_scores(network, analysis, "output", batches=unlabelled)[hidden].min() > 0


def test_a_channel_that_no_weight_reads_is_scored_where_it_is_made():
    class Gram(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 1)

        def forward(self, x):
            x = self.conv(x).flatten(2)
            return torch.bmm(x.mT, x)

    torch.manual_seed(0)
    network = Network(Gram().eval(), (TensorSpec(name="x", shape=(None, 1, 2, 2)),))
    with torch.no_grad():
        network.module.conv.weight[1] = 0
        network.module.conv.bias[1] = 0
    analysis = analyse(network)
    hidden = list(analysis.prunable[0].classes)
    scores = class_scores(network, analysis, "output", batches=batches())[hidden]
    assert scores[1] == 0
    assert scores[0] > 0
    assert scores[2] > 0


def test_random_scores_follow_the_generator(two):
    network, analysis, _ = two
    one, two_, three = (
        class_scores(network, analysis, "random", rng=np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    assert (one == two_).all()
    assert (one != three).any()


def test_what_is_missing_is_said(two):
    network, analysis, _ = two
    with pytest.raises(LilliputError, match=r"no criterion 'tailor'\n.*'taylor'"):
        class_scores(network, analysis, "tailor")
    with pytest.raises(LilliputError, match="'taylor' needs batches and a loss"):
        class_scores(network, analysis, "taylor")
    with pytest.raises(LilliputError, match="no batch to take gradients from"):
        class_scores(network, analysis, "taylor", loss=cross_entropy)
    with pytest.raises(Refused, match=r"gradients need labels(.|\n)*`output`"):
        class_scores(
            network, analysis, "taylor", batches=[(batches()[0][0], None)], loss=cross_entropy
        )
