"""The game between student and discriminator, by its identities and on toys."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lilliput.distill.adversary import (
    Condition,
    Deception,
    Discriminator,
    Ramp,
    Rival,
    Rules,
    squared_gradient,
)
from lilliput.distill.discrepancy import Discrepancy, discrepancy
from lilliput.distill.features import Adapter, kept_inputs, pooled
from lilliput.distill.games import GAMES
from lilliput.distill.health import Health
from lilliput.distill.losses import Hints, Observed, Taps
from lilliput.prune import analyse, cut
from lilliput.steps.distill_adversarial import adapter_between
from lilliput.testing import tiny_network

TAPS = ("ours", "theirs")
AT_ONCE = Ramp(1.0, warmup=0.0, rise=0.0)


def rival_for(
    width: int,
    rules: Rules | None = None,
    *,
    ours: int | None = None,
    condition: int = 0,
    hidden: tuple[int, ...] = (16,),
    spectral: bool = True,
    dropout: float = 0.0,
) -> Rival:
    discriminator = Discriminator(
        width, condition, hidden=hidden, spectral=spectral, dropout=dropout
    )
    adapter = Adapter(ours or width, width, relu=False)
    return Rival(discriminator, adapter, TAPS, rules or Rules(), AT_ONCE)


def seen_of(ours: Tensor, theirs: Tensor, **more: Tensor) -> Observed:
    scores = more.pop("output", torch.zeros(len(ours), 3))
    return Observed(scores, features={"ours": ours}, teacher_features={"theirs": theirs}, **more)


def weights(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_who_cannot_tell_pays_the_known_price() -> None:
    nothing = torch.zeros(8)
    game = GAMES["nonsaturating"]
    assert float(game.discriminator(nothing, nothing)) == pytest.approx(1.386294, abs=1e-6)
    assert float(game.student(nothing)) == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("name", "logit", "loss"),
    [
        ("lsgan", 3.0, 4.0),
        ("hinge", 3.0, -3.0),
        ("minimax", 0.0, -math.log(2)),
        ("nonsaturating", 3.0, math.log1p(math.exp(-3.0))),
    ],
)
def test_the_students_loss_by_hand(name: str, logit: float, loss: float) -> None:
    assert float(GAMES[name].student(torch.full((4,), logit))) == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("name", GAMES)
def test_no_constant_answer_is_cheaper_than_the_blind_one(name: str) -> None:
    game = GAMES[name]
    losses = [
        float(game.discriminator(logit.expand(4), logit.expand(4)))
        for logit in torch.linspace(-2, 2, 81)
    ]
    assert min(losses) == pytest.approx(game.blind, abs=1e-6)


def test_only_the_non_saturating_game_moves_a_student_that_is_found_out() -> None:
    def slope(name: str) -> float:
        logit = torch.tensor([-20.0], requires_grad=True)
        (gradient,) = torch.autograd.grad(GAMES[name].student(logit), logit)
        return float(gradient)

    assert slope("nonsaturating") == pytest.approx(-1.0, abs=1e-6)
    assert slope("minimax") == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", GAMES)
def test_logits_of_any_size_have_finite_losses_and_slopes(name: str) -> None:
    for size in (-1e4, 1e4):
        logits = torch.tensor([size, -size], requires_grad=True)
        game = GAMES[name]
        loss = game.discriminator(logits[:1], logits[1:]) + game.student(logits)
        (slope,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss)
        assert torch.isfinite(slope).all()


def test_the_best_discriminator_is_the_logarithm_of_the_densities() -> None:
    # Quantiles in the place of random draws: N(0, 1) against N(m, 1).
    m, grid = 1.0, (torch.arange(2000) + 0.5) / 2000
    real = (math.sqrt(2) * torch.erfinv(2 * grid - 1))[:, None]
    rules = Rules(learning_rate=0.02)
    rival = rival_for(1, rules, hidden=(), spectral=False)
    for _ in range(600):
        rival.learn(real, real + m, None)
    layer = rival.discriminator.layers[0]
    assert isinstance(layer, nn.Linear)
    assert float(layer.weight) == pytest.approx(-m, rel=0.05)
    assert float(layer.bias) == pytest.approx(m**2 / 2, rel=0.05)


def play(rival: Rival, student: nn.Module, teacher, steps: int, rate: float) -> None:  # type: ignore[no-untyped-def]
    """The game alone: noise (128, ·) through the student against draws of the teacher."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(student.parameters(), lr=rate, betas=(0.5, 0.999))
    calm = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
    term = Deception(rival)
    for _ in range(steps):
        seen = seen_of(student(generator), teacher(generator))
        rival.observed(seen, 0.5)
        optimizer.zero_grad()
        term(seen).backward()
        optimizer.step()
        calm.step()


