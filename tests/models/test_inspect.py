"""What inspect tells is what the network is, and why something stays."""

from __future__ import annotations

import json

import pytest

from lilliput.models.inspect import Inspection, inspect_network
from lilliput.prune.groups import analyse
from lilliput.testing.zoo import zoo


@pytest.fixture(scope="module")
def residual() -> Inspection:
    return inspect_network(zoo()["residual"]())


def test_the_parts_add_up(residual: Inspection) -> None:
    network = zoo()["residual"]()
    assert residual.params == network.params == sum(row.params for row in residual.layers)
    assert residual.macs == sum(row.macs for row in residual.layers) == analyse(network).macs()
    paths = dict(network.module.named_modules())
    assert all(row.path in paths for row in residual.layers)
    assert {row.kind for row in residual.layers} >= {"Conv2d", "BatchNorm2d", "Linear"}


def test_groups_blocks_and_reasons_are_those_of_the_engine(residual: Inspection) -> None:
    analysis = analyse(zoo()["residual"]())
    assert [g.name for g in residual.groups] == [g.name for g in analysis.prunable]
    assert all(0 < g.free <= g.width for g in residual.groups)
    assert all(g.reasons for g in residual.frozen)
    assert residual.blocks
    given = inspect_network(zoo()["residual"](), analysis)
    assert given == residual


def test_the_text_says_it_all(residual: Inspection) -> None:
    text = str(residual)
    assert text.startswith(f"residual: {residual.params:,} parameters, {residual.macs:,} multiply")
    assert "takes input any×3×8×8" in text
    assert f"{len(residual.groups)} groups of channels can be cut" in text
    assert f"{len(residual.blocks)} blocks can be left out" in text
    assert all(row.path in text for row in residual.layers)
    assert Inspection.model_validate(json.loads(residual.model_dump_json())) == residual


@pytest.mark.parametrize("name", ["shared_weights", "raw_scale", "attention", "recurrent"])
def test_awkward_networks_are_inspected_too(name: str) -> None:
    network = zoo()[name]()
    found = inspect_network(network)
    assert sum(row.params for row in found.layers) == network.params
    assert str(found)
