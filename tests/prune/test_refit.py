"""What is left of a layer answers as the whole did, by least squares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lilliput.artifact import TensorSpec
from lilliput.network import Network
from lilliput.prune import analyse, cut
from lilliput.prune.refit import grams, least_squares, refitted


def chain() -> Network:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 16, 5),
    )
    return Network(module.eval(), (TensorSpec(name="x", shape=(None, 3, 12, 12)),), "chain")


def batches(count: int = 4) -> list[tuple[np.ndarray]]:
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(16, 3, 12, 12)).astype(np.float32),) for _ in range(count)]


def test_weights_equal_least_squares_on_the_data_themselves():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(200, 7, generator=rng, dtype=torch.float64)
    weights = torch.randn(3, 7, generator=rng, dtype=torch.float64)
    kept = torch.tensor([0, 2, 3, 6])
    ours = least_squares(x.T @ x, kept, weights, 0.0)
    theirs = torch.linalg.lstsq(x[:, kept], x @ weights.T).solution.T
    torch.testing.assert_close(ours, theirs)


def test_all_inputs_kept_gives_the_weights_back():
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = torch.arange(12, dtype=torch.float64).reshape(2, 6)
    torch.testing.assert_close(least_squares(x.T @ x, torch.arange(6), weights, 1e-9), weights)


@pytest.mark.parametrize("seed", range(4))
def test_a_fit_is_never_worse_than_leaving_inputs_out(seed):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(100, 9, generator=rng, dtype=torch.float64)
    x = x @ torch.randn(9, 9, generator=rng, dtype=torch.float64)
    weights = torch.randn(4, 9, generator=rng, dtype=torch.float64)
    kept = torch.randperm(9, generator=rng)[:5]
    fitted = least_squares(x.T @ x, kept, weights, 0.0)
    truth = x @ weights.T
    ours = (truth - x[:, kept] @ fitted.T).pow(2).sum()
    masked = (truth - x[:, kept] @ weights[:, kept].T).pow(2).sum()
    assert ours <= masked


def test_a_cut_network_comes_nearer_to_the_whole_one():
    network = chain()
    analysis = analyse(network)
    gone = [n for group in analysis.prunable for n in group.classes[::2]]
    known = grams(network, analysis, batches())
    assert set(known) == {"2", "5"}, "the first layer reads what cannot be cut"
    smaller = cut(network, analysis, gone)
    before = smaller.module[5].weight.clone()
    fitted = refitted(smaller, network, analysis, gone, known)
    assert torch.equal(smaller.module[5].weight, before)
    (x,) = batches(1)[0]
    with torch.no_grad():
        whole, plain, ours = (n.module(torch.from_numpy(x)) for n in (network, smaller, fitted))
    assert (ours - whole).pow(2).sum() < (plain - whole).pow(2).sum()


def test_an_uncut_network_is_left_as_it_is(tmp_path: Path):
    network = chain()
    analysis = analyse(network)
    same = refitted(network, network, analysis, (), grams(network, analysis, batches(1)))
    for ours, theirs in zip(same.module.parameters(), network.module.parameters(), strict=True):
        assert torch.equal(ours, theirs)
