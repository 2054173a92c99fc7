"""Hints between networks that call their layers otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from lilliput.candidate import Candidate
from lilliput.distill.losses import Hints, Observed, Taps
from lilliput.errors import LilliputError, Refused
from lilliput.network import Network
from lilliput.steps.distill import Distill
from lilliput.steps.distill_adversarial import DistillAdversarial
from lilliput.steps.prune_weights import PruneWeights
from lilliput.testing import tiny_context, tiny_network


def student() -> Network:
    """Five channels where the tiny network, the teacher, has eight, and no name in common."""
    torch.manual_seed(3)
    body = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(320, 4))
    return replace(tiny_network(), module=body.eval(), name="plain")


def terms(tmp_path: Path, hints: dict[str, str]) -> list[object]:
    context = tiny_context(tmp_path)
    step = Distill(hints=hints)
    return [*step.terms(student(), context.original.the_network(), context, labelled=True)]


def test_a_hint_names_the_layers_of_both(tmp_path: Path) -> None:
    *_, found = terms(tmp_path, {"0": "block1.conv2", "1": "block2"})
    assert isinstance(found, Hints)
    assert (found.taps, found.teacher_taps) == (("0", "1"), ("block1.conv2", "block2"))
    assert [adapter.shape for adapter in found.parameters()] == [(8, 5), (8, 5)]
    theirs = {"block1.conv2": torch.randn(2, 8, 3, 3), "block2": torch.randn(2, 8, 3, 3)}
    ours = {tap: torch.randn(2, 5, 3, 3) for tap in "01"}
    loss = found(Observed(torch.zeros(1), features=ours, teacher_features=theirs))
    theirs["block2"] = 10 + theirs["block2"]
    other = found(Observed(torch.zeros(1), features=ours, teacher_features=theirs))
    assert float(loss.detach()) != float(other.detach())


def test_a_student_of_other_names_is_taught_by_hints(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)

    def trained(hints: dict[str, str]) -> torch.Tensor:
        step = Distill(hints=hints, epochs=1, batch_size=48, learning_rate=0.05)
        made = step.apply(Candidate("x", network=student()), context).the_network()
        return torch.cat([p.detach().flatten() for p in made.module.parameters()])

    assert not torch.equal(trained({"1": "block1"}), trained({}))


def test_the_list_means_one_name_for_both() -> None:
    assert Distill(hints=("a", "b")).paired == {"a": "a", "b": "b"}
    assert Distill.model_validate({"hints": {"a": "b"}}).model_dump()["hints"] == {"a": "b"}


def test_a_wrong_name_is_told_with_its_network_and_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(LilliputError, match=r"network 'tiny': no layer 'blok1'.*\n.*'block1'"):
        terms(tmp_path, {"0": "blok1"})
    with pytest.raises(LilliputError, match=r"network 'plain': no layer 'block1'.*\n.*known: .*0"):
        terms(tmp_path, {"block1": "block1"})


def test_features_of_other_sizes_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="differ in more than channels: 5×8×8 and 4"):
        terms(tmp_path, {"0": "classify"})


class Normed(nn.Module):
    """A norm before an operation that may work in place."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.relu, self.head = nn.ReLU(inplace=inplace), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.relu(self.bn(self.conv(x))).mean((2, 3)))  # type: ignore[no-any-return]


def test_features_are_those_before_what_works_in_place() -> None:
    x = torch.randn(2, 3, 8, 8)
    found = []
    for inplace in (False, True):
        module = Normed(inplace).eval()
        with Taps(module, ("bn", "relu.input")) as taps:
            module(x)
        found.append(taps.features)
    assert (found[0]["bn"] < 0).any()
    for tap in ("bn", "relu.input"):
        assert torch.equal(found[0][tap], found[1][tap])


def test_the_first_of_several_outputs_is_a_feature() -> None:
    module = nn.Sequential(nn.LSTM(3, 5, batch_first=True))
    with Taps(module, ("0",)) as taps:
        module(torch.randn(2, 7, 3))
    assert taps.features["0"].shape == (2, 7, 5)


TEACHER = """
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
"""


@pytest.mark.parametrize("step", [Distill, DistillAdversarial])
def test_a_teacher_of_other_classes_is_refused_before_training(
    step: type[Distill] | type[DistillAdversarial], tmp_path: Path
) -> None:
    (tmp_path / "teach.py").write_text(TEACHER)
    context = tiny_context(tmp_path)
    with pytest.raises(LilliputError, match=r"gives \(2, 10\) where the network gives \(2, 4\)"):
        step(teacher=f"{tmp_path}/teach.py:build").requires(context.original, context)


class Named(nn.Module):
    """A layer that is called with a keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(input=torch.relu(self.conv(x)).mean((2, 3)))  # type: ignore[no-any-return]


def test_what_a_layer_is_given_by_name_is_its_input(tmp_path: Path) -> None:
    module = Named().eval()
    with Taps(module, ("fc.input",)) as taps:
        module(torch.randn(2, 3, 8, 8))
    assert taps.features["fc.input"].shape == (2, 8)
    with torch.no_grad():
        module.conv.weight[0] = 0.0
        assert module.conv.bias is not None
        module.conv.bias[0] = -1.0
    given = replace(tiny_network(), module=module)
    context = tiny_context(tmp_path, original=Candidate("original", network=given))
    made = PruneWeights(density=0.9).apply(context.original, context).the_network()
    assert made.module.get_submodule("conv").weight.shape[0] == 7
