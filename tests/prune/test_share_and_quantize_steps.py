"""Shared values and low bits as steps: forms hold, alone and one after the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from lilliput.candidate import Candidate
from lilliput.context import Context, SilentJournal
from lilliput.errors import Refused
from lilliput.network import Network
from lilliput.prune.weights import density_of, weights_of
from lilliput.steps.finetune import Finetune
from lilliput.steps.prune_weights import PruneWeights
from lilliput.steps.quantize_weights import QuantizeWeights
from lilliput.steps.share_weights import ShareWeights, biases_of, share_together
from lilliput.testing.tiny import TinyResidual, tiny_context, tiny_network

EPOCH: dict[str, Any] = {"epochs": 1, "batch_size": 32, "bn_images": 0}


class Notes(SilentJournal):
    def __init__(self) -> None:
        self.facts: dict[str, dict[str, Any]] = {}

    def note(self, event: str, /, **facts: Any) -> None:
        self.facts[event] = facts


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return replace(tiny_context(tmp_path), journal=Notes())


def applied(step: Any, network: Network, context: Context) -> Network:
    candidate = Candidate("n", network=network)
    step.requires(candidate, context)
    return step.apply(candidate, context).the_network()


@pytest.fixture
def sparse(context: Context) -> Network:
    step = PruneWeights(density=0.3, small=0, remove_dead=False, bn_images=0)
    return applied(step, bell_shaped(), context)


def bell_shaped() -> Network:
    """Weights of a bell-shaped distribution, as training leaves them: fresh ones are uniform."""
    network = tiny_network().copy()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in weights_of(network).values():
            weight.normal_(std=0.2, generator=generator)
    return network


def levels(network: Network) -> dict[str, int]:
    return {n: len(torch.unique(w[w != 0])) for n, w in weights_of(network).items()}


def zeros(network: Network) -> dict[str, torch.Tensor]:
    return {n: w.detach() == 0 for n, w in weights_of(network).items()}


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_sparse_network_shares_few_values_and_keeps_its_zeros(
    sparse: Network, context: Context, epochs: int
) -> None:
    settings = {**EPOCH, "epochs": epochs, "learning_rate": 0.01}
    step = ShareWeights(values=4, layer_values={"stem": 7}, **settings)
    made = applied(step, sparse, context)
    assert levels(made) == {n: 7 if n == "stem.weight" else 4 for n in levels(made)}
    for name, there in zeros(sparse).items():
        assert torch.equal(zeros(made)[name], there)
    assert set(made.held.values()) == {"shared"}


def test_the_journal_tells_bits_and_error_of_each_layer(sparse: Network, context: Context) -> None:
    made = applied(ShareWeights(values=4, bn_images=0), sparse, context)
    facts = context.journal.facts["weights shared"]["layers"]  # type: ignore[attr-defined]
    for name, told in facts.items():
        before, after = (n.module.get_parameter(name).detach().double() for n in (sparse, made))
        error = (before - after).square().sum() / before.square().sum()
        assert told["error"] == pytest.approx(float(error), rel=1e-5)
        assert told["kept"] == int(torch.count_nonzero(after))
        assert 0 < told["bits"] <= 2


def test_more_values_than_weights_change_nothing(sparse: Network, context: Context) -> None:
    made = applied(ShareWeights(values=4096, bn_images=0), sparse, context)
    for one, other in zip(sparse.module.parameters(), made.module.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_layer_of_zeros_alone_is_left(context: Context) -> None:
    network = tiny_network().copy()
    with torch.no_grad():
        network.module.stem.weight.zero_()
    made = applied(ShareWeights(values=4, bn_images=0), network, context)
    assert not made.module.stem.weight.any()


def test_economy_takes_fewer_bits_and_more_zeros(sparse: Network, context: Context) -> None:
    found = {}
    for economy in (0.0, 0.2):
        step = ShareWeights(values=16, economy=economy, bn_images=0)
        made = applied(step, sparse, context)
        facts = context.journal.facts["weights shared"]["layers"]  # type: ignore[attr-defined]
        found[economy] = sum(f["kept"] * f["bits"] for f in facts.values()), made
    assert found[0.2][0] < found[0.0][0]
    assert density_of(weights_of(found[0.2][1])) < density_of(weights_of(sparse))
    for name, there in zeros(sparse).items():
        assert zeros(found[0.2][1])[name][there].all()


def test_biases_share_values_over_the_whole_network(context: Context) -> None:
    network = tiny_network("super_resolution")
    made = applied(ShareWeights(values=4, bias_values=3, bn_images=0), network, context)
    biases = biases_of(made)
    assert set(biases) == {"first.bias", "second.bias", "last.bias"}
    assert len(torch.unique(torch.cat([b.detach() for b in biases.values()]))) == 3
    assert {made.held[name] for name in biases} == {"fixed"}
    assert "first.bias" not in applied(ShareWeights(bn_images=0), network, context).held


def test_sharing_among_none_is_nothing() -> None:
    share_together({}, 4)
    zero = torch.nn.Parameter(torch.zeros(3))
    share_together({"b": zero}, 2)
    assert not zero.any()


@pytest.mark.parametrize("per", ["tensor", "channel"])
@pytest.mark.parametrize("epochs", [0, 1])
def test_weights_lie_on_grids_of_so_many_bits(
    sparse: Network, context: Context, per: Any, epochs: int
) -> None:
    step = QuantizeWeights(bits=3, layer_bits={"stem": 4}, per=per, **{**EPOCH, "epochs": epochs})
    made = applied(step, sparse, context)
    assert set(made.held.values()) == {"fixed"}
    for name, weight in weights_of(made).items():
        limit = 7 if name == "stem.weight" else 3
        rows = weight.detach().flatten(1) if per == "channel" else weight.detach().reshape(1, -1)
        for row in rows:
            assert len(torch.unique(row.abs())) <= limit + 1
            assert _on_a_grid(row, limit)
    for name, there in zeros(sparse).items():
        assert zeros(made)[name][there].all()


def _on_a_grid(row: torch.Tensor, limit: int) -> bool:
    """Whether some step makes integers up to the limit of all values."""
    values = row[row != 0].abs().double().numpy()
    if not len(values):
        return True
    steps = [values.max() / n for n in range(1, limit + 1)]
    return any(np.allclose(values / s, np.rint(values / s), atol=1e-5) for s in steps)


def test_economy_takes_fewer_bits_and_stays_on_the_grid(context: Context) -> None:
    network, bits = bell_shaped(), []
    for economy in (0.0, 0.05):
        step = QuantizeWeights(bits=4, economy=economy, bn_images=0)
        made = applied(step, network, context)
        facts = context.journal.facts["weights quantized"]["layers"]  # type: ignore[attr-defined]
        bits.append([layer["bits"] for layer in facts.values()])
        assert all(_on_a_grid(w.detach().flatten(), 7) for w in weights_of(made).values())
    assert all(fewer < more for more, fewer in zip(*bits, strict=True))


@pytest.mark.parametrize(
    "step",
    [PruneWeights(density=0.3, remove_dead=False), ShareWeights(values=2), QuantizeWeights()],
)
def test_statistics_of_norms_are_measured_anew(step: Any, context: Context) -> None:
    kept, fresh = (
        applied(step.model_copy(update={"bn_images": images}), bell_shaped(), context).module
        for images in (0, 64)
    )
    before, after = kept.state_dict(), fresh.state_dict()
    assert not torch.equal(before["block2.bn2.running_mean"], after["block2.bn2.running_mean"])
    assert all(torch.equal(before[n], p) for n, p in fresh.named_parameters())


def test_learning_helps_ternary_weights(context: Context) -> None:
    """Rounded weights that learn come nearer to the teacher than rounded weights that do not."""
    network = context.original.the_network()
    learnt = QuantizeWeights(
        bits=2, epochs=4, batch_size=32, learning_rate=0.02, imitation=1, bn_images=0
    )
    batches = context.task.batches(context.data.validation, network.preprocessing, 48)
    (x,) = (torch.as_tensor(part) for part in next(iter(batches)).inputs)

    def gap(step: QuantizeWeights) -> float:
        made = applied(step, network, context)
        with torch.no_grad():
            return float((made.module(x) - network.module(x)).square().mean())

    assert gap(learnt) < gap(QuantizeWeights(bits=2, bn_images=0))


def test_the_whole_chain_keeps_all_forms_through_a_last_training(context: Context) -> None:
    network = context.original.the_network()
    chain = [
        PruneWeights(density=0.3, small=0, **EPOCH),
        ShareWeights(values=4, bias_values=4, **EPOCH),
    ]
    for step in chain:
        network = applied(step, network, context)
    last = applied(Finetune(epochs=1, batch_size=32), network, context)
    assert levels(last) == levels(network)
    for name, there in zeros(network).items():
        assert torch.equal(zeros(last)[name], there)
    for name, bias in biases_of(network).items():
        assert torch.equal(last.module.get_parameter(name), bias)
    moved = [
        not torch.equal(w, last.module.get_parameter(n)) for n, w in weights_of(network).items()
    ]
    assert any(moved)
    low = applied(QuantizeWeights(bits=3, **EPOCH), network, context)
    assert {low.held[name] for name in weights_of(low)} == {"fixed"}
    for name, there in zeros(network).items():
        assert zeros(low)[name][there].all()


@pytest.mark.parametrize(
    ("kind", "settings", "text"),
    [
        (ShareWeights, {"layer_values": {"a": 0}}, "'a' must have 1 to 4096 values"),
        (QuantizeWeights, {"layer_bits": {"a": 1}}, "'a' must have 2 to 8 bits"),
    ],
)
def test_layers_out_of_bounds_are_refused(kind: Any, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        kind(**settings)


@pytest.mark.parametrize(
    "step", [ShareWeights(layer_values={"stam": 4}), QuantizeWeights(layer_bits={"stam": 4})]
)
def test_layers_that_are_not_there_are_refused(step: Any, context: Context) -> None:
    with pytest.raises(Refused, match="no weight matches 'stam'") as refused:
        step.requires(context.original, context)
    assert "stem" in str(refused.value)


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_eight_bits_learn_as_full_precision_does(per: str, context: Context) -> None:
    """The gradients of steps are large where steps are small, and slow no weight down."""
    network = replace(tiny_network(), module=TinyResidual(16).eval())
    plain = Finetune(epochs=6, batch_size=16, learning_rate=0.02)
    fine = QuantizeWeights(
        bits=8, per=per, epochs=6, batch_size=16, imitation=0, learning_rate=0.02
    )
    last = {}
    for step in (plain, fine):
        heard = Losses()
        step.apply(Candidate("net", network=network), replace(context, journal=heard))
        last[step.name] = heard.losses[-1]
    assert last["quantize_weights"] < 1.2 * last["finetune"] + 0.05


class Losses(SilentJournal):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def note(self, event: str, /, **facts: Any) -> None:
        if event == "epoch":
            self.losses.append(facts["loss"])


@pytest.mark.parametrize("first", [ShareWeights(values=4), QuantizeWeights(bits=3)])
def test_pruning_keeps_the_form_that_weights_have(first: Any, context: Context) -> None:
    name = "block1.conv1.weight"

    def values(network: Network) -> int:
        return len(dict(network.module.named_parameters())[name].unique())

    network = context.original.the_network()
    for step in (first, PruneWeights(density=0.7), Finetune(epochs=1)):
        network = step.apply(Candidate("net", network=network), context).the_network()
        assert values(network) <= 8, step.name
