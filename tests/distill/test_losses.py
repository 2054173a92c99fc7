"""Loss terms and their exact values."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from lilliput.distill.losses import Hints, Imitation, Observed, Taps, Truth, scored_terms
from lilliput.errors import LilliputError
from lilliput.tasks import task_of
from lilliput.testing import tiny_network

TASK = task_of("classification")


def test_imitation_is_zero_when_scores_differ_by_a_constant() -> None:
    scores = torch.randn(5, 4)
    seen = Observed(scores + 3.0, teacher_output=scores)
    assert float(Imitation(TASK)(seen)) == pytest.approx(0.0, abs=1e-6)


def test_imitation_at_temperature_one_of_a_sure_teacher_is_cross_entropy() -> None:
    labels = torch.tensor([0, 2, 1])
    sure = F.one_hot(labels, 4).float() * 60.0
    scores = torch.randn(3, 4, requires_grad=True)
    kd = Imitation(TASK, temperature=1.0)(Observed(scores, teacher_output=sure))
    ce = Truth(TASK)(Observed(scores, target=labels))
    (ours,) = torch.autograd.grad(kd, scores, retain_graph=True)
    (theirs,) = torch.autograd.grad(ce, scores)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_gradient_of_imitation_has_the_temperature_squared() -> None:
    tau = 4.0
    ours = torch.randn(6, 4, requires_grad=True)
    theirs = torch.randn(6, 4)
    loss = Imitation(TASK, temperature=tau)(Observed(ours, teacher_output=theirs))
    (gradient,) = torch.autograd.grad(loss, ours)
    expected = tau * (F.softmax(ours / tau, 1) - F.softmax(theirs / tau, 1)) / 6
    torch.testing.assert_close(gradient, expected)


def test_imitation_counts_which_example_an_answer_is_of() -> None:
    scores = 3 * torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    term = Imitation(TASK)
    paired = float(term(Observed(scores, teacher_output=scores)))
    shuffled = float(term(Observed(scores, teacher_output=scores.roll(1, 0))))
    assert paired == pytest.approx(0, abs=1e-6)
    assert shuffled > 0.1


@pytest.mark.parametrize("imitation", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("labelled", [True, False])
def test_labels_or_answers_are_always_learnt_and_weigh_one_together(
    imitation: float, labelled: bool
) -> None:
    terms = scored_terms(TASK, imitation, 4.0, labelled=labelled)
    assert sum(term.weight for term in terms) == pytest.approx(1)
    assert all(term.weight > 0 for term in terms)
    assert labelled or not any(isinstance(term, Truth) for term in terms)


def test_truth_without_labels_says_what_to_use_instead() -> None:
    with pytest.raises(LilliputError, match="no labels") as error:
        Truth(TASK)(Observed(torch.zeros(1, 4)))
    assert "distill" in str(error.value)


def test_hints_of_equal_features_are_zero_and_scale_free() -> None:
    features = {"block1": torch.randn(2, 8, 4, 4)}
    hints = Hints({"block1": (8, 8)}, weight=1.0)
    same = Observed(torch.zeros(1), features=features, teacher_features=features)
    assert float(hints(same)) == 0.0
    assert not list(hints.parameters())
    other = {"block1": torch.randn(2, 8, 4, 4)}
    once = hints(Observed(torch.zeros(1), features=features, teacher_features=other))
    tenfold = hints(
        Observed(
            torch.zeros(1),
            features={k: 10 * v for k, v in features.items()},
            teacher_features={k: 10 * v for k, v in other.items()},
        )
    )
    assert math.isclose(float(once), float(tenfold), rel_tol=1e-5)


def test_hints_bridge_different_widths_with_a_trained_map() -> None:
    hints = Hints({"a.b": (4, 8)}, weight=0.5, seed=1)
    seen = Observed(
        torch.zeros(1),
        features={"a.b": torch.randn(2, 4, 3, 3)},
        teacher_features={"a.b": torch.randn(2, 8, 3, 3)},
    )
    loss = hints(seen)
    loss.backward()
    (adapter,) = hints.parameters()
    assert adapter.shape == (8, 4)
    assert adapter.grad is not None


def test_taps_record_and_let_go() -> None:
    module = tiny_network().module
    with Taps(module, ("block1",)) as tapped:
        module(torch.zeros(2, 3, 8, 8))
    assert tapped.features["block1"].shape == (2, 8, 8, 8)
    assert not any(part._forward_hooks for part in module.modules())


def test_a_tap_may_be_what_goes_into_a_layer() -> None:
    module = tiny_network().module
    with Taps(module, ("classify.input", "block2", "classify")) as tapped:
        scores = module(torch.randn(2, 3, 8, 8))
    pooled = tapped.features["block2"].mean((2, 3))
    assert torch.equal(tapped.features["classify.input"], pooled)
    assert torch.equal(tapped.features["classify"], scores)
    assert not any(part._forward_pre_hooks for part in module.modules())


def test_a_layer_called_input_is_itself() -> None:
    module = torch.nn.Sequential()
    module.add_module("input", torch.nn.ReLU())
    wrapped = torch.nn.ModuleDict({"a": module})
    with Taps(wrapped, ("a.input",)) as tapped:
        module(torch.tensor([-1.0]))
    assert float(tapped.features["a.input"]) == 0.0


def test_an_unknown_tap_gets_the_nearest_name() -> None:
    with pytest.raises(LilliputError, match="no layer 'blok1'") as error:
        Taps(tiny_network().module, ("blok1",))
    assert "block1" in str(error.value)
    with pytest.raises(LilliputError, match="no layer 'clasify' to take"):
        Taps(tiny_network().module, ("clasify.input",))
