"""What Python decides by the values of a tensor is told: an exported file has one way only."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lilliput.artifact import TensorSpec
from lilliput.models.decisions import decision_warning, decisions
from lilliput.network import Network
from lilliput.testing.zoo import zoo


class Deciding(nn.Module):
    """A linear map that looks at something before it answers."""

    def __init__(self, look: str) -> None:
        super().__init__()
        self.look, self.map = look, nn.Linear(4, 3)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        y = self.map(x)
        if self.look == "branch" and x.mean() > 5:
            return y * 2
        if self.look == "number":
            return y * float(y.abs().max())
        if self.look == "item":
            return y * y.sum().item()
        if self.look == "written":
            blank = torch.zeros(1)
            blank.add_(y.sum())
            return y * (1 if blank else 2)
        if self.look == "placed":
            blank = torch.zeros(2)
            blank[0] = y.sum()
            return y * (1 if blank[0] else 2)
        if self.look == "shape" and x.shape[0] > 1 and len(y) > 1:
            return y + y.size(1)
        if self.look == "buffer" and self.scale > 1 and bool(self.scale):
            return y * float(self.scale)
        if self.look == "fails":
            raise RuntimeError("no")
        return y


def network(look: str) -> Network:
    return Network(Deciding(look).eval(), (TensorSpec(name="x", shape=(None, 4)),))


@pytest.mark.parametrize("look", ["branch", "number", "item", "written", "placed"])
def test_a_decision_is_found_with_its_place(look: str) -> None:
    (place,) = decisions(network(look))
    assert place.startswith("test_decisions.py:")
    assert place in decision_warning(network(look))


@pytest.mark.parametrize("look", ["none", "shape", "buffer", "fails"])
def test_shapes_and_weights_are_the_same_for_all_examples(look: str) -> None:
    found = network(look)
    found.module.train()
    assert decisions(found) == ()
    assert found.module.training
    assert decision_warning(found) == ""


@pytest.mark.parametrize("name", sorted(zoo()))
def test_the_zoo_decides_nothing(name: str) -> None:
    assert decisions(zoo()[name]()) == ()
