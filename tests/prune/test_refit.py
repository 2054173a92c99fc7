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


@pytest.mark.parametrize("ridge", [0.0, 1e-4, 0.1, 10.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_fit_is_never_worse_than_leaving_inputs_out(seed, ridge):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(100, 9, generator=rng, dtype=torch.float64)
    x = x @ torch.randn(9, 9, generator=rng, dtype=torch.float64)
    weights = torch.randn(4, 9, generator=rng, dtype=torch.float64)
    kept = torch.randperm(9, generator=rng)[:5]
    fitted = least_squares(x.T @ x, kept, weights, ridge)
    truth = x @ weights.T
    ours = (truth - x[:, kept] @ fitted.T).pow(2).sum()
    masked = (truth - x[:, kept] @ weights[:, kept].T).pow(2).sum()
    assert ours < masked


def test_what_no_example_shows_keeps_its_weight():
    x = torch.zeros(30, 3, dtype=torch.float64)
    x[:, :2] = torch.randn(30, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weights = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    fitted = least_squares(x.T @ x, torch.tensor([0, 2]), weights, 1e-6)
    assert float(fitted[0, 1]) == pytest.approx(3.0)


def test_no_step_from_the_fitted_weights_comes_nearer_to_what_each_layer_gave():
    """Sums over unfolded pictures against torch's own gradients, with padding and a stride."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, padding=2, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 49, 5),
    )
    network = Network(module.eval(), (TensorSpec(name="x", shape=(None, 3, 12, 12)),), "padded")
    analysis = analyse(network)
    gone = [n for group in analysis.prunable for n in group.classes[::2]]
    known = grams(network, analysis, batches(8))
    assert set(known) == {"2", "5"}
    smaller = cut(network, analysis, gone)
    fitted = refitted(smaller, network, analysis, gone, known, ridge=1e-9)
    x = torch.from_numpy(np.concatenate([batch for (batch,) in batches(8)]))
    kept = {"2": slice(1, None, 2), "5": torch.arange(6 * 49).reshape(6, 49)[1::2].flatten()}

    def slope_and_loss(made: Network, path: str) -> tuple[float, float]:
        with torch.no_grad():
            read = module[: int(path)](x)
            gave = module[int(path)](read)
        gave = gave[:, 1::2] if path == "2" else gave
        layer = made.module.get_submodule(path).double()
        loss = (layer(read[:, kept[path]].double()) - gave.double()).square().mean()
        gradients = torch.autograd.grad(loss, [layer.weight, layer.bias])
        return sum(float(g.square().sum()) for g in gradients) ** 0.5, float(loss.detach())

    for path in known:
        slope, loss = slope_and_loss(fitted.copy(), path)
        masked_slope, masked_loss = slope_and_loss(smaller.copy(), path)
        assert slope < 1e-3 * masked_slope
        assert loss < masked_loss


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
