"""Hints between networks that call their layers otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from lilliput.candidate import Candidate
from lilliput.distill.losses import Hints, Observed
from lilliput.errors import LilliputError, Refused
from lilliput.network import Network
from lilliput.steps.distill import Distill
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