class Shift(nn.Module):
    """N(0, 1) moved by the one number that is learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.zeros(1))

    def forward(self, generator: torch.Generator) -> Tensor:
        return torch.randn(128, 1, generator=generator) + self.by


def test_a_student_that_can_only_shift_finds_the_mean() -> None:
    rival = rival_for(1, Rules(learning_rate=5e-3, r1=0.3), spectral=False)
    student = Shift()
    play(rival, student, lambda g: torch.randn(128, 1, generator=g) + 1.5, 1500, 0.01)
    assert float(student.by.detach()) == pytest.approx(1.5, abs=0.05)


class Painter(nn.Module):
    """Noise of two numbers to points of two."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, generator: torch.Generator) -> Tensor:
        points: Tensor = self.layers(torch.randn(128, 2, generator=generator))
        return points


def test_both_modes_of_a_mixture_are_covered() -> None:
    def teacher(generator: torch.Generator) -> Tensor:
        side = torch.randint(0, 2, (128, 1), generator=generator) * 4.0 - 2
        centre = torch.cat([side, torch.zeros(128, 1)], 1)
        return centre + 0.3 * torch.randn(128, 2, generator=generator)

    rival = rival_for(2, Rules(learning_rate=2e-3, r1=0.1), hidden=(32, 32), spectral=False)
    student = Painter()
    play(rival, student, teacher, 1200, 2e-3)
    with torch.no_grad():
        points = student(torch.Generator().manual_seed(2))
    right, left = points[:, 0] > 1, points[:, 0] < -1
    # A student that collapsed has no point in one of them; the game does not promise halves.
    assert min(float(right.float().mean()), float(left.float().mean())) > 0.1


@pytest.mark.parametrize(
    ("condition", "blind"), [("none", True), ("teacher", False), ("label", False)]
)
def test_without_a_condition_the_pairing_does_not_count(condition: Condition, blind: bool) -> None:
    torch.manual_seed(0)
    ours, theirs, scores = torch.randn(32, 6), torch.randn(32, 6) + 1, 3 * torch.randn(32, 3)
    order, labels = torch.randperm(32), torch.randint(0, 3, (32,))

    def played(theirs: Tensor) -> tuple[Tensor, Tensor]:
        told = 0 if condition == "none" else 3
        rules = Rules(condition=condition, learning_rate=0.02)
        rival = rival_for(6, rules, condition=told)
        features = ours.clone().requires_grad_()
        seen = seen_of(features, theirs, teacher_output=scores, target=labels)
        rival.observed(seen, 0.5)
        (gradient,) = torch.autograd.grad(Deception(rival)(seen), features)
        rival.epoch_over()
        return torch.tensor(rival.facts()["rival_edge"]), gradient

    (edge, gradient), (permuted_edge, permuted) = played(theirs), played(theirs[order])
    assert torch.allclose(edge, permuted_edge, atol=1e-6) == blind
    assert torch.allclose(gradient, permuted, atol=1e-6) == blind


