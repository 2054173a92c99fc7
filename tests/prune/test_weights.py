"""Which weights stay: counts are met to the weight, floors and patterns hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from lilliput.artifact import TensorSpec
from lilliput.budget import Budget
from lilliput.candidate import Candidate
from lilliput.context import Context, SilentJournal
from lilliput.errors import LilliputError, Refused
from lilliput.network import Network
from lilliput.prune.curvature import squared_gradients
from lilliput.prune.weights import (
    Plan,
    by_glob,
    density_of,
    density_within,
    keep_masks,
    lamp,
    pattern_mask,
    scores,
    weights_of,
)
from lilliput.search import pace
from lilliput.steps.prune_weights import BYTES_A_LAYER, PruneWeights, masked
from lilliput.testing.tiny import tiny_context, tiny_network


def drawn(*sizes: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"l{n}.weight": torch.rand(size, generator=generator) for n, size in enumerate(sizes)}


def kept(masks: Mapping[str, Tensor]) -> list[int]:
    return [int(mask.sum()) for mask in masks.values()]


@settings(max_examples=30)
@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=5),
    st.floats(0.01, 1.0),
    st.sampled_from(["global", "layer"]),
)
def test_the_density_is_met_to_the_weight(sizes: list[int], density: float, scope: Any) -> None:
    masks = keep_masks(drawn(*sizes), Plan(density, scope=scope, small=0))
    if scope == "layer":
        assert kept(masks) == [max(round(density * size), 1) for size in sizes]
    else:
        assert sum(kept(masks)) == max(round(density * sum(sizes)), len(sizes))


def test_equal_scores_do_not_change_the_count() -> None:
    masks = keep_masks({"a": torch.zeros(100), "b": torch.ones(50)}, Plan(0.1, small=0))
    assert sum(kept(masks)) == 15


def test_the_dearest_stay() -> None:
    mask = keep_masks({"a": torch.tensor([0.1, 3.0, 2.0, 0.5])}, Plan(0.5, small=0))["a"]
    assert mask.tolist() == [False, True, True, False]


def test_small_layers_keep_their_floor_and_the_total_is_still_met() -> None:
    scored = {"small": torch.rand(100) * 1e-3, "large": torch.rand(9900) + 1}
    masks = keep_masks(scored, Plan(0.05, floor=0.2, small=5000))
    assert kept(masks) == [20, 480]


def test_named_layers_are_met_one_by_one_and_the_others_share_the_rest() -> None:
    masks = keep_masks(drawn(100, 200, 300), Plan(0.1, {"l0.weight": 0.66}, small=0))
    assert kept(masks)[0] == 66
    assert sum(kept(masks)[1:]) == 50
    assert kept(keep_masks(drawn(100, 200), Plan(None, {"l0.weight": 0.1}))) == [10, 200]


def test_lamp_is_the_square_over_all_squares_that_are_not_smaller() -> None:
    assert torch.allclose(
        lamp(torch.tensor([1.0, -2.0, 3.0])).float(), torch.tensor([1 / 14, 4 / 13, 1.0])
    )


def test_fisher_weighs_squares() -> None:
    found = scores("fisher", {"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([8.0, 1.0])})
    assert torch.allclose(found["a"], torch.tensor([8.0, 4.0]))


def test_squared_gradients_of_a_linear_map_are_the_squared_inputs() -> None:
    network = Network(nn.Linear(3, 2).eval(), (TensorSpec(name="x", shape=(None, 3)),))
    x = torch.tensor([[1.0, 2.0, 3.0]])
    import numpy as np

    found = squared_gradients(network, [((x,), None)], ["weight"], np.random.default_rng(0))
    assert torch.allclose(found["weight"], x.square().expand(2, 3))


@settings(max_examples=30)
@given(
    st.integers(1, 4),
    st.integers(1, 13),
    st.tuples(st.integers(1, 3), st.integers(2, 6)).filter(lambda p: p[0] < p[1]),
    st.booleans(),
)
def test_of_m_neighbours_n_stay(rows: int, columns: int, nm: tuple[int, int], conv: bool) -> None:
    n, m = nm
    generator = torch.Generator().manual_seed(rows * columns)
    shape = (rows, columns, 2, 2) if conv else (rows, columns)
    values = torch.rand(shape, generator=generator)
    mask = pattern_mask(values, n, m)
    assert mask.shape == values.shape
    for start in range(0, columns, m):
        group, there = values[:, start : start + m], mask[:, start : start + m]
        wanted = min(n, group.shape[1])
        assert (there.sum(1) == wanted).all()
        least = torch.where(there, group, torch.inf).amin(1)
        most = torch.where(there, -torch.inf, group).amax(1)
        assert (least >= most).all()


def test_the_way_to_a_plan_begins_where_the_weights_are() -> None:
    plan, now = Plan(0.1, {"a": 0.5}), Plan(0.6, {"a": 1.0})
    assert plan.between(now, 0.0).density == 0.6
    assert plan.between(now, 1.0).density == pytest.approx(0.1)
    assert plan.between(now, 0.5).shares == {"a": 0.75}
    assert plan.between(Plan(0.05), 0.5).density == 0.05


def test_an_unknown_score_and_missing_gradients_are_told() -> None:
    with pytest.raises(LilliputError, match="no score 'lump'") as refused:
        scores("lump", {})
    assert "lamp" in str(refused.value)
    with pytest.raises(LilliputError, match="needs squared gradients"):
        scores("fisher", {})


def test_a_glob_that_matches_nothing_gets_the_nearest() -> None:
    with pytest.raises(Refused, match="no weight matches 'conv9'") as refused:
        by_glob(["conv1.weight", "fc.weight"], {"conv9": 1}, at="densities")
    assert "conv1" in str(refused.value)
    assert by_glob(["conv1.weight", "fc.weight"], {"*": 1, "f*": 2}, at="") == {
        "conv1.weight": 1,
        "fc.weight": 2,
    }


def test_all_protected_is_refused() -> None:
    with pytest.raises(Refused, match="no weights that may change"):
        weights_of(tiny_network(), ("*",))


def test_masked_is_zero_where_the_mask_says_and_bitwise_equal_elsewhere() -> None:
    network = tiny_network()
    mask = network.module.stem.weight > 0
    made = masked(network, {"stem.weight": mask}).module.stem.weight
    x = network.example(2)[0]
    assert torch.equal(made, torch.where(mask, network.module.stem.weight, 0.0))
    weight = network.module.stem.weight.detach() * mask
    assert torch.equal(
        nn.functional.conv2d(x, made, padding=1), nn.functional.conv2d(x, weight, padding=1)
    )


def test_zeros_that_are_written_in_answer_as_masks_in_the_forward_pass_do() -> None:
    network, generator = tiny_network(), torch.Generator().manual_seed(0)
    weights = weights_of(network)
    masks = {n: torch.rand(w.shape, generator=generator) < 0.4 for n, w in weights.items()}
    multiplied = {n: w * masks[n] for n, w in weights.items()}
    x = network.example(8)
    with torch.no_grad():
        written = masked(network, masks).module(*x)
        assert torch.equal(written, torch.func.functional_call(network.module, multiplied, x))
        assert not torch.equal(written, network.module(*x))


class Notes(SilentJournal):
    def __init__(self) -> None:
        self.facts: dict[str, dict[str, Any]] = {}

    def note(self, event: str, /, **facts: Any) -> None:
        self.facts[event] = facts


def pruned(folder: Path, **settings: Any) -> tuple[Network, Context, dict[str, Any]]:
    notes = Notes()
    context = replace(tiny_context(folder), journal=notes)
    step = PruneWeights(**{"batch_size": 32, **settings})
    step.requires(context.original, context)
    made = step.apply(context.original, context)
    return made.the_network(), context, notes.facts["weights pruned"]


@pytest.mark.parametrize("epochs", [0, 2])
@pytest.mark.parametrize("regrow", [False, True])
def test_the_step_meets_its_density_and_holds_it(tmp_path: Path, epochs: int, regrow: bool) -> None:
    network, context, facts = pruned(
        tmp_path, density=0.1, small=0, epochs=epochs, regrow=regrow, remove_dead=False
    )
    weights = weights_of(network)
    total = sum(w.numel() for w in weights.values())
    assert facts["kept"] == round(0.1 * total)
    assert density_of(weights) == facts["density"]
    assert network.held == dict.fromkeys(weights, "zeros")
    biases = [p for p in network.module.parameters() if p.ndim == 1]
    assert all(p.ndim == 1 and p.all() for p in biases if p.sum())
    assert density_of(weights_of(context.original.the_network())) == 1


def test_units_that_died_go_and_the_answers_stay(tmp_path: Path) -> None:
    network, context = tiny_network(), tiny_context(tmp_path)
    block = network.module.block1
    with torch.no_grad():
        block.conv1.weight[2] = 0
        block.bn1.running_mean[2], block.bn1.bias[2] = 0.0, -1.0
    given = Candidate("given", network=network)
    whole, smaller = (
        PruneWeights(density=0.3, remove_dead=remove).apply(given, context).the_network()
        for remove in (False, True)
    )
    assert smaller.module.block1.conv1.weight.shape[0] < 8
    assert smaller.params < whole.params
    x = network.example(8)
    with torch.no_grad():
        torch.testing.assert_close(smaller.module(*x), whole.module(*x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_density_of_one_changes_no_bit(tmp_path: Path, scope: str) -> None:
    network, context, facts = pruned(tmp_path, density=1.0, scope=scope, bn_images=0)
    assert facts["density"] == 1
    before = context.original.the_network().module.state_dict()
    after = network.module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_twice_pruned_keeps_the_first_zeros_without_regrowth(tmp_path: Path) -> None:
    first, context, _ = pruned(tmp_path, density=0.5, small=0, remove_dead=False)
    step = PruneWeights(density=0.2, small=0, remove_dead=False, epochs=1, batch_size=32)
    second = step.apply(Candidate("again", network=first), context).the_network()
    for name, weight in weights_of(second).items():
        assert not weight[first.module.get_parameter(name) == 0].any()
    assert density_of(weights_of(second)) == pytest.approx(0.2, abs=1e-3)


def test_the_pattern_holds_after_training(tmp_path: Path) -> None:
    network, _, _ = pruned(tmp_path, pattern="2:4", epochs=1, remove_dead=False)
    for weight in weights_of(network).values():
        for start in range(0, weight.shape[1], 4):
            assert (torch.count_nonzero(weight[:, start : start + 4], 1) <= 2).all()


def test_protected_layers_keep_all_weights(tmp_path: Path) -> None:
    network, _, _ = pruned(tmp_path, density=0.1, protect=["stem", "classify"], small=0)
    assert network.module.stem.weight.all()
    assert "stem.weight" not in network.held
    assert not network.module.block1.conv1.weight.all()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "needs `density`, `densities` or a `pattern`"),
        ({"density": 0.1, "pattern": "2:4"}, "a `pattern` or densities, and not both"),
        ({"pattern": "4:4"}, "n must be from 1 to m - 1"),
        ({"densities": {"a": 1.5}}, "'a' must be above 0 and at most 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text.replace("(", r"\(")):
        PruneWeights(**settings)


def test_nothing_to_learn_from_is_refused(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    bare = replace(context.data, train=replace(context.data.train, targets=None))
    artifact_like = replace(context, data=bare, original=Candidate("file", artifact=_artifact()))
    step = PruneWeights(density=0.5, epochs=1)
    with pytest.raises(Refused, match="nothing to learn from") as refused:
        step.requires(Candidate("n", network=tiny_network()), artifact_like)
    assert "epochs: 0" in str(refused.value)


def _artifact() -> Any:
    from lilliput.artifact import Artifact

    return Artifact.model_construct()


@given(st.floats(0.05, 2.4))
def test_the_density_within_some_bits_is_what_they_pay_for(bits: float) -> None:
    share = density_within(bits)
    code = torch.distributions.Bernoulli(torch.tensor(share, dtype=torch.float64))
    spent = float(code.entropy()) / np.log(2) + 2.5 * share
    assert bits - 0.01 <= spent <= bits


def test_bits_enough_for_every_weight_prune_none() -> None:
    assert density_within(2.5) == density_within(8) == 1


def limited(folder: Path, bits: float) -> tuple[Candidate, Context]:
    """The tiny network, where each of its weights may take so many bits of a packed file."""
    context = tiny_context(folder)
    weights = weights_of(context.original.the_network())
    count = sum(w.numel() for w in weights.values())
    limit = int(BYTES_A_LAYER * len(weights) + bits * count / 8)
    return context.original, replace(context, budget=Budget(max_bytes=limit))


def test_weights_go_where_quantizing_alone_would_not_keep_the_size(tmp_path: Path) -> None:
    step = PruneWeights(density="size", small=0, remove_dead=False)
    assert not step.has_work(*limited(tmp_path, 2.1))
    original, context = limited(tmp_path, 0.8)
    assert step.has_work(original, context)
    step.requires(original, context)
    made = step.apply(original, context).the_network()
    assert density_of(weights_of(made)) == pytest.approx(density_within(0.8), abs=0.01)


def test_a_density_by_size_wants_a_size(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    with pytest.raises(Refused, match=r"`density: size` keeps .*\n.*--max-size"):
        PruneWeights(density="size").requires(context.original, context)


@pytest.mark.parametrize(("minutes", "epochs"), [(1.0, 3), (100.0, 9), (0.001, 1)])
def test_a_training_is_as_long_as_its_minutes_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minutes: float, epochs: int
) -> None:
    asked = []

    def taught(network: Network, context: Any, lesson: Any, **_: Any) -> Network:
        asked.append(lesson.schedule.epochs)
        return network.copy()

    context = tiny_context(tmp_path)
    steps = context.task.epoch_steps(context.data.train, 32)
    monkeypatch.setattr("lilliput.steps.prune_weights.taught", taught)
    monkeypatch.setattr(pace, "pass_seconds", lambda *_: 18.0 / steps)
    monkeypatch.setattr(pace, "teacher_seconds", lambda *_: 0.0)
    step = PruneWeights(density=0.5, epochs=9, minutes=minutes, batch_size=32)
    step.apply(context.original, context)
    assert asked == [epochs]