def test_hints_do_count_the_pairing() -> None:
    torch.manual_seed(0)
    hints = Hints({"x": (6, 6)}, weight=1.0)
    features = torch.randn(8, 6)
    paired = Observed(features, features={"x": features}, teacher_features={"x": features})
    shuffled = replace(paired, teacher_features={"x": features.roll(1, 0)})
    assert float(hints(paired)) == 0 < float(hints(shuffled))


def test_each_side_learns_without_touching_the_other() -> None:
    torch.manual_seed(0)
    rival = rival_for(6, Rules(r1=0.5), ours=4, dropout=0.3)
    term, body = Deception(rival), nn.Linear(5, 4)
    adapter = weights(term)
    seen = seen_of(body(torch.randn(16, 5)), torch.randn(16, 6))
    before = weights(rival.discriminator)
    rival.observed(seen, 0.5)
    after = weights(rival.discriminator)
    assert not torch.equal(before, after)
    assert torch.equal(weights(term), adapter)
    assert all(p.grad is None for p in [*term.parameters(), *body.parameters()])

    told = [None if p.grad is None else p.grad.clone() for p in rival.discriminator.parameters()]
    term(seen).backward()
    assert all(p.grad is not None for p in [*term.parameters(), *body.parameters()])
    assert torch.equal(weights(rival.discriminator), after)
    for grad, parameter in zip(told, rival.discriminator.parameters(), strict=True):
        assert grad is not None
        assert parameter.grad is not None
        assert torch.equal(grad, parameter.grad)


def test_the_discriminator_is_no_part_of_what_the_student_trains() -> None:
    term = Deception(rival_for(6, ours=4))
    assert [name for name, _ in term.named_parameters()] == ["adapter.weight", "adapter.bias"]
    assert not list(Deception(rival_for(6)).parameters())


def test_layers_keep_a_spectral_norm_of_one() -> None:
    discriminator = Discriminator(12, hidden=(24, 8)).train()
    for layer in discriminator.layers:
        original = layer.get_parameter("parametrizations.weight.original")
        with torch.no_grad():
            original.mul_(7)
            original[0, 0] += 3
    for _ in range(20):
        discriminator(torch.randn(4, 12))
    for layer in discriminator.eval().layers:
        assert isinstance(layer, nn.Linear)
        assert float(torch.linalg.svdvals(layer.weight.detach())[0]) <= 1.01


def test_a_student_that_is_the_teacher_is_not_told_apart() -> None:
    torch.manual_seed(0)
    features = torch.randn(512, 6).relu()
    rival = rival_for(6, dropout=0.3)
    for _ in range(300):
        batch = features[torch.randint(0, 512, (64,))]
        rival.learn(batch, batch, None)
    rival.epoch_over()
    facts = rival.facts()
    right = (facts["rival_right_on_real"] + facts["rival_right_on_fake"]) / 2
    assert right == pytest.approx(0.5, abs=0.02)
    assert facts["rival_edge"] < 0.01
    assert facts["rival_norm_ratio"] == pytest.approx(1.0)


def test_a_copy_of_the_teacher_is_not_told_apart_by_what_its_layers_give() -> None:
    teacher = tiny_network()
    tap = "classify.input"
    (pictures,) = teacher.example(256)
    features = []
    for network in (teacher, teacher.copy()):
        with torch.no_grad(), Taps(network.module, (tap,)) as tapped:
            network.module(pictures)
        features.append(pooled(tapped.features[tap]))
    assert torch.equal(*features)
    theirs, ours = features
    adapter = adapter_between(teacher.copy(), teacher, (tap, tap), seed=0)

    def share_right(ours: Tensor, steps: int) -> float:
        discriminator = Discriminator(8, hidden=(16,), dropout=0.1)
        rival = Rival(discriminator, adapter, TAPS, Rules(learning_rate=0.01), AT_ONCE)
        draws = torch.Generator().manual_seed(3)
        for _ in range(steps):
            real, fake = (torch.randint(0, 256, (64,), generator=draws) for _ in range(2))
            rival.observed(seen_of(ours[fake], theirs[real]), 0.5)
        rival.epoch_over()
        told = rival.facts()
        return (told["rival_right_on_real"] + told["rival_right_on_fake"]) / 2

    assert share_right(ours, 200) == pytest.approx(0.5, abs=0.02)
    assert share_right(ours + theirs.std(), 60) > 0.6


def test_features_are_measured_by_the_size_of_the_teachers() -> None:
    torch.manual_seed(0)
    ours, theirs = torch.randn(16, 6), torch.randn(16, 6)

    def played(size: float) -> tuple[float, Tensor]:
        rival = rival_for(6)
        features = (size * ours).requires_grad_()
        seen = seen_of(features, size * theirs)
        rival.observed(seen, 0.5)
        (gradient,) = torch.autograd.grad(Deception(rival)(seen), features)
        rival.epoch_over()
        return rival.facts()["rival_edge"], size * gradient

    (edge, gradient), (large_edge, large_gradient) = played(1.0), played(1000.0)
    assert large_edge == pytest.approx(edge, abs=1e-6)
    assert torch.allclose(large_gradient, gradient, atol=1e-6)


def test_draws_of_the_discriminator_are_its_own() -> None:
    torch.manual_seed(7)
    undisturbed = torch.rand(3)
    torch.manual_seed(7)
    rival = rival_for(6, ours=4, dropout=0.5)
    rival.learn(torch.ones(8, 6), torch.zeros(8, 6), None)
    assert torch.equal(torch.rand(3), undisturbed)


def test_the_ramp_waits_rises_and_falls() -> None:
    ramp = Ramp(0.4, warmup=0.2, rise=0.1, decay=0.2)
    shares = (0.0, 0.19, 0.25, 0.3, 0.8, 0.9, 1.0)
    assert [ramp.at(share) for share in shares] == pytest.approx([0, 0, 0.2, 0.4, 0.4, 0.2, 0])
    assert AT_ONCE.at(0.0) == 1.0


def test_a_discriminator_that_is_too_sure_slows_down() -> None:
    rival = rival_for(2)
    rate = rival.rules.learning_rate

    def epoch(real: float, fake: float) -> float:
        features = torch.ones(4, 2)
        logits = torch.ones(4)
        rival.health.add(real * logits, fake * logits, logits.mean(), features, features)
        rival.epoch_over()
        return rival.facts()["rival_rate"]

    assert epoch(1, -1) == rate
    assert epoch(1, -1) == rate / 2
    assert epoch(1, -1) == rate / 2
    assert epoch(1, 1) == rate / 2
    assert epoch(1, -1) == rate / 2
    assert epoch(1, -1) == rate / 4


def test_the_penalty_is_the_squared_slope() -> None:
    features = torch.randn(5, 3, requires_grad=True)
    slope = torch.tensor([1.0, -2.0, 0.5])
    assert float(squared_gradient(features @ slope, features).detach()) == pytest.approx(5.25)


def test_the_penalty_pulls_a_linear_discriminator_by_its_own_weight() -> None:
    torch.manual_seed(0)
    real, fake = torch.randn(16, 3), torch.randn(16, 3)

    def told(r1: float) -> tuple[Tensor, Tensor]:
        rival = rival_for(3, Rules(r1=r1), hidden=(), spectral=False)
        weight = rival.discriminator.layers[0].get_parameter("weight")
        before = weight.detach().clone()
        rival.learn(real, fake, None)
        assert weight.grad is not None
        return before, weight.grad

    (weight, with_penalty), (_, without) = told(1.0), told(0.0)
    assert torch.allclose(with_penalty - without, weight, atol=1e-6)


def test_the_share_of_the_gradient_is_measured_at_the_features() -> None:
    health = Health(GAMES["nonsaturating"])
    features = torch.ones(2, 2, requires_grad=True)
    ours, others = 3.0 * features.sum(), 12.0 * features.sum()
    health.compare(features, ours)
    (ours + others).backward()
    health.add(torch.ones(2), torch.ones(2), torch.zeros(()), torch.ones(2, 2), torch.ones(2, 2))
    health.close()
    assert health.told["rival_gradient_share"] == pytest.approx(0.25)


def test_the_label_is_told_as_one_of_the_classes() -> None:
    rival = rival_for(2, Rules(condition="label"), condition=3)
    seen = seen_of(torch.zeros(2, 2), torch.zeros(2, 2), target=torch.tensor([2, 0]))
    told = rival.condition_of(seen)
    assert told is not None
    assert told.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_an_adapter_begins_at_what_a_cut_left() -> None:
    cut = {"removed": [{"tensor": "fc.weight", "dim": 1, "of": 5, "indices": [1]}]}
    again = {"removed": [{"tensor": "fc.weight", "dim": 1, "of": 4, "indices": [0]}]}
    kept = kept_inputs([cut, {"edit": "remove_block"}, again], "fc", 5)
    assert kept == (2, 3, 4)
    adapter = Adapter(3, 5, relu=True, kept=kept)
    assert adapter(torch.tensor([[1.0, 2.0, 3.0]])).tolist() == [[0, 0, 1, 2, 3]]
    # Another teacher, wider than the network that was cut: nothing is known.
    assert kept_inputs([cut], "fc", 9) == ()


def test_the_adapter_of_a_cut_network_begins_at_the_places_of_its_channels() -> None:
    network = tiny_network()
    analysis = analyse(network)
    stream = next(g for g in analysis.prunable if "classify" in g.layers)
    smaller = cut(network, analysis, (stream.classes[1], stream.classes[6]))
    adapter = adapter_between(smaller, network, ("classify.input", "classify.input"), seed=0)
    features = torch.rand(5, 6)
    mapped = adapter(features)
    assert torch.equal(mapped[:, [0, 2, 3, 4, 5, 7]], features)
    assert not mapped[:, [1, 6]].any()


def test_features_below_zero_are_left_to_an_adapter() -> None:
    wide, network = tiny_network(), tiny_network()
    analysis = analyse(network)
    thin = cut(network, analysis, analysis.prunable[0].classes[:3])
    above, both = "classify.input", "stem"
    assert adapter_between(thin, wide, (above, above), seed=0).relu
    assert not adapter_between(thin, wide, (both, both), seed=0).relu


def test_the_adapter_is_cut_at_zero_as_the_teacher_is() -> None:
    features = torch.randn(9, 3)
    assert (Adapter(3, 5, relu=True)(features) >= 0).all()
    assert (Adapter(3, 5, relu=False)(features) < 0).any()
    assert torch.equal(Adapter(3, 3, relu=True)(features), features)


def test_the_discrepancy_of_equal_clouds_is_zero_and_falls_on_the_way_there() -> None:
    torch.manual_seed(0)
    cloud = torch.randn(64, 3)
    assert float(discrepancy(cloud, cloud[torch.randperm(64)])) == pytest.approx(0, abs=1e-6)
    by = torch.full((3,), 2.0, requires_grad=True)
    near, far = discrepancy(cloud + 0.5, cloud), discrepancy(cloud + by, cloud)
    assert 0 < float(near) < float(far)
    (gradient,) = torch.autograd.grad(far, by)
    assert (gradient > 0).all()


def test_the_discrepancy_is_a_term() -> None:
    term = Discrepancy(Adapter(4, 6, relu=False), TAPS, weight=0.5)
    loss = term(seen_of(torch.randn(8, 4, 2, 2), torch.randn(8, 6)))
    loss.backward()
    assert all(p.grad is not None for p in term.parameters())
